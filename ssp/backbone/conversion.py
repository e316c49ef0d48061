"""How published checkpoints differ from the model they are loaded into, and what is done about each difference.

- A wrapping `model` or `module` and prefixes come off.
- A masked pre-training checkpoint has a decoder, dropped by name, and a norm that belongs to it: the final norm then
  starts at one, as in the published fine-tuning from such a checkpoint.
- A 2-D patch embedding (image model) is inflated to the tubelet: its middle frame gets it, the others are zero. An
  image model has no temporal embedding; it stays zero, as in the published video training from image weights.
- Position embeddings are interpolated to another image size (bicubic) and another number of frames (linear), corners
  not aligned, as in the published fine-tuning.
- A head for another number of classes is dropped.

Each is said in the log. Everything else is for `ssp.backbone.checkpoint` to refuse.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssp.errors import CheckpointError

WRAPPERS = ("model", "module")
PREFIXES = ("module.", "backbone.", "encoder.")
DECODER = ("clip_decoder.", "clip_pos_embed")  # of masked pre-training
DECODER_NORM, FINAL_NORM = "norm.weight", "norm_f.weight"
PATCH, SPACE, TIME = "patch_embed.proj.weight", "pos_embed", "temporal_pos_embedding"
HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
log = logging.getLogger("ssp.checkpoint")

State = dict[str, Tensor]


def unwrapped(content: Mapping[str, Any]) -> State:
    """Published name -> tensor, without wrapping and prefixes.

    Raises:
        CheckpointError: something in it is no tensor of real numbers, or two names become one.
    """
    content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    state: State = {}
    for key, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"'{key}' ({type(value).__name__}) is no tensor of real numbers; give a state dict")
        name = key
        while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
            name = name.removeprefix(prefix)
        if name in state:
            raise CheckpointError(f"'{name}' is there twice, under different prefixes")
        state[name] = value
    if not state:
        raise CheckpointError("holds no weights")
    return state


def converted(state: State, model: State, grid: tuple[int, int]) -> State:
    """The state without the documented differences to `model` (name -> parameter), whose frames have `grid` patches."""
    state = dict(state)
    _drop_decoder(state, model)
    _inflate_image_model(state, model)
    _resize_embeddings(state, model, grid)
    _drop_other_head(state, model)
    return state


def _drop_decoder(state: State, model: State) -> None:
    decoder = [name for name in state if name.startswith(DECODER)]
    for name in decoder:
        del state[name]
    if decoder:
        log.info("masked pre-training: dropped its decoder (%d tensors)", len(decoder))
    if decoder and DECODER_NORM in state and FINAL_NORM not in state:
        del state[DECODER_NORM]
        state[FINAL_NORM] = torch.ones_like(model[FINAL_NORM])
        log.info("masked pre-training: its norm belongs to the decoder; the final norm starts at one")


def _inflate_image_model(state: State, model: State) -> None:
    patch = state.get(PATCH)
    if patch is None or patch.dim() != 4:
        return
    inflated = patch.new_zeros(*patch.shape[:2], model[PATCH].shape[2], *patch.shape[2:])
    inflated[:, :, inflated.shape[2] // 2] = patch
    state[PATCH] = inflated
    log.info("image model: patch embedding inflated")
    if TIME not in state:
        state[TIME] = torch.zeros_like(model[TIME])
        log.info("image model: the temporal embedding stays zero")


def _resize_embeddings(state: State, model: State, grid: tuple[int, int]) -> None:
    if _other_length(state, model, SPACE):
        embedding = state[SPACE]  # (1, 1 + side * side, D); the class token's place is kept
        side = math.isqrt(embedding.shape[1] - 1)
        if side * side == embedding.shape[1] - 1 > 0:
            places = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))
            places = _interpolated(places, grid, "bicubic").flatten(2).transpose(1, 2)
            state[SPACE] = torch.cat([embedding[:, :1].to(places.dtype), places], dim=1)
            log.info("position embedding interpolated from %dx%d to %dx%d patches", side, side, *grid)
    if _other_length(state, model, TIME) and state[TIME].shape[1] > 0:
        embedding, frames = state[TIME], model[TIME].shape[1]
        state[TIME] = _interpolated(embedding.transpose(1, 2), (frames,), "linear").transpose(1, 2)
        log.info("temporal embedding interpolated from %d to %d frames", embedding.shape[1], frames)


def _drop_other_head(state: State, model: State) -> None:
    weight, bias = state.get(HEAD_WEIGHT), state.get(HEAD_BIAS)
    if weight is None or bias is None or weight.dim() != 2 or bias.shape != weight.shape[:1]:
        return
    if len(weight) != len(model[HEAD_WEIGHT]) and weight.shape[1] == model[HEAD_WEIGHT].shape[1]:
        del state[HEAD_WEIGHT], state[HEAD_BIAS]
        log.info("head for %d classes left out", len(weight))


def _other_length(state: State, model: State, name: str) -> bool:
    """Whether an embedding (1, rows, D) is there and differs from the model's in its number of rows alone."""
    if name not in state or state[name].dim() != 3:
        return False
    (one, rows, dim), wanted = state[name].shape, model[name].shape
    return (one, dim) == (wanted[0], wanted[2]) and rows != wanted[1]


def _interpolated(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(x, size=size, mode=mode, align_corners=False)
