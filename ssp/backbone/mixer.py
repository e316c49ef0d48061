"""Bidirectional Mamba mixer of VideoMamba, with the published parameter names.

- in_proj gives (x, z); each direction has its own causal conv1d + SiLU, x_proj, dt_proj, A and D, and its own gated
  selective scan; the two are summed (not halved) and go through out_proj. (Zhu et al., 2024; Li et al., 2024.)
- "Backward" is the same thing on the reversed sequence: its convolution looks at future tokens and its scan runs from
  the last token. Nothing is flipped in memory where the layers are plain.
- Channel-last throughout, as the linear layers want it; convolutions and scans read transposed views of it.
- Where no weight can get a gradient (frozen backbone, evaluation) and no method interferes, the hand-written path of
  `mixer_frozen.py` runs by itself; same numbers, less time, a fraction of the memory.
- A tuning method enters through two hooks (`Tuning`), or wraps layers; wrapped layers are called as modules.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssp.backbone import mixer_frozen
from ssp.backbone.mixer_layers import conv_silu, linear
from ssp.scan import selective_scan

DIRECTIONS = ("forward", "backward")
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # initial step sizes of Mamba


@dataclass
class ScanInputs:
    """What one direction's scan gets; a method may replace any of it, more states (N) included."""

    u: Tensor  # (B, E, L) after conv1d and SiLU
    delta: Tensor  # (B, E, L) before bias and softplus
    A: Tensor  # (E, N), negative
    B: Tensor  # (B, N, L)
    C: Tensor  # (B, N, L)
    D: Tensor | None  # (E,)
    z: Tensor | None  # (B, E, L) gate before SiLU
    delta_bias: Tensor | None  # (E,)


class Tuning(Protocol):
    """What a tuning method may do inside a mixer. Either method may be missing.

    `direction` is "forward" or "backward"; tokens are always in the order of the sequence, also for "backward".
    """

    def streams(self, direction: str, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Replace (x, z), each (B, E, L), between in_proj and conv1d. L must stay (the directions are summed)."""

    def scan_inputs(self, direction: str, inputs: ScanInputs) -> ScanInputs:
        """Replace the inputs of the scan."""


class Mixer(nn.Module):
    """Mixer of one block: (B, L, dim) to (B, L, dim). E = expand * dim channels, N = d_state states."""

    def __init__(
        self, dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, dt_rank: int | None = None
    ) -> None:
        """Standard Mamba initialisation; `dt_rank` defaults to ceil(dim / 16)."""
        super().__init__()
        inner = expand * dim
        self.d_state, self.d_conv, self.dt_rank = d_state, d_conv, dt_rank or math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        for end, log_name in (("", "A_log"), ("_b", "A_b_log")):
            self.add_module(f"conv1d{end}", nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1))
            self.add_module(f"x_proj{end}", nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False))
            self.add_module(f"dt_proj{end}", _dt_proj(self.dt_rank, inner))
            states = torch.arange(1, d_state + 1, dtype=torch.float32)
            self.register_parameter(log_name, nn.Parameter(torch.log(states).repeat(inner, 1)))
            self.register_parameter(f"D{end}", nn.Parameter(torch.ones(inner)))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, hidden: Tensor, tuning: Tuning | None = None) -> Tensor:
        """Mix tokens: hidden (B, L, dim), normalised, to the branch output (B, L, dim)."""
        if tuning is None and self._is_frozen():
            return self._run_frozen(hidden)
        x, z = (half.transpose(1, 2) for half in _project(self.in_proj, hidden).chunk(2, dim=-1))
        forward, backward = (self._direction(direction, x, z, tuning) for direction in DIRECTIONS)
        return _project(self.out_proj, (forward + backward).transpose(1, 2))

    def _is_frozen(self) -> bool:
        """Whether only the input can ask for a gradient, and the weights say all about what the layers compute."""
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            return False
        products = (self.in_proj, self.x_proj, self.x_proj_b, self.out_proj)
        return (
            all(_is_product(layer) for layer in products)
            and all(_is_plain(layer, nn.Linear) for layer in (self.dt_proj, self.dt_proj_b))
            and all(_is_plain(layer, nn.Conv1d) for layer in (self.conv1d, self.conv1d_b))
        )

    def _run_frozen(self, hidden: Tensor) -> Tensor:
        """Run the hand-written path, under autocast in its dtype."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        exact = _at_least_float32(dtype)
        ways = [
            mixer_frozen.Direction(
                conv.weight.to(dtype),
                None if conv.bias is None else conv.bias.to(dtype),
                x_proj.weight.to(dtype),
                dt_proj.weight.to(dtype),
                None if dt_proj.bias is None else dt_proj.bias.to(exact),
                -torch.exp(A_log.to(exact)),
                D.to(exact),
                reverse,
            )
            for conv, x_proj, dt_proj, A_log, D, reverse in (
                (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, False),
                (self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, True),
            )
        ]
        layers = (self.in_proj.weight.to(dtype), self.out_proj.weight.to(dtype))
        return mixer_frozen.run(hidden.to(dtype), mixer_frozen.Weights(*layers, tuple(ways)))

    def _direction(self, direction: str, x: Tensor, z: Tensor, tuning: Tuning | None) -> Tensor:
        """Gated scan of one direction, (B, E, L)."""
        reverse = direction == "backward"
        end = "_b" if reverse else ""
        if hasattr(tuning, "streams"):
            x, z = tuning.streams(direction, x, z)
        u = _convolve(self.get_submodule(f"conv1d{end}"), x, reverse)
        dt_proj = self.get_submodule(f"dt_proj{end}")
        low_rank, B, C = _project(self.get_submodule(f"x_proj{end}"), u.transpose(1, 2)).split(
            [self.dt_rank, self.d_state, self.d_state], dim=-1
        )
        inputs = ScanInputs(
            u=u,
            delta=_without_bias(dt_proj, low_rank).transpose(1, 2),
            A=-torch.exp((self.A_b_log if reverse else self.A_log).to(_at_least_float32(u.dtype))),
            B=B.transpose(1, 2),
            C=C.transpose(1, 2),
            D=self.D_b if reverse else self.D,
            z=z,
            delta_bias=dt_proj.bias if _is_plain(dt_proj, nn.Linear) else None,
        )
        if hasattr(tuning, "scan_inputs"):
            inputs = tuning.scan_inputs(direction, inputs)
        return selective_scan(**vars(inputs), delta_softplus=True, reverse=reverse)


def _dt_proj(rank: int, inner: int) -> nn.Linear:
    """Linear whose bias makes the initial step sizes log-uniform in [DT_MIN, DT_MAX] after softplus."""
    layer = nn.Linear(rank, inner)
    if layer.weight.is_meta:  # shapes alone, for counting; the arithmetic would take most of the time
        return layer
    nn.init.uniform_(layer.weight, -(rank**-0.5), rank**-0.5)
    dt = torch.exp(torch.rand(inner) * math.log(DT_MAX / DT_MIN) + math.log(DT_MIN)).clamp(min=DT_FLOOR)
    with torch.no_grad():
        layer.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
    return layer


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _is_plain(layer: nn.Module, kind: type) -> bool:
    """Whether a layer is exactly the PyTorch one, so that its weights say all about what it computes."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is kind and not any(hooks)


def _is_product(layer: nn.Module) -> bool:
    """Whether a layer is a plain linear one without a bias."""
    return _is_plain(layer, nn.Linear) and layer.bias is None


def _project(layer: nn.Module, x: Tensor) -> Tensor:
    """Multiply with a plain linear layer's weight; any other layer, one with a bias included, is called."""
    return linear(x, layer.weight) if _is_product(layer) else layer(x)


def _without_bias(dt_proj: nn.Module, low_rank: Tensor) -> Tensor:
    """Step sizes before bias; a wrapped layer is called whole, and the scan then gets no bias."""
    return linear(low_rank, dt_proj.weight) if _is_plain(dt_proj, nn.Linear) else dt_proj(low_rank)


def _convolve(conv: nn.Module, x: Tensor, reverse: bool) -> Tensor:
    """SiLU of the causal convolution of x (B, E, L), which looks ahead if `reverse`; a wrapped layer is called."""
    if _is_plain(conv, nn.Conv1d):
        return conv_silu(x, conv.weight, conv.bias, reverse)
    seen, tokens = x.flip(-1) if reverse else x, x.shape[-1]
    out = F.silu(conv(seen)[..., :tokens])
    return out.flip(-1) if reverse else out
