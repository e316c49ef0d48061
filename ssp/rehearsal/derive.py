"""The stand-in of a config: all that can break on the way is kept, all that takes time is little.

Kept: data sets with their layouts, archives, codecs, lists and numbers of classes, clips and picture sizes, recipes
(augmentation, mixing, clipping), quirks, the backbone's size, every row and ablation with its options and spaces. Where
the config asks for a GPU that is not here, pictures are small ones, and `at_size` takes each row through a step of its
own size.

Little: four training videos and two of test, generated (more where the config's pictures are small, as the start of a
training would hide its speed); one seed, one trial, one epoch (two where pictures are small), small batches, two test
views. So folds, rungs of a search, several seeds, studies and splits are not rehearsed, nor the contents of real
archives. Own videos are taken as they are.
"""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

from ssp.config import Config, Dataset
from ssp.paths import Paths

Plain = dict[str, Any]
NAME = "rehearsal.yaml"
NOT_REHEARSED = "contents of real archives, folds, rungs, several trials, seeds, studies and splits"
PASS = 2  # videos of a pass on a CPU: the fewest that mixing takes
LARGE, SMALL = 64, 32  # pixels of a side: above, a CPU would take hours where a GPU takes minutes; taken instead
HEIGHT, WIDTH = 240 / 224, 320 / 224  # of videos, for a pixel of a clip's side
FPS = 12
ENDINGS = {"hmdb51": (".zip", ".zip"), "ucf101": (".zip", ".zip"), "breakfast": (".tar.gz",)}


def derive(plain: Plain, config: Config, gpu: bool) -> Plain:
    """The stand-in as YAML, for a folder of its own.

    Args:
        plain: YAML of the config, resolved.
        config: the same, checked.
        gpu: whether this machine has the GPU that the config may ask for.
    """
    found = deepcopy(plain)
    found["data_root"] = "data"
    found["seeds"] = config.seeds[:1]
    found.pop("tracking", None)
    found["backbone"]["checkpoints"] = {name: _checkpoint(config, name) for name in config.backbone.checkpoints}
    small = not (gpu and config.compute.train.gpus)
    size = found["backbone"]["image_size"] = picture_size(config, gpu)
    # Of small pictures a clip takes milliseconds: with a few, all that is measured is how a training starts.
    more = max(1, (96 // config.backbone.image_size) ** 2)
    found["datasets"] = {}
    for number, (name, raw) in enumerate(plain["datasets"].items()):
        settings, own = config.archived[name], deepcopy(raw)
        _shrink(own, settings, PASS * more if small else None)
        own["recipe"] |= {"epochs": min(2, more), "warmup_epochs": min(2, more) * settings.recipe.warmup_share}
        if settings.videos:
            own["videos"] = str(settings.videos.resolve())
        else:
            _generate(own, settings, name, number, size, more)
        found["datasets"][name] = own
    found["sweep"] = {key: plain["sweep"][key] for key in ("seed", "space") if key in plain["sweep"]}
    found["sweep"]["trials"] = int(any(map(config.rungs, config.datasets)))
    for ablation in (found.get("ablations") or {}).values():
        if ablation.get("seeds"):
            ablation["seeds"] = found["seeds"]
    if found.get("compute"):
        found["compute"] = _compute(found["compute"], _lacks_gpu(config, gpu))
    return found


def picture_size(config: Config, gpu: bool) -> int:
    """Pixels of a side of a stand-in's pictures."""
    size = config.backbone.image_size
    return SMALL if _lacks_gpu(config, gpu) and size > LARGE else size


def _lacks_gpu(config: Config, gpu: bool) -> bool:
    """Whether the config asks for a GPU that is not here."""
    return bool(config.compute.train.gpus) and not gpu


def _compute(given: Plain, lacks_gpu: bool) -> Plain:
    """One process a training, as its clips take so long, and small ones leave too few videos for several.

    In place of a GPU that is not here each job has one thread, so that jobs run beside each other.
    """
    found = {kind: dict(own) if isinstance(own, dict) else own for kind, own in given.items()}
    for own in filter(None, map(found.get, ("pretrain", "train", "sweep"))):
        for several in ("processes", "nodes"):
            own.pop(several, None)
        if "gpus" in own:
            own["gpus"] = min(own["gpus"], 1)
        if lacks_gpu:
            own |= {"gpus": 0, "loader_workers": 0}
    if lacks_gpu:
        for own in found.values():
            if isinstance(own, dict):
                own["threads"] = 1
        found["cost_rounds"] = 1
    return found


def weights_file(checkpoint: str) -> Path:
    """Where random weights of a checkpoint lie in the folder of a stand-in."""
    return Path("backbone") / f"{checkpoint}.safetensors"


def _checkpoint(config: Config, name: str) -> Plain:
    """The published file where it is here already, else random weights; a tenth of a pre-training."""
    checkpoint = config.backbone.checkpoints[name]
    if checkpoint.pretrain:
        given = checkpoint.pretrain.model_dump(mode="json", exclude_unset=True)
        tenth = {key: max(2, getattr(checkpoint.pretrain, key) // 10) for key in ("clips", "held_out", "steps")}
        return {"num_frames": checkpoint.num_frames, "pretrain": given | tenth}
    here = checkpoint.local or Paths.of(config).fetched_checkpoint(checkpoint.archive.file)
    local = str(here.resolve()) if here.is_file() else str(weights_file(name))
    return {"num_frames": checkpoint.num_frames, "local": local}


def _shrink(raw: Plain, settings: Dataset, most: int | None) -> None:
    """Fewer videos of a step (at most so many, or those of a pass), folds, shards and views; in place."""
    recipe, clips = settings.recipe, settings.clips
    at_once = min(recipe.micro_batch or recipe.batch_size, recipe.batch_size)
    at_once = min(at_once, most or at_once)
    raw.pop("fidelity", None)
    if raw.get("validation"):
        raw["validation"].pop("folds", None)
    raw["frames"]["shards"] = min(2, settings.frames.shards)
    segments = min(2, clips.test_segments)
    raw["clips"] |= {"test_segments": segments, "test_crops": min(2 // segments, clips.test_crops)}
    raw["recipe"] |= {"batch_size": at_once, "micro_batch": at_once}
    if recipe.augmentation.mix_videos:
        raw["recipe"]["augmentation"]["mix_videos"] = min(recipe.augmentation.mix_videos, at_once)


def _generate(raw: Plain, settings: Dataset, name: str, number: int, image_size: int, more: int) -> None:
    """Archives that are generated, in place of published ones."""
    for key in ("licence_page", "generate"):
        raw.pop(key, None)
    raw["split"] = [1] if isinstance(raw.get("split"), list) else 1  # of a list results are named after the split
    classes = settings.expected.classes
    counts = {
        "classes": classes,
        "train": max(4 * more, 2 * raw["recipe"]["batch_size"]),
        "test": 2 * more,
    }
    # Nothing free writes rar. Folders that are unpacked already come as archives, too.
    names = [archive.file for archive in settings.archives]
    if kinds := ENDINGS.get(settings.source):
        names = [_with_ending(file, kind) for file, kind in zip(names, kinds, strict=False)]
    raw["archives"] = [{"file": file} for file in names]
    raw["local"], raw["expected"] = f"generated/{name}", dict(counts)
    least = max(8, settings.clips.num_frames * settings.clips.stride + 1) / FPS  # a window of a clip
    raw["generate"] = {
        **counts,
        "seed": number,
        "size": [max(32, 2 * math.ceil(image_size * ratio / 2)) for ratio in (WIDTH, HEIGHT)],  # even, as codecs ask
        "seconds": [round(least, 2), round(1.25 * least, 2)],
        "fps": FPS,
    }


def _with_ending(file: str, ending: str) -> str:
    stem = next((file.removesuffix(e) for e in (".rar", ".zip", ".tar.gz", ".tgz") if file.endswith(e)), file)
    return stem + ending
