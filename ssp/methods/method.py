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
| `attach` | once, when the model is built | the model | all |
| `after_loading` | when the frozen weights are those to tune | the model | additional scan, DoRA |
| `layout` | once a pass, first | `TokenLayout`: rows to add, and where | SSP, VPT, VFPT, STOP |
| `video` | once a pass, before the patch embedding | video (B, 3, T, H, W) | STOP's pixel prompts |
| `tokens` | once a pass; added rows are zero | tokens (B, L, D) | STOP, input prompts |
| `before_block` | before each block | `Streams` | SSP, SVP |
| `summed` | in each block, between sum and norm | the sum (B, L, D) | VPT, VFPT, ST-Adapter |
| `normed` | in each block, between norm and mixer | rows (B, L, D) | SSP, where prompts join the mixer's input |
| `mixer_tuning` | in each block | gives a `MixerTuning`, with: | |
| `.weights` | once a block | `MixerWeights` | LoRA, DoRA, BitFit, partial tuning, additional scan |
| `.streams` | per direction, before conv1d | x, z (B, E, L), longer at their start if need be | affix tuning |
| `.scan_inputs` | per direction, before the scan | `ScanInputs`, longer likewise | initial state, B or C by input |
| `.offset` | per direction, after the scan | `ScanInputs`; gives what to add, (B, E, L) | state offset |
| `after_block` | after each block | `Streams` | AdaptFormer, output offsets |

- `hidden` is the last mixer's *branch output* (before block 0: the embedding), `residual` the running sum without it.
  A block computes residual + drop_path(hidden), norm, mixer. So what is added to `hidden` passes drop path with the
  branch, what is added to `residual` does not. Both streams have the same rows, always. Before block 0 `residual` is
  None; after a block `hidden` is what the mixer gave and `residual` the sum that its norm was given.
- A method whose effect can be written as other weights of the mixer uses `MixerTuning.weights`: then the frozen mixer's
  hand-written backward stays, and what it costs is the method's cost, not that of another implementation. Where that is
  all, `mergeable = True` makes `merge` work. What needs a layer's input (dropout on a bottleneck) is wrapped in
  `attach` with forward hooks, which leave published names alone; the mixer calls hooked layers as modules.
- Weight decay spares one-dimensional parameters and biases; `attach` sets `no_weight_decay = True` on others. A method
  trains some of its parameters more slowly by `learning_rate_scale`.
- A method that reads several frames or rows takes them from the layout, never from numbers of its own, so that it
  works at any clip length and image size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError
from torch import Tensor

from ssp.backbone.layout import Streams, TokenLayout, is_readout
from ssp.config import Range, Strict
from ssp.config.problems import problems
from ssp.errors import ConfigError

if TYPE_CHECKING:
    from ssp.backbone.mixer import MixerTuning
    from ssp.backbone.videomamba import Pass, VideoMamba


class TuningMethod:
    """Base of all tuning methods: trains head and final norm, changes nothing else."""

    name: ClassVar[str] = ""  # as registered
    title: ClassVar[str] = ""  # as in tables
    source: ClassVar[str] = ""  # paper and public code
    # The next two are properties where the options decide.
    identity_at_start: bool = False  # before training, logits are those of the frozen backbone and head
    explainable: bool = False  # whether `explain` can draw what it attends to
    mergeable: ClassVar[bool] = False  # whether `merge` can fold all that was learned into the backbone's weights
    no_more_than_linear: ClassVar[str] = ""  # why it cannot learn what the linear probe cannot, where that is so
    Options: ClassVar[type[Strict]] = Strict  # the method's options with their defaults
    test_configs: ClassVar[list[dict[str, Any]]] = [{}]  # small options of each variant, for the contract tests

    def __init__(self, options: dict[str, Any] | None = None, *, where: str | None = None) -> None:
        """Check the options, which stand at `where` in a config; ConfigError, one line, for an unknown or wrong one."""
        try:
            self.options = self.Options.model_validate(options or {})
        except ValidationError as error:
            raise ConfigError(
                problems(error, self.Options, (where or f"methods.{self.name}.options",), noun="option")
            ) from None

    # What trains, and how it is searched.

    def attach(self, model: VideoMamba) -> None:
        """Register new modules and parameters on the model (after its own initialisation), or hook its layers."""

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """Names of all parameters that train: everything attached, the head and the final norm."""
        return [name for name, _ in model.named_parameters() if name in model.added or is_readout(name)]

    def learning_rate_scale(self, model: VideoMamba, name: str) -> float:
        """The share of the learning rate that a trainable parameter is trained at."""
        return 1.0

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """Trainable parameters whose gradient is exactly zero by construction, with the reason."""
        return {}

    def expected_parameters(self, model: VideoMamba) -> int:
        """How many parameters `attach` adds, by formula; the contract tests hold it to the model."""
        return 0

    def merge(self, model: VideoMamba) -> None:
        """Fold what was learned into the backbone's own weights, so that inference costs nothing more.

        Logits stay; what `attach` added is gone, and the model is a linear probe from then on.

        Raises:
            ConfigError: the method is not `mergeable`.
        """
        if not self.mergeable:
            raise ConfigError(f"{self.name}: what it learns cannot be folded into the backbone's weights")
        from ssp.methods.merging import fold  # the backbone is not imported where methods are only named

        fold(model)

    def sweep_space(self) -> dict[str, Range]:
        """The method's own search space, over names of its options, beside the shared one."""
        return {}

    # Extension points; see the table above.

    def after_loading(self, model: VideoMamba) -> None:
        """Start from the frozen weights: when the model is built, and when a bare backbone was loaded. Draws nothing.

        `attach` runs before pre-trained weights are there, so what copies or measures them does it here.
        """

    def video(self, current: Pass, video: Tensor) -> Tensor:
        """Change the video before the patch embedding; (B, 3, T, H, W)."""
        return video

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Add rows to the bare backbone's layout."""
        return layout

    def tokens(self, current: Pass, tokens: Tensor) -> Tensor:
        """Change the tokens after embedding; (B, L, D), added rows are zero."""
        return tokens

    def before_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Change the streams before block `index`."""
        return streams

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Change the sum of block `index`, (B, L, D) in float32 or better, before it is normalised and carried on.

        Drop path is over by then, so what happens here is never dropped.
        """
        return total

    def normed(self, current: Pass, index: int, rows: Tensor) -> Tensor:
        """Change what the mixer of block `index` gets, (B, L, D) after the norm; no stream carries it on."""
        return rows

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning | None:
        """What acts inside the mixer of block `index`, if anything."""
        return None

    def after_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Change the streams after block `index`."""
        return streams
