"""The one interface between a frozen backbone and what tunes it: SSP, every baseline, and full fine-tuning.

- The backbone knows nothing of methods. It calls the hooks below at its extension points; each is the identity here.
- A method is a plain object, not a module: its name, its options, and functions of the model. What it learns is
  registered on the *root* model by `attach`, so that published parameter names hold (`inner_prompt.fc1.weight`).
- Hooks are functional: they return new tensors and never write into a tensor that another module made.
- What a method carries from one hook to the next within a forward pass lives in `Pass.memory`, never in the method.
- Frozen is the default: only `trainable_parameters` train, and those of them that can get no gradient are declared
  with the reason (`without_gradient`). The contract tests hold both lists exact.

Shapes: B clips, T frames, H x W pixels, L rows (tokens) of width D. Extension points in the order in which a forward
pass meets them, and who needs them:

| hook | called | gets, and returns the same kind | who needs it |
|---|---|---|---|
| `attach` | once, when the model is built | the model | all; LoRA, SSF, BitFit reach layers here |
| `video` | once a clip, before the patch embedding | video (B, 3, T, H, W) | STOP's pixel prompts |
| `layout` | once a clip | `TokenLayout`: rows to add, and where | SSP, VPT, VFPT, STOP |
| `tokens` | once a clip; added rows are zero | tokens (B, L, D) | STOP, input prompts |
| `before_block` | before each block | `Streams` | SSP, VPT, VFPT, SVP, ST-Adapter |
| `mixer_tuning` | in each block | gives an object with one or both of: | |
| `.streams` | per direction, before conv1d | x, z (B, E, L) | affix tuning |
| `.scan_inputs` | per direction, before the scan | `ScanInputs` of the mixer | additional scan, state offset |
| `after_block` | after each block | `Streams` | AdaptFormer, output offsets |

- `hidden` is the last mixer's *branch output* (before block 0: the embedding), `residual` the running sum without it.
  A block computes residual + drop_path(hidden), norm, mixer. So what is added to `hidden` passes drop path with the
  branch, what is added to `residual` does not. Both streams have the same rows, always. Before block 0 `residual` is
  None; after a block `hidden` is what the mixer gave and `residual` the sum that its norm was given.
- The layers inside a mixer (in_proj, x_proj, dt_proj, conv1d, out_proj) and the norms are wrapped in `attach` with
  forward hooks, which leave published names alone; the mixer calls hooked layers as modules.
- Weight decay spares one-dimensional parameters and biases; `attach` sets `_no_weight_decay = True` on others.
- A method that reads several frames or rows takes them from the layout, never from numbers of its own, so that it
  works at any clip length and image size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from ssp.config import Range, Strict
from ssp.errors import ConfigError

if TYPE_CHECKING:
    from ssp.backbone.mixer import Tuning
    from ssp.backbone.videomamba import VideoMamba


class Streams(NamedTuple):
    """The two streams between blocks, each (B, L, D)."""

    hidden: Tensor
    residual: Tensor | None


@dataclass(frozen=True)
class TokenLayout:
    """Which row of a stream is what: before_cls, cls, after_cls, then per frame its patches and per_frame, then suffix.

    Patches are in raster order. Only the class token's row reaches the head; every other row acts through the scans.
    """

    frames: int
    grid: tuple[int, int]
    before_cls: int = 0
    after_cls: int = 0
    per_frame: int = 0
    suffix: int = 0

    @property
    def patches(self) -> int:
        """Patches of one frame."""
        return self.grid[0] * self.grid[1]

    @property
    def cls(self) -> int:
        """Row of the class token, the one that reaches the head."""
        return self.before_cls

    @property
    def frames_start(self) -> int:
        """First row of the first frame."""
        return self.before_cls + 1 + self.after_cls

    @property
    def frames_stop(self) -> int:
        """Row after the last frame."""
        return self.frames_start + self.frames * (self.patches + self.per_frame)

    @property
    def length(self) -> int:
        """All rows, L."""
        return self.frames_stop + self.suffix

    def split_frames(self, stream: Tensor) -> Tensor:
        """The rows of the frames as (B, T, patches + per_frame, D), a view of stream (B, L, D)."""
        rows = stream[:, self.frames_start : self.frames_stop]
        return rows.unflatten(1, (self.frames, self.patches + self.per_frame))

    def join_frames(self, stream: Tensor, frames: Tensor) -> Tensor:
        """A new stream with other frame rows: frames (B, T, patches + per_frame, D) in place of stream's own."""
        return torch.cat([stream[:, : self.frames_start], frames.flatten(1, 2), stream[:, self.frames_stop :]], dim=1)

    def insert(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + T * patches, D) of the bare backbone with all added rows in their places, zero."""
        batch, _, dim = tokens.shape

        def blank(*rows: int) -> Tensor:
            return tokens.new_zeros(batch, *rows, dim)

        cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, (self.frames, self.patches))
        frames = torch.cat([patches, blank(self.frames, self.per_frame)], dim=2).flatten(1, 2)
        return torch.cat([blank(self.before_cls), cls, blank(self.after_cls), frames, blank(self.suffix)], dim=1)


@dataclass
class Pass:
    """One forward pass: the model, the layout of its rows, and what the method remembers from hook to hook."""

    model: VideoMamba
    layout: TokenLayout
    memory: dict[str, Any] = field(default_factory=dict)


class TuningMethod:
    """Base of all tuning methods: trains head and final norm, changes nothing else."""

    name: ClassVar[str] = ""  # as registered
    title: ClassVar[str] = ""  # as in tables
    source: ClassVar[str] = ""  # paper and public code
    Options: ClassVar[type[Strict]] = Strict  # the method's options with their defaults
    test_config: ClassVar[dict[str, Any]] = {}  # small options that the contract tests build it with

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        """Check the options; ConfigError, one line, for an unknown or wrong one."""
        try:
            self.options = self.Options.model_validate(options or {})
        except ValidationError as error:
            raise ConfigError(self._complaint(error)) from None

    def _complaint(self, error: ValidationError) -> str:
        first = error.errors(include_url=False)[0]
        key = ".".join(["methods", self.name, "options", *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            known = ", ".join(self.Options.model_fields) or "it has none"
            return f"{key}: unknown option; known: {known}"
        given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
        return f"{key}: {first['msg'].removeprefix('Value error, ')}{given}"

    # What trains, and how it is searched.

    def attach(self, model: VideoMamba) -> None:
        """Register new modules and parameters on the model (after its own initialisation), or hook its layers."""

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """Names of all parameters that train: everything attached, the head and the final norm."""
        return [name for name, _ in model.named_parameters() if name in model.added or is_readout(name)]

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """Trainable parameters whose gradient is exactly zero by construction, with the reason."""
        return {}

    def sweep_space(self) -> dict[str, Range]:
        """The method's own search space, over names of its options, beside the shared one."""
        return {}

    # Extension points; see the table above.

    def video(self, model: VideoMamba, video: Tensor) -> Tensor:
        """Change the video before the patch embedding; (B, 3, T, H, W)."""
        return video

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Add rows to the bare backbone's layout."""
        return layout

    def tokens(self, run: Pass, tokens: Tensor) -> Tensor:
        """Change the tokens after embedding; (B, L, D), added rows are zero."""
        return tokens

    def before_block(self, run: Pass, index: int, streams: Streams) -> Streams:
        """Change the streams before block `index`."""
        return streams

    def mixer_tuning(self, run: Pass, index: int) -> Tuning | None:
        """What acts inside the mixer of block `index`, if anything."""
        return None

    def after_block(self, run: Pass, index: int, streams: Streams) -> Streams:
        """Change the streams after block `index`."""
        return streams


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the classification head."""
    return name.startswith("head.")


def is_readout(name: str) -> bool:
    """Whether a parameter belongs to the head or the final norm, which train in every method."""
    return is_head(name) or name.startswith("norm_f.")
