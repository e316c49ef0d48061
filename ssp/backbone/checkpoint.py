"""Weights in and out: published checkpoints as they are, and small files of what was tuned.

- A checkpoint either fits the model, after the conversions of `ssp.backbone.conversion`, or is an error that lists the
  keys. Nothing is loaded from one that does not fit, and loading never changes what trains.
- What may be missing: the head, and a method's own keys (all of them: a bare backbone).
- Pickles are read with `weights_only`; one that names any code is refused.
- Tuned weights are safetensors with a description of the model in the metadata; they go on top of the same backbone.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ssp.backbone.conversion import converted, unwrapped
from ssp.backbone.layout import is_head, is_readout
from ssp.errors import CheckpointError
from ssp.files import atomic_path, file_sha256

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

DESCRIPTION = "ssp"  # metadata key of tuned weights
SHOWN = 12  # keys of each kind in an error message
DAMAGED = "not a readable checkpoint (damaged, cut off, or another kind of file); fetch it again"
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
    is_path = isinstance(source, str | Path)
    origin = str(source) if is_path else "state dict"
    log.info("%s: loading", origin)
    content = read_checkpoint(source) if is_path else source
    expected = dict(model.named_parameters())
    try:
        state = converted(unwrapped(content), expected, model.bare_layout.grid)
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from None
    optional = set()
    if not any(is_head(name) for name in state):
        optional |= {name for name in expected if is_head(name)}
        log.info("%s: no head for these classes; tuning brings its own", origin)
    is_bare = not model.added & state.keys()
    if is_bare:
        optional |= model.added
    problem = _difference(state, expected, optional)
    if problem:
        raise CheckpointError(f"{origin}: does not fit this model: {problem}")
    _copy(state, model)
    if is_bare:
        model.method.after_loading(model)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """The content of a .safetensors file or a PyTorch checkpoint, on the CPU; runs no code from it.

    Raises:
        CheckpointError: one line that names the file.
    """
    path = _existing(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training scripts save their arguments beside the weights; a Namespace holds values and does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; an error follows where it matters
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever garbage makes a reader raise: the answer is the same
        log.debug("%s: %r", path, error)
        raise CheckpointError(f"{path}: {_why_unreadable(path, error)}") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def checkpoint_hash(path: str | Path) -> str:
    """16 hex digits that tell a checkpoint file from any other (SHA-256 of its bytes).

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    try:
        return file_sha256(_existing(path))[:16]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); mend that and run again") from None


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a .pth or .safetensors checkpoint")
    return Path(path)


def _why_unreadable(path: Path, error: Exception) -> str:
    if not isinstance(error, pickle.UnpicklingError):
        return DAMAGED
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code is None and path.read_bytes()[:1] != pickle.PROTO:
        return DAMAGED
    return f"refused, reading it would run code ({code[1] if code else 'a pickle'}); only tensors are loaded"


# Tuned weights.


def describe(model: VideoMamba) -> dict[str, Any]:
    """What a backbone must be for tuned weights to fit it, and with which method; JSON-able."""
    return {
        "method": model.method.name,
        "options": model.method.options.model_dump(mode="json"),
        "embed_dim": model.cls_token.shape[-1],
        "depth": len(model.layers),
        "patch_size": model.patch_embed.proj.kernel_size[-1],
        "num_classes": model.head.out_features,
        "num_frames": model.bare_layout.frames,
        "img_size": list(model.img_size),
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
    described = {**metadata, DESCRIPTION: json.dumps(describe(model), sort_keys=True)}
    write_safetensors(tuned_state(model), path, described)


def write_safetensors(state: dict[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file atomically: same tensors and metadata, same bytes (the library shuffles metadata)."""
    content = save(state, metadata=dict(metadata))
    start = 8 + int.from_bytes(content[:8], "little")  # 8 bytes of length, JSON header, tensors
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    with atomic_path(path) as temporary:
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


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
        raise CheckpointError(f"{path}: {DAMAGED}") from None
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
    theirs |= theirs.pop("options")  # the first difference is named, so the method's comes before its options'
    ours |= ours.pop("options")
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise CheckpointError(f"{path}: was tuned with {key} {theirs.get(key)!r}, this model has {value!r}")
    state = load_file(path)
    problem = _difference(state, tuned_state(model), optional=set())
    if problem:
        raise CheckpointError(f"{path}: does not fit this model: {problem}")
    _copy(state, model)
    return metadata


def save_whole(model: VideoMamba, path: str | Path) -> None:
    """Write all of a model's parameters as safetensors; what to build around them is for the caller to keep."""
    state = {name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()}
    write_safetensors(state, path, {"format": "pt"})


def load_whole(model: VideoMamba, path: str | Path) -> None:
    """Put all parameters, as `save_whole` wrote them, into a model built in the same way.

    Layers get the biases that folding a method into the backbone has left in the file and the model was built without.

    Raises:
        CheckpointError: the file is missing or damaged, or keys do not match; nothing is loaded then.
    """
    state, layers = read_checkpoint(path), dict(model.named_modules())
    for name in state.keys() - dict(model.named_parameters()).keys():
        owner, _, last = name.rpartition(".")
        if last == "bias" and getattr(layers.get(owner), "bias", model) is None:
            layers[owner].bias = torch.nn.Parameter(torch.empty_like(state[name]), requires_grad=False)
    if problem := _difference(state, dict(model.named_parameters()), optional=set()):
        raise CheckpointError(f"{path}: does not fit this model: {problem}")
    _copy(state, model)


def _difference(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], optional: set[str]) -> str:
    """What keeps the state from fitting, naming the keys; empty if it fits."""
    problems = {
        "missing": [name for name in expected if name not in state and name not in optional],
        "unexpected": [name for name in state if name not in expected],
        "misshapen": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in state.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    return "; ".join(f"{kind} {_listed(names)}" for kind, names in problems.items() if names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _copy(state: Mapping[str, Tensor], model: VideoMamba) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            parameters[name].copy_(tensor)
