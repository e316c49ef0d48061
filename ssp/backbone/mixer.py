"""Bidirectional Mamba mixer of VideoMamba, with the published parameter names.

- in_proj gives (x, z); each direction has its own causal conv1d + SiLU, x_proj, dt_proj, A and D, and its own gated
  selective scan; the two are summed (not halved) and go through out_proj. (Zhu et al., 2024; Li et al., 2024.)
- "Backward" is the same thing on the reversed sequence: its convolution looks at future tokens and its scan runs from
  the last token. Nothing is flipped in memory where the layers are plain.
- Channel-last throughout, as the linear layers want it; convolutions and scans read transposed views of it.
- Two routes, same numbers. `mixer_function.py` has a backward written by hand: less time, a fraction of the memory. It
  runs where the mixer's own weights are frozen (or nothing asks for gradients) and all that a method does is to put
  others in their place. Else autograd goes through the layers one by one.
- A tuning method enters through `MixerTuning`, or wraps layers; wrapped layers are called as modules.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssp.backbone import mixer_function
from ssp.backbone.kept import Kept
from ssp.backbone.mixer_function import Direction, MixerWeights
from ssp.backbone.mixer_layers import conv_silu, linear
from ssp.scan import ScanArgs, both

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


class MixerTuning:
    """What a tuning method does inside a mixer; as it stands, nothing.

    `direction` is "forward" or "backward"; tokens are always in the order of the sequence, also for "backward".
    """

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """Replace weights by functions of them and of what the method learns; more states (N) are welcome.

        A layer that is wrapped is called instead, and its weights here say nothing.
        """
        return weights

    def streams(self, direction: str, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Replace (x, z), each (B, E, L), between in_proj and conv1d.

        They may come back longer, with columns where this direction's scan starts (before the first token of "forward",
        after the last of "backward"; `in_front`): the mixer discards their outputs, since the directions are summed.
        """
        return x, z

    def scan_inputs(self, direction: str, inputs: ScanInputs) -> ScanInputs:
        """Replace the inputs of the scan; they may come back longer, like (x, z)."""
        return inputs

    def offset(self, direction: str, inputs: ScanInputs) -> Tensor | None:
        """What is added to the gated output of the scan, (B, E, L), if anything."""
        return None

    @property
    def changes_weights_only(self) -> bool:
        """Whether all that it does is in `weights`, so that the backward written by hand applies."""
        kind = type(self)
        return all(getattr(kind, hook) is getattr(MixerTuning, hook) for hook in ("streams", "scan_inputs", "offset"))


def in_front(stream: Tensor, columns: Tensor, direction: str) -> Tensor:
    """A stream (B, X, L) with columns (X, k), the scan's first one first, where the scan of a direction starts.

    In the stream's dtype, channel-last storage; the mixer discards the outputs of these columns.
    """
    rows, own = stream.transpose(1, 2), columns.t().to(stream.dtype)
    if direction == "backward":
        return torch.cat([rows, own.flip(0).expand(len(rows), -1, -1)], dim=1).transpose(1, 2)
    return torch.cat([own.expand(len(rows), -1, -1), rows], dim=1).transpose(1, 2)


class Mixer(nn.Module):
    """Mixer of one block: (B, L, dim) to (B, L, dim). E = expand * dim channels, N = d_state states."""

    def __init__(
        self, dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, dt_rank: int | None = None
    ) -> None:
        """Standard Mamba initialisation; `dt_rank` defaults to ceil(dim / 16)."""
        super().__init__()
        inner = expand * dim
        self._kept = Kept()
        self.d_state, self.d_conv, self.dt_rank = d_state, d_conv, dt_rank or math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        states = torch.log(torch.arange(1, d_state + 1, dtype=torch.float32))
        for end, log_name in (("", "A_log"), ("_b", "A_b_log")):
            self.add_module(f"conv1d{end}", nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1))
            self.add_module(f"x_proj{end}", nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False))
            self.add_module(f"dt_proj{end}", _dt_proj(self.dt_rank, inner))
            self.register_parameter(log_name, nn.Parameter(states.repeat(inner, 1)))
            self.register_parameter(f"D{end}", nn.Parameter(torch.ones(inner)))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, hidden: Tensor, tuning: MixerTuning | None = None) -> Tensor:
        """Mix tokens: hidden (B, L, dim), normalised, to the branch output (B, L, dim)."""
        tuning = tuning or MixerTuning()
        weights = tuning.weights(self.weights())
        if tuning.changes_weights_only and self._is_frozen():
            return self._run_by_hand(hidden, weights)
        xz = _project(self.in_proj, hidden, weights.in_proj, weights.in_proj_bias)
        x, z = (half.transpose(1, 2) for half in xz.chunk(2, dim=-1))
        inputs = [
            self._scan_inputs(direction, x, z, way, tuning)
            for direction, way in zip(DIRECTIONS, weights.directions, strict=True)
        ]
        first, second = inputs
        found = both(ScanArgs(**vars(first), reverse=False), ScanArgs(**vars(second), reverse=True))
        outputs = []
        for direction, given, y in zip(DIRECTIONS, inputs, found, strict=True):
            offset = tuning.offset(direction, given)
            y = y if offset is None else y + offset
            added = y.shape[-1] - x.shape[-1]
            outputs.append(y.narrow(-1, 0 if direction == "backward" else added, x.shape[-1]) if added else y)
        total = (outputs[0] + outputs[1]).transpose(1, 2)
        return _project(self.out_proj, total, weights.out_proj, weights.out_proj_bias)

    def weights(self) -> MixerWeights:
        """The weights of all layers, A, in float32 or better, included; views and functions of the parameters."""
        ways = [
            Direction(
                conv_weight=getattr(conv, "weight", None),
                conv_bias=getattr(conv, "bias", None),
                x_proj=getattr(x_proj, "weight", None),
                x_proj_bias=getattr(x_proj, "bias", None),
                dt_proj=getattr(dt_proj, "weight", None),
                dt_bias=getattr(dt_proj, "bias", None),
                A=self._kept.get(f"{reverse} A", A_log, _negative_exp),
                D=D,
                reverse=reverse,
            )
            for conv, x_proj, dt_proj, A_log, D, reverse in (
                (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, False),
                (self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, True),
            )
        ]
        return MixerWeights(
            in_proj=getattr(self.in_proj, "weight", None),
            in_proj_bias=getattr(self.in_proj, "bias", None),
            out_proj=getattr(self.out_proj, "weight", None),
            out_proj_bias=getattr(self.out_proj, "bias", None),
            directions=(ways[0], ways[1]),
        )

    @torch.no_grad()
    def set_weights(self, weights: MixerWeights) -> None:
        """Make these the mixer's own, the inverse of `weights`: shapes are those that it has, but biases may be new."""

        def put(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
            layer.weight.copy_(weight)
            if bias is not None and layer.bias is None:
                layer.bias = nn.Parameter(bias.to(layer.weight.dtype, copy=True), requires_grad=False)
            elif bias is not None:
                layer.bias.copy_(bias)

        put(self.in_proj, weights.in_proj, weights.in_proj_bias)
        put(self.out_proj, weights.out_proj, weights.out_proj_bias)
        for way, end, A_log in zip(weights.directions, ("", "_b"), (self.A_log, self.A_b_log), strict=True):
            put(self.get_submodule(f"conv1d{end}"), way.conv_weight, way.conv_bias)
            put(self.get_submodule(f"x_proj{end}"), way.x_proj, way.x_proj_bias)
            put(self.get_submodule(f"dt_proj{end}"), way.dt_proj, way.dt_bias)
            A_log.copy_(torch.log(-way.A))
            self.get_parameter(f"D{end}").copy_(way.D)

    def _is_frozen(self) -> bool:
        """Whether the mixer's own weights get no gradient, and say all about what its layers compute."""
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            return False
        linears = (self.in_proj, self.x_proj, self.x_proj_b, self.dt_proj, self.dt_proj_b, self.out_proj)
        return all(_is_plain(layer, nn.Linear) for layer in linears) and all(
            _is_plain(layer, nn.Conv1d) for layer in (self.conv1d, self.conv1d_b)
        )

    def _run_by_hand(self, hidden: Tensor, weights: MixerWeights) -> Tensor:
        """The hand-written route, under autocast in its dtype."""
        device = hidden.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)  # which knows no meta device
        dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        return mixer_function.run(hidden.to(dtype), weights.to(dtype, self._kept))

    def _scan_inputs(self, direction: str, x: Tensor, z: Tensor, way: Direction, tuning: MixerTuning) -> ScanInputs:
        """From (x, z), each (B, E, L), to what one direction's scan gets."""
        end = "_b" if way.reverse else ""
        conv1d, x_proj, dt_proj = (self.get_submodule(f"{name}{end}") for name in ("conv1d", "x_proj", "dt_proj"))
        x, z = tuning.streams(direction, x, z)
        u = _convolve(conv1d, x, way)
        projected = _project(x_proj, u.transpose(1, 2), way.x_proj, way.x_proj_bias)
        states = (projected.shape[-1] - self.dt_rank) // 2
        low_rank, B, C = projected.split([self.dt_rank, states, states], dim=-1)
        plain = _is_plain(dt_proj, nn.Linear)  # the bias of one is left to the scan; a wrapped layer is called whole
        delta = linear(low_rank, way.dt_proj) if plain else dt_proj(low_rank)
        inputs = ScanInputs(
            u=u,
            delta=delta.transpose(1, 2),
            A=way.A,
            B=B.transpose(1, 2),
            C=C.transpose(1, 2),
            D=way.D,
            z=z,
            delta_bias=way.dt_bias if plain else None,
        )
        return tuning.scan_inputs(direction, inputs)


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


def _negative_exp(log: Tensor) -> Tensor:
    """A of its logarithm, in float32 or better."""
    return -torch.exp(log.to(torch.promote_types(log.dtype, torch.float32)))


def _is_plain(layer: nn.Module, kind: type) -> bool:
    """Whether a layer is exactly the PyTorch one, so that its weights say all about what it computes."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is kind and not any(hooks)


def _project(layer: nn.Module, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """What a plain linear layer does with these weights; any other layer is called."""
    if not _is_plain(layer, nn.Linear):
        return layer(x)
    return linear(x, weight) if bias is None else linear(x, weight) + bias


def _convolve(conv: nn.Module, x: Tensor, way: Direction) -> Tensor:
    """SiLU of the causal convolution of x (B, E, L), which looks ahead if the scan does; a wrapped layer is called."""
    if _is_plain(conv, nn.Conv1d):
        return conv_silu(x, way.conv_weight, way.conv_bias, way.reverse)
    seen, tokens = x.flip(-1) if way.reverse else x, x.shape[-1]
    out = F.silu(conv(seen)[..., :tokens])
    return out.flip(-1) if way.reverse else out
