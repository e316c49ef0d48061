"""Plans: which clips a generated data set holds, under which names, in which groups, and its annotation files.

- Layouts and annotation formats are the published ones; class names say honestly what is shown.
- Groups (source films, gNN, subjects) share a backdrop, as real groups share a place: a validation split that cut
  through groups would look better than it is.
- Length and size on disk follow from streams of their own, drawn alike for all classes.
- A stand-in (`generate.classes`) has that many classes in its lists, and videos of the first and the last; they show
  what the demo's classes show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssp.config import Generate
from ssp.data.synthetic.encode import AVI, WEBM, Format
from ssp.data.synthetic.scenes import BREAKFAST_ORDERS, BREAKFAST_STEPS, CLASSES, HMDB51, UCF101, Action, template

CLIPS_PER_GROUP = 5  # HMDB51: of one source film
# What sparse sampling takes must be the same frames of an event, forwards and backwards, or they could be told apart
# without regard to order: training leaves the frames after the last whole segment out, so there are none; a test takes
# each segment's middle, so that segments have one, an odd number of frames.
SSV2_SEGMENTS = 8
# The published list has 7 test groups of 25 in each of 101 classes. Here are few classes: with as few groups, the
# backdrop that a group shares would make the test set's uncertainty wide.
UCF101_TEST_GROUPS, UCF101_TRAIN_GROUPS = 20, 15
# Cameras of a subject in pairs: a session, in one place, in which every activity is performed once and filmed by both.
SESSIONS = (("stereo", "cam01"), *((f"cam{n:02d}", f"webcam{n - 1:02d}") for n in range(2, 13)))
TRAIN_SUBJECTS, TEST_SUBJECTS = range(3, 47), range(47, 55)
# First numbers of the seeds, so that no two streams of a data set are the same.
TAKE, CAMERA, SCENE, VIEW, LENGTH, FULLNESS, NAMES = range(7)


@dataclass(frozen=True)
class Planned:
    """One clip: where it goes and the seeds that it is made from."""

    path: str
    label: int
    split: str  # train, test, or unused
    group: str  # film, gNN of a class, subject
    frames: int
    fullness: float
    take: tuple[int, ...]
    camera: tuple[int, ...]
    scene: tuple[int, ...]
    view: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """A whole data set: its clips in archive order, annotation files by path, and the format of the videos."""

    clips: list[Planned]
    annotations: dict[str, bytes]
    form: Format


def plan(source: str, generate: Generate) -> Plan:
    """The plan of a data set (`source` names its layout)."""
    return _PLANS[source](generate)


def _clip(
    generate: Generate,
    path: str,
    label: int,
    split: str,
    group: str,
    key: tuple[int, ...],
    scene: tuple[int, ...],
    take: tuple[int, ...] | None = None,
    view: tuple[int, ...] | None = None,
    segments: int | None = None,
) -> Planned:
    """Plan one clip, of whole segments if asked; `key` is its own, `take` and `view` may be shared between cameras."""
    seed, take = generate.seed, take or key
    length = generate.fps * np.random.default_rng((seed, LENGTH, *take)).uniform(*generate.seconds)
    return Planned(
        path=path,
        label=label,
        split=split,
        group=group,
        frames=segments * (2 * round((length / segments - 1) / 2) + 1) if segments else max(8, round(length)),
        fullness=float(np.random.default_rng((seed, FULLNESS, *key)).uniform()),
        take=(seed, TAKE, *take),
        camera=(seed, CAMERA, *key),
        scene=(seed, SCENE, *scene),
        view=view and (seed, VIEW, *view),
    )


def _shares(total: int, parts: int) -> list[int]:
    """`total` as evenly as it goes over `parts`."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _per_class(source: str, generate: Generate, total: int) -> list[int]:
    """Videos of each class: of all as evenly as it goes, or in a stand-in of the first and the last."""
    if generate.classes is None:
        return _shares(total, CLASSES[source])
    first, *last = _shares(total, min(2, generate.classes))
    return [first, *[0] * (generate.classes - 2), *last]


def _more(word: str, number: int) -> str:
    """The name of a class; beyond the demo's own each has its number behind it."""
    return f"{word}{number}" if number else word


def _snake(action: Action) -> str:
    return "_".join(action)


def _camel(action: Action) -> str:
    return "".join(word.capitalize() for word in action)


def _hmdb51(generate: Generate) -> Plan:
    """`<class>/<film>_<class>_f_cm_np1_fr_med_<n>.avi`; one list a class: 1 train, 2 test, 0 in neither."""
    clips, annotations = [], {}
    numbers = np.random.default_rng((generate.seed, NAMES)).permutation(9000) + 1000
    films = iter(numbers.tolist())
    trains, tests = (_per_class("hmdb51", generate, total) for total in (generate.train, generate.test))
    for label, (train, test) in enumerate(zip(trains, tests, strict=True)):
        again, kind = divmod(label, len(HMDB51))
        name, lines = _more(_snake(HMDB51[kind]), again), []
        counts = (int(train + test > 0), train, test)
        for mark, (split, count) in enumerate(zip(("unused", "train", "test"), counts, strict=True)):
            # Two films at least, so that validation can be carved from train by film.
            groups = min(count, max(2, -(-count // CLIPS_PER_GROUP)))
            for group, members in enumerate(_shares(count, groups)):
                film = f"film{next(films)}"
                for member in range(members):
                    file = f"{film}_{name}_f_cm_np1_fr_med_{member}.avi"
                    key, scene = (label, mark, group, member), (label, mark, group)
                    clips.append(_clip(generate, f"{name}/{file}", kind, split, film, key, scene))
                    lines.append(f"{file} {mark} \n")
        annotations[f"testTrainMulti_7030_splits/{name}_test_split1.txt"] = "".join(sorted(lines)).encode()
    return Plan(clips, annotations, AVI)


def _ucf101(generate: Generate) -> Plan:
    """`UCF-101/<Class>/v_<Class>_gNN_cNN.avi`; groups g01 to g20 are test."""
    clips, lists, names = [], {"train": [], "test": []}, []
    videos = {split: _per_class("ucf101", generate, getattr(generate, split)) for split in ("test", "train")}
    for label in range(len(videos["train"])):
        again, kind = divmod(label, len(UCF101))
        names.append(name := _more(_camel(UCF101[kind]), again))
        per_class = {split: counts[label] for split, counts in videos.items()}
        sides = (("test", 1, UCF101_TEST_GROUPS), ("train", 1 + UCF101_TEST_GROUPS, UCF101_TRAIN_GROUPS))
        for split, first, groups in sides:
            for group, members in enumerate(_shares(per_class[split], min(groups, per_class[split])), start=first):
                for member in range(1, members + 1):
                    file = f"{name}/v_{name}_g{group:02d}_c{member:02d}.avi"
                    key, scene, place = (label, group, member), (label, group), f"{name}/g{group:02d}"
                    clips.append(_clip(generate, f"UCF-101/{file}", kind, split, place, key, scene))
                    lists[split].append(f"{file} {label + 1}" if split == "train" else file)
    index = [f"{label} {name}" for label, name in enumerate(names, start=1)]
    files = {"classInd": index, "trainlist01": lists["train"], "testlist01": lists["test"]}
    annotations = {f"ucfTrainTestlist/{name}.txt": "\r\n".join([*lines, ""]).encode() for name, lines in files.items()}
    return Plan(clips, annotations, AVI)


def _ssv2(generate: Generate) -> Plan:
    """`20bn-something-something-v2/<id>.webm`; JSON lists of {id, label, template, placeholders}."""
    clips = []
    counts = {"train": generate.train, "validation": generate.test}
    numbers = np.random.default_rng((generate.seed, NAMES)).choice(220_847, sum(counts.values()), replace=False) + 1
    ids = iter(numbers.tolist())
    lists: dict[str, list[dict]] = {}
    own = CLASSES["ssv2"]
    classes = generate.classes or own
    for part, (split, count) in enumerate(counts.items()):
        entries = []
        dealt = [label for label, videos in enumerate(_per_class("ssv2", generate, count)) for _ in range(videos)]
        for number in range(count):
            label, video = dealt[number] if generate.classes else number % own, next(ids)
            path = f"20bn-something-something-v2/{video}.webm"
            side = "train" if split == "train" else "test"
            key = (part, number)
            clips.append(_clip(generate, path, label % own, side, str(video), key, key, segments=SSV2_SEGMENTS))
            words = _more(template(label % own), label // own)
            caption = words.replace("[something]", "an object").lower()
            entries.append({"id": str(video), "label": caption, "template": words, "placeholders": ["an object"]})
        lists[split] = sorted(entries, key=lambda entry: int(entry["id"]))
    clips.sort(key=lambda clip: clip.path)
    named = (_more(template(label % own), label // own) for label in range(classes))
    labels = {name.replace("[", "").replace("]", ""): str(label) for label, name in enumerate(named)}
    files = {"labels": labels, **lists}
    return Plan(
        clips, {f"labels/{name}.json": json.dumps(data, indent=0).encode() for name, data in files.items()}, WEBM
    )


def breakfast_activity(label: int) -> str:
    """Name of a Breakfast-like class: its steps' hues in order; beyond the demo's own with letters behind."""
    again, kind = divmod(label, len(BREAKFAST_ORDERS))
    return "".join(BREAKFAST_STEPS[step].hue for step in BREAKFAST_ORDERS[kind]) + "x" * again


def _breakfast(generate: Generate) -> Plan:
    """`BreakfastII_15fps_qvga_sync/PNN/<camera>/PNN_<activity>[_ch0].avi`; subjects P47 to P54 are test."""
    clips = []
    activities = generate.classes or len(BREAKFAST_ORDERS)
    # Many subjects train, one session each as a rule; only eight test, so that a large test set takes many sessions.
    train = TRAIN_SUBJECTS[: max(4, generate.train // (2 * activities))]
    shown = range(activities) if generate.classes is None else sorted({0, activities - 1})
    # Names alone say which classes there are: of a stand-in, those of the second channel, which is not used.
    named = [label for label in range(activities) if label not in shown]
    sides = (
        ("train", train, shown, generate.train),
        ("test", TEST_SUBJECTS, shown, generate.test),
        ("unused", train, named, len(named)),
    )
    for split, subjects, labels, count in sides:
        slots = [
            (subject, session, camera, label)
            for session in range(len(SESSIONS))
            for camera in range(2)
            for subject in subjects
            for label in labels
        ]
        for subject, session, camera, label in slots[:count]:
            name, place = f"P{subject:02d}", SESSIONS[session][camera]
            channel = "" if place != "stereo" else "_ch1" if split == "unused" else "_ch0"
            path = f"BreakfastII_15fps_qvga_sync/{name}/{place}/{name}_{breakfast_activity(label)}{channel}.avi"
            key, view = (subject, session, camera, label), (subject, session, camera)
            seeds = {"take": (subject, session, label), "view": view}
            kind = label % len(BREAKFAST_ORDERS)
            clips.append(_clip(generate, path, kind, split, name, key, (subject, session), **seeds))
    clips.sort(key=lambda clip: clip.path)
    return Plan(clips, {}, AVI)


_PLANS: dict[str, Callable[[Generate], Plan]] = {
    "hmdb51": _hmdb51,
    "ucf101": _ucf101,
    "ssv2": _ssv2,
    "breakfast": _breakfast,
}
