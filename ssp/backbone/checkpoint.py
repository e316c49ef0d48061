"""Weights in and out: published checkpoints as they are, and small files of what was tuned.

- A checkpoint either fits the model after the adaptations below or is an error that lists the keys. Nothing is loaded
  from one that does not fit, and loading never changes what trains.
- Adaptations, each said in the log: a wrapping `model` or `module` and prefixes come off; a 2-D patch embedding (image
  model) is inflated to the tubelet, its middle frame gets it; position embeddings are interpolated (bicubic in space,
  linear in time, corners not aligned: the published fine-tuning code); a head for other classes is dropped.
- What may be missing: the head; the temporal embedding of an image model (stays zero); a method's own keys (all of
  them). A masked pre-training checkpoint has a decoder, dropped by name, and its own norm in place of the final one:
  the final norm then starts at one, as in the published fine-tuning.
- Pickles are read with `weights_only`; one that names any code is refused.
- Tuned weights are safetensors with a description of the model in the metadata; they go on top of the same backbone.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssp.errors import CheckpointError
from ssp.files import atomic_path
from ssp.tuning import is_head, is_readout

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

WRAPPERS = ("model", "module")
PREFIXES = ("module.", "backbone.", "encoder.")
DECODER = ("clip_decoder.", "clip_pos_embed")  # of masked pre-training
DECODER_NORM = "norm.weight"
PATCH, SPACE, TIME, HEAD = (
    "patch_embed.proj.weight",
    "pos_embed",
    "temporal_pos_embedding",
    ("head.weight", "head.bias"),
)
DESCRIPTION = "ssp"  # metadata key of tuned weights
SHOWN = 12  # keys of each kind in an error message
log = logging.getLogger("ssp.checkpoint")


def load_weights(model: VideoMamba, source: str | Path | Mapping[str, Any]) -> None:
    """Load a backbone, with or without the attached method's own weights, into `model`.

    Args:
        model: from `build_model`; what trains stays as it is, dtype and device too.
        source: path of a .safetensors file or of a PyTorch checkpoint, or a state dict (tensors or numpy arrays) under
            published names.

    Raises:
        CheckpointError: one line: the file is missing, damaged, no checkpoint or would run code; or its keys do not
            fit, and which.
    """
    if isinstance(source, str | Path):
        origin, content = str(source), read_checkpoint(source)
    else:
        origin, content = "state dict", source
    state = _adapted(_flat(content, origin), model, origin)
    expected = dict(model.named_parameters())
    optional = {name for name in expected if is_head(name)} if not any(is_head(name) for name in state) else set()
    if not model.added & state.keys():
        optional |= model.added
    problems = {
        "missing": [name for name in expected if name not in state and name not in optional],
        "unexpected": [name for name in state if name not in expected],
        "misshapen": [
            f"{name} {_shape(tensor)} instead of {_shape(expected[name])}"
            for name, tensor in state.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{origin}: does not fit this model: {found}")
    with torch.no_grad():
        for name, tensor in state.items():
            expected[name].copy_(tensor)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """The content of a .safetensors file or a PyTorch checkpoint, on the CPU; runs no code from it.

    Raises:
        CheckpointError: one line that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a .pth or .safetensors checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training scripts save their arguments beside the weights; a Namespace holds values and does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise CheckpointError(
                f"{path}: refused, because reading it would run code ({code[1]}); only files of tensors are loaded"
            ) from None
        raise CheckpointError(f"{path}: {_DAMAGED}") from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        log.debug("%s: %s", path, error)
        raise CheckpointError(f"{path}: {_DAMAGED}") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__} instead of a state dict")
    return content


_DAMAGED = "not a readable checkpoint (damaged, cut off, or another kind of file); fetch it again"


def _flat(content: Mapping[str, Any], origin: str) -> dict[str, Tensor]:
    """Name -> tensor, without wrapping and prefixes."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value))
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{origin}: '{key}' is a {type(value).__name__}, not a tensor; give a state dict")
        name = key
        while (prefix := next((p for p in PREFIXES if name.startswith(p)), None)) is not None:
            name = name.removeprefix(prefix)
        if name in state:
            raise CheckpointError(f"{origin}: '{name}' is there twice, under different prefixes")
        state[name] = value
    if not state:
        raise CheckpointError(f"{origin}: holds no tensors")
    return state


def _adapted(state: dict[str, Tensor], model: VideoMamba, origin: str) -> dict[str, Tensor]:
    """The state with the documented differences between published checkpoints and this model removed."""
    state = dict(state)
    parameters = dict(model.named_parameters())

    decoder = [name for name in state if name.startswith(DECODER)]
    if decoder:
        for name in decoder:
            del state[name]
        log.info("%s: masked pre-training; dropped its decoder (%d tensors)", origin, len(decoder))
        if DECODER_NORM in state and "norm_f.weight" not in state:
            del state[DECODER_NORM]
            state["norm_f.weight"] = torch.ones_like(parameters["norm_f.weight"])
            log.info("%s: its norm belongs to the decoder; the final norm starts at one", origin)

    patch = state.get(PATCH)
    if patch is not None and patch.dim() == 4:
        inflated = patch.new_zeros(*patch.shape[:2], parameters[PATCH].shape[2], *patch.shape[2:])
        inflated[:, :, inflated.shape[2] // 2] = patch
        state[PATCH] = inflated
        log.info("%s: image model; patch embedding inflated", origin)
        if TIME not in state:
            state[TIME] = torch.zeros_like(parameters[TIME])
            log.info("%s: image model; the temporal embedding stays zero", origin)

    dim = parameters[SPACE].shape[-1]
    space, grid = state.get(SPACE), model.bare_layout.grid
    if space is not None and _rows_differ(space, parameters[SPACE], dim):
        side = math.isqrt(space.shape[1] - 1)
        if side and side * side == space.shape[1] - 1:
            state[SPACE] = _to_grid(space, side, grid)
            log.info("%s: position embedding interpolated from %dx%d to %dx%d", origin, side, side, *grid)

    time = state.get(TIME)
    if time is not None and _rows_differ(time, parameters[TIME], dim):
        state[TIME] = _to_length(time, model.bare_layout.frames)
        log.info("%s: temporal embedding interpolated from %d frames", origin, time.shape[1])

    weight, bias = (state.get(name) for name in HEAD)
    if weight is not None and bias is not None and weight.dim() == 2 and weight.shape[1] == dim:
        classes = weight.shape[0]
        if bias.shape == (classes,) and classes != len(parameters[HEAD[1]]):
            state = {name: tensor for name, tensor in state.items() if name not in HEAD}
            log.info("%s: head for %d classes left out", origin, classes)
    return state


def _rows_differ(found: Tensor, wanted: Tensor, dim: int) -> bool:
    """Whether an embedding (1, rows, dim) differs from the wanted one in its number of rows alone."""
    return found.dim() == 3 and found.shape[0] == 1 and found.shape[2] == dim and found.shape[1] != wanted.shape[1]


def _to_grid(embedding: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """(1, 1 + side * side, D) to (1, 1 + rows * columns, D); the class token's place is kept."""
    places = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    places = _interpolated(places, grid, "bicubic")
    return torch.cat([embedding[:, :1].to(places.dtype), places.flatten(2).transpose(1, 2)], dim=1)


def _to_length(embedding: Tensor, frames: int) -> Tensor:
    """(1, T, D) to (1, frames, D)."""
    return _interpolated(embedding.transpose(1, 2), (frames,), "linear").transpose(1, 2)


def _interpolated(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(x, size=size, mode=mode, align_corners=False)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# Tuned weights.


def describe(model: VideoMamba) -> dict[str, Any]:
    """What a backbone must be for tuned weights to fit it, and with which method; JSON-able."""
    height, width = model.img_size
    return {
        "method": model.method.name,
        "options": model.method.options.model_dump(mode="json"),
        "embed_dim": model.cls_token.shape[-1],
        "depth": len(model.layers),
        "patch_size": model.patch_embed.proj.kernel_size[-1],
        "num_classes": model.head.out_features,
        "num_frames": model.bare_layout.frames,
        "img_size": [height, width],
    }


def tuned_state(model: VideoMamba) -> dict[str, Tensor]:
    """Everything that trains, head and final norm included, by name; on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or is_readout(name)
    }


def save_tuned(model: VideoMamba, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write what was tuned as safetensors; `metadata` (text) goes beside a description of the model."""
    if DESCRIPTION in metadata:
        raise ValueError(f"metadata key '{DESCRIPTION}' is taken by the description of the model")
    with atomic_path(path) as temporary:
        described = {**metadata, DESCRIPTION: json.dumps(describe(model), sort_keys=True)}
        save_file(tuned_state(model), temporary, metadata=described)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of tuned weights; `json.loads` of key "ssp" gives what `describe` gave.

    Raises:
        CheckpointError: the file is missing, damaged, or has no such description.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of tuned weights")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError):
        raise CheckpointError(f"{path}: {_DAMAGED}") from None
    if DESCRIPTION not in metadata:
        raise CheckpointError(f"{path}: no tuned weights of this software (metadata key '{DESCRIPTION}' is missing)")
    return metadata


def load_tuned(model: VideoMamba, path: str | Path) -> dict[str, str]:
    """Put tuned weights on a backbone and return their metadata; the backbone itself is not in the file.

    Raises:
        CheckpointError: they belong to another method, other options or another size, or keys do not match; nothing
            is loaded then.
    """
    metadata = read_metadata(path)
    theirs, ours = json.loads(metadata[DESCRIPTION]), describe(model)
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise CheckpointError(f"{path}: was tuned with {key} {theirs.get(key)!r}, this model has {value!r}")
    state, expected = load_file(path), tuned_state(model)
    wrong = sorted(
        name
        for name in state.keys() | expected.keys()
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    )
    if wrong:
        raise CheckpointError(f"{path}: does not fit this model in: {_listed(wrong)}")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)
    return metadata
