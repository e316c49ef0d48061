"""What State Space Prompting attends to in a clip: prompts per patch, gate, and attention over frames.

- The quantities are those of one forward pass, shown by `StateSpacePrompting.observer`. Only the attention weights are
  asked for a second time, from the same module with the same input: the fast attention of the pass does not give them.
- Strength is relative: the norm of F over the norm of the branch output that it is added to, per patch. So layers whose
  branches differ in size can be averaged.
- The gate acts through one scalar per block (`scales`): the summary of frame t is multiplied by 1 + scale * gate[t].
  Where the scales are small the gate says little, whatever it looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssp.backbone.videomamba import VideoMamba
from ssp.errors import ConfigError
from ssp.methods.prompting import Observation, StateSpacePrompting


@dataclass(frozen=True)
class Explanation:
    """What SSP did with one clip of T frames, in a model of L blocks with P prompts; float32.

    Gate and attention have no row for block 0: row i is block i + 1.
    """

    strength: np.ndarray  # (L, T, rows, columns): |F| / |branch output| per patch; 0 = no prompt
    gate: np.ndarray  # (L - 1, T): weight of each frame, summing to 1 over T
    scales: np.ndarray  # (L - 1,): what the gate is multiplied by
    attention: np.ndarray  # (L - 1, P, T, T): what frame i (row) takes from frame j (column); mean over heads
    logits: np.ndarray  # (classes,): of the same forward pass

    @property
    def mean_strength(self) -> np.ndarray:
        """Over layers, (T, rows, columns)."""
        return self.strength.mean(axis=0)

    @property
    def mean_gate(self) -> np.ndarray:
        """Over layers, (T,); sums to 1."""
        return self.gate.mean(axis=0)

    @property
    def mean_attention(self) -> np.ndarray:
        """Over layers and prompts, (T, T); rows sum to 1."""
        return self.attention.mean(axis=(0, 1))


def check_explainable(method: object) -> None:
    """Refuse methods that are not SSP, and SSP without one of its parts.

    Raises:
        ConfigError: another method, named, or which parts there have to be.
    """
    if not isinstance(method, StateSpacePrompting):
        name = getattr(method, "name", method)
        raise ConfigError(f"only SSP's prompts, gate and attention can be explained, not method '{name}'; take ssp")
    if not method.explainable:
        raise ConfigError("only SSP with gathering, spreading and gate can be explained; take a row that has them all")


@torch.no_grad()
def explain_clip(model: VideoMamba, clip: Tensor) -> Explanation:
    """Classify one clip and keep what SSP did; the model is left as it was.

    Args:
        model: tuned with SSP, two blocks or more.
        clip: (3, T, H, W), normalised, as the model takes it; on any device.

    Raises:
        ConfigError: the model's method is not SSP, or SSP without one of its parts.
    """
    check_explainable(model.method)
    grid = model.bare_layout.grid
    strength, gate, attention = [], [], []

    def observe(seen: Observation) -> None:
        sizes = [tensor[0].float().norm(dim=-1) for tensor in (seen.prompt, seen.patches)]
        relative = torch.where(sizes[0] > 0, sizes[0] / sizes[1], 0)  # no prompt on an empty branch is no prompt
        strength.append(relative.unflatten(-1, grid))
        if seen.gate is not None:
            gate.append(seen.gate[0])
            over_heads = [spread.weights(seen.summary)[0].mean(dim=0) for spread in model.prompt_attentions]
            attention.append(torch.stack(over_heads))

    with _observed(model, observe):
        logits = model(clip[None].to(model.cls_token.device))[0]
    return Explanation(
        *map(_numpy, (torch.stack(strength), torch.stack(gate), torch.cat(list(model.dynamic_scales)))),
        _numpy(torch.stack(attention)),
        _numpy(logits),
    )


@contextmanager
def _observed(model: VideoMamba, observer: Callable[[Observation], None]) -> Iterator[None]:
    """Evaluation mode with an observer; afterwards as before."""
    training = model.training
    model.eval()
    model.method.observer = observer
    try:
        yield
    finally:
        model.method.observer = None
        model.train(training)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
