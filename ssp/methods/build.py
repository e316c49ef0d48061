"""From names to a model: a backbone with a tuning method attached, and frozen what the method does not train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ssp.backbone.videomamba import VideoMamba
from ssp.config import Architecture
from ssp.config.problems import problems
from ssp.errors import ConfigError
from ssp.methods.registry import load_method

BACKBONES = {
    "videomamba_tiny": Architecture(embed_dim=192, depth=24),
    "videomamba_small": Architecture(embed_dim=384, depth=24),
    "videomamba_middle": Architecture(embed_dim=576, depth=32),
}


def build_model(
    backbone: str | Mapping[str, int] | Architecture,
    method: str,
    num_classes: int,
    *,
    num_frames: int = 8,
    img_size: int | tuple[int, int] = 224,
    drop_path: float = 0.0,
    method_options: dict[str, Any] | None = None,
) -> VideoMamba:
    """Build a backbone with a tuning method attached; what the method does not train has requires_grad False.

    Args:
        backbone: "videomamba_tiny", "videomamba_small", "videomamba_middle", or embed_dim, depth and patch_size
            (default 16) of another size. State 16, convolution 4, expansion 2, dt_rank ceil(embed_dim / 16).
        method: a registered name (`ssp.methods.registry.method_names()`).
        num_classes: outputs of the head.
        num_frames: frames of a clip, T.
        img_size: side, or (height, width), in pixels; a margin narrower than a patch is left out.
        drop_path: rate of the last block and before the final norm; active in train() mode only.
        method_options: options of the method; the rest have their defaults.

    Raises:
        ConfigError: an unknown backbone, method or option, or a wrong value; one line.
    """
    architecture = _architecture(backbone)
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if min(height, width) < architecture.patch_size:
        raise ConfigError(f"img_size {height}x{width} is smaller than a patch of {architecture.patch_size} pixels")
    for name, value in {"num_classes": num_classes, "num_frames": num_frames}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    if not 0 <= drop_path <= 1:
        raise ConfigError(f"drop_path must be between 0 and 1, not {drop_path}")
    model = VideoMamba(
        load_method(method)(method_options),
        **architecture.model_dump(),
        num_classes=num_classes,
        num_frames=num_frames,
        img_size=(height, width),
        drop_path=drop_path,
    )
    trainable = set(model.method.trainable_parameters(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
    model.method.after_loading(model)
    return model


def _architecture(backbone: str | Mapping[str, int] | Architecture) -> Architecture:
    if isinstance(backbone, Architecture):
        return backbone
    if isinstance(backbone, str):
        if backbone not in BACKBONES:
            raise ConfigError(f"unknown backbone '{backbone}'; known: {', '.join(BACKBONES)}")
        return BACKBONES[backbone]
    try:
        return Architecture.model_validate(dict(backbone))
    except ValidationError as error:
        raise ConfigError(f"backbone: {problems(error, Architecture)}") from None
