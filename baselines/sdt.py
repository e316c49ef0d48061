"""SDT: a few channels of every scan, and in them a few states, train; the projection behind the scans gets LoRA.

- Of each block and direction: `channels` of all channels are chosen, and `states` of the states of each. What trains is
  a difference of A_log at those places, and of the chosen channels' columns in the rows of x_proj that give B and C,
  all of them. All start at zero. LoRA of rank 8 on out_proj, as published beside it.
- Published, the choice comes from a warm-up: all of A_log trains for some 500 steps, and the channels (then the states)
  that it moved most, squared, are taken. That wants a training run before the training run, for each data set and seed,
  which nothing here provides. So the same measure is taken of the training that there was: how far *pre-training* moved
  A_log from where Mamba starts it, log(1) ... log(16) (`choose: pretraining`). A deviation, and the choice then does
  not know the data set. `choose: slowest` takes the channels, and their states, that forget most slowly.
- The choice is a function of the frozen A_log, made anew from it, so it needs no storing and cannot go stale.
- Setting other states to zero (an option of the published code, off in its runs) and LoRA's dropout are left out.

Galim et al., Parameter-Efficient Fine-Tuning of State Space Models, ICML 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from baselines.lora import Factors
from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import Direction, MixerWeights
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

DIRECTIONS = ("scan", "scan_b")


class Chosen(NamedTuple):
    """Places of A in one direction."""

    channels: Tensor  # (c,)
    states: Tensor  # (c, s): of each of those channels


class SparseDimensionTuning(TuningMethod):
    """SDT behind the interface of every method."""

    name = "sdt"
    title = "SDT"
    source = "ICML 2025; furiosa-ai/ssm-peft"
    test_configs: ClassVar = [
        {"channels": 0.05, "lora_rank": 2},
        {"channels": 0.2, "states": 0.3, "lora_rank": 0, "choose": "slowest"},
    ]
    identity_at_start = True
    mergeable = True

    class Options(Strict):
        """One channel in a hundred, one state in twenty, published for Mamba-130M (there: 99 % and 95 % frozen)."""

        channels: float = Field(default=0.01, gt=0, le=1, description="Share of channels that train, at least one.")
        states: float = Field(default=0.05, gt=0, le=1, description="Share of their states, at least one.")
        choose: Literal["pretraining", "slowest"] = Field(
            default="pretraining",
            description="Where pre-training moved A_log most (published: where a warm-up did), or the slowest decay.",
        )
        lora_rank: NonNegativeInt = Field(default=8, description="Rank of LoRA on out_proj; 0: none.")
        lora_scale: float = Field(default=1.0, gt=0, description="What LoRA's matrix is multiplied by.")

    def attach(self, model: VideoMamba) -> None:
        """Register the differences of A (c, s) and of x_proj's columns (2N, c), and LoRA's factors."""
        blocks = []
        for block in model.layers:
            inner, states = block.mixer.A_log.shape
            c, s = self._counts(inner, states)
            new = nn.ModuleDict(
                {
                    key: nn.ParameterDict({"A": torch.zeros(c, s), "x_proj": torch.zeros(2 * states, c)})
                    for key in DIRECTIONS
                }
            )
            if self.options.lora_rank:
                new["out_proj"] = Factors(inner, inner // 2, self.options.lora_rank)
            blocks.append(new)
        model.sdt = nn.ModuleList(blocks)

    def _counts(self, inner: int, states: int) -> tuple[int, int]:
        return max(1, round(self.options.channels * inner)), max(1, round(self.options.states * states))

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """The decay of the last block's forward scan."""
        reason = "only the class token, row 0, is read after the last block; a forward scan has decayed nothing by then"
        return {f"sdt.{len(model.layers) - 1}.scan.A": reason}

    def expected_parameters(self, model: VideoMamba) -> int:
        """States, and columns of B and C, of the channels in both directions; LoRA."""
        dim, states = model.cls_token.shape[-1], 16
        c, s = self._counts(2 * dim, states)
        return len(model.layers) * (2 * (c * s + 2 * states * c) + self.options.lora_rank * 3 * dim)

    def sweep_space(self) -> dict[str, Range]:
        """How channels and states are chosen."""
        return {"choose": Range(choices=["pretraining", "slowest"])}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """The differences of a block."""
        return Sparse(current.model.sdt[index], self)

    @torch.no_grad()
    def chosen(self, way: Direction) -> Chosen:
        """The places of one direction, most important first; equals in their order."""
        A_log = torch.log(-way.A)  # (E, N)
        channels, states = self._counts(*A_log.shape)
        if self.options.choose == "slowest":
            importance, of_channels = way.A, way.A.sum(1)  # A is negative
        else:
            start = torch.log(torch.arange(1, A_log.shape[1] + 1, device=A_log.device, dtype=torch.float32))
            importance = (A_log - start.to(A_log.dtype)).square()
            of_channels = importance.sum(1)
        rows = of_channels.argsort(descending=True, stable=True)[:channels]
        return Chosen(rows, importance[rows].argsort(dim=1, descending=True, stable=True)[:, :states])


class Sparse(MixerTuning):
    """Weights of one block with the differences at their places."""

    def __init__(self, learned: nn.ModuleDict, method: SparseDimensionTuning) -> None:
        self.learned, self.method = learned, method

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """A, x_proj and out_proj."""
        ways = tuple(
            self._direction(way, self.learned[key]) for way, key in zip(weights.directions, DIRECTIONS, strict=True)
        )
        out_proj = weights.out_proj
        if "out_proj" in self.learned:
            out_proj = out_proj + self.method.options.lora_scale * self.learned["out_proj"]()
        return weights._replace(out_proj=out_proj, directions=ways)

    def _direction(self, way: Direction, learned: nn.ParameterDict) -> Direction:
        channels, states = self.method.chosen(way)
        of_A = torch.zeros_like(way.A).index_put((channels[:, None], states), learned["A"].to(way.A.dtype))
        columns = torch.zeros_like(way.x_proj[-len(learned["x_proj"]) :])
        columns = columns.index_copy(1, channels, learned["x_proj"].to(columns.dtype))
        low, rows = way.x_proj.split([len(way.x_proj) - len(columns), len(columns)])
        return way._replace(A=way.A * torch.exp(of_A), x_proj=torch.cat([low, rows + columns]))
