"""Chunked scan: vectorised PyTorch, the fast fallback where no kernel of its own fits (any device, float32, float64).

- The sequence is cut into about sqrt(L) chunks of about sqrt(L) tokens. All chunks step together, first from zero
  states; a second, short recurrence over chunks gives their true first states, because the decay over a whole chunk
  has a closed form: exp(A * sum of d). Then all chunks step together once more. 3 sqrt(L) steps instead of L.
- The backward runs the adjoint in the same way, from the kept first states of the chunks; linear in L.
- Channels go through in blocks, so that the L x channels x N states that a block needs stay bounded (and, on a CPU,
  near the cache).
- Padding to whole chunks has step size 0: decay 1, input 0, so it changes no state.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssp.scan.interface import Grads, ScanArgs, flip_grads, flip_tokens, in_arithmetic_dtype
from ssp.scan.reference import finish, step_sizes

# states in flight per block (B * L * channels * N): within the last-level cache of a CPU, enough work for a GPU
BLOCK_STATES = {"cpu": 2**20, "cuda": 2**26}


def unavailable() -> str | None:
    """It works wherever PyTorch does."""
    return None


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """It takes everything."""
    return None


def prepare(args: ScanArgs) -> ScanArgs:
    """All tensors in float32, or all in float64."""
    return in_arithmetic_dtype(args)


def _cut(x: Tensor, length: int, chunks: int) -> Tensor:
    """(B, rows, L) to (length, B, chunks, rows), zero-padded: the tokens that step together lie together."""
    x = F.pad(x, (0, length * chunks - x.shape[-1]))
    return x.unflatten(-1, (chunks, length)).permute(3, 0, 2, 1).contiguous()


def _join(x: Tensor, tokens: int) -> Tensor:
    """Inverse of `_cut`: (length, B, chunks, rows) to (B, rows, L)."""
    return x.permute(1, 3, 2, 0).flatten(2)[..., :tokens]


def _blocks(args: ScanArgs) -> list[slice]:
    batch, channels, tokens = args.u.shape
    budget = BLOCK_STATES.get(args.u.device.type, 2**26)
    width = max(1, min(channels, budget // (batch * tokens * args.A.shape[1])))
    width = math.ceil(channels / math.ceil(channels / width))  # blocks of nearly one size
    return [slice(first, min(first + width, channels)) for first in range(0, channels, width)]


def _chunking(tokens: int) -> tuple[int, int]:
    length = math.isqrt(tokens - 1) + 1
    return length, math.ceil(tokens / length)


def _carry(decay: Tensor, ends: Tensor, backwards: bool = False) -> Tensor:
    """True states that enter each chunk, from each chunk's decay and its own outcome, all (B, chunks, D, N)."""
    entering = torch.zeros_like(ends)
    chunks = ends.shape[1]
    order = range(chunks - 2, -1, -1) if backwards else range(1, chunks)
    for now in order:
        before = now + 1 if backwards else now - 1
        torch.addcmul(ends[:, before], decay[:, before], entering[:, before], out=entering[:, now])
    return entering


def _decays(d: Tensor, A: Tensor) -> Tensor:
    """By what states are multiplied: (length, B, chunks, D, N)."""
    return (d[..., None] * A).exp_()


def _states(h: Tensor, decay: Tensor, du: Tensor, B: Tensor) -> Tensor:
    """All chunks from the states h (B, chunks, D, N) that enter them: these, and those after each token."""
    states = h.new_empty(len(decay) + 1, *h.shape)
    states[0] = h
    for now, after, decayed, given, to in zip(states, states[1:], decay, du[..., None], B[..., None, :], strict=False):
        torch.mul(now, decayed, out=after).addcmul_(given, to)
    return states


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Y (B, D, L), and the state that enters each chunk (B, chunks, D, N) if `keep`."""
    if args.reverse:
        y, kept = forward(flip_tokens(args), keep)
        return y.flip(-1), kept
    tokens = args.u.shape[-1]
    length, chunks = _chunking(tokens)
    steps, _ = step_sizes(args)
    d_all, du_all = _cut(steps, length, chunks), _cut(steps * args.u, length, chunks)
    B, C = _cut(args.B, length, chunks), _cut(args.C, length, chunks)
    s, kept = torch.empty_like(d_all), []
    for block in _blocks(args):
        A, d, du = args.A[block], d_all[..., block], du_all[..., block]
        h, decay = d.new_zeros(*d.shape[1:], A.shape[1]), _decays(d, A)
        if chunks > 1:
            for decayed, given, to in zip(decay, du[..., None], B[..., None, :], strict=True):
                h.mul_(decayed).addcmul_(given, to)
        h = _carry(torch.exp(d.sum(0)[..., None] * A), h)
        if keep:
            kept.append(h)
        s[..., block] = torch.matmul(_states(h, decay, du, B)[1:], C[..., None])[..., 0]
    y = _join(s, tokens)
    if args.D is not None:
        y = y + args.D[:, None] * args.u
    if args.z is not None:
        y = y * F.silu(args.z)
    return y.contiguous(), torch.cat(kept, dim=2) if keep else None


def backward(grad_y: Tensor, args: ScanArgs, kept: Tensor, needs: Grads) -> Grads:
    """All gradients (those of A, D and bias are cheap beside the recurrence)."""
    if args.reverse:
        return flip_grads(backward(grad_y.flip(-1), flip_tokens(args), kept, needs))
    tokens = args.u.shape[-1]
    length, chunks = _chunking(tokens)
    steps, slope = step_sizes(args)
    grad_s = grad_y if args.z is None else grad_y * F.silu(args.z)
    u_all, d_all, gs_all = (_cut(x, length, chunks) for x in (args.u, steps, grad_s))
    B, C = _cut(args.B, length, chunks), _cut(args.C, length, chunks)
    s, grad_u, grad_d = (torch.empty_like(d_all) for _ in range(3))
    grad_B, grad_C, grad_A = torch.zeros_like(B), torch.zeros_like(C), torch.empty_like(args.A)
    for block in _blocks(args):
        A, d, u, gs = args.A[block], d_all[..., block], u_all[..., block], gs_all[..., block]
        du = d * u
        decay = _decays(d, A)
        states = _states(kept[:, :, block], decay, du, B)
        grad_C += torch.matmul(gs[..., None, :], states[1:])[..., 0, :]
        s[..., block] = torch.matmul(states[1:], C[..., None])[..., 0]
        out, g = torch.zeros_like(states[0]), torch.empty_like(decay)
        last_first = [*zip(gs[..., None], C[..., None, :], decay, g, strict=True)][::-1]
        for given, to, decayed, _ in last_first if chunks > 1 else ():
            out.addcmul_(given, to).mul_(decayed)
        out = _carry(torch.exp(d.sum(0)[..., None] * A), out, backwards=True)
        for given, to, decayed, here in last_first:
            torch.mul(torch.addcmul(out, given, to, out=here), decayed, out=out)
        grad_B += torch.matmul(du[..., None, :], g)[..., 0, :]
        from_input = torch.matmul(g, B[..., None])[..., 0]
        through = states[:-1].mul_(decay).mul_(g)  # gradient of d_t A, per state
        grad_u[..., block] = from_input * d
        grad_d[..., block] = from_input * u + (through * A).sum(-1)
        grad_A[block] = torch.einsum("tbcdn,tbcd->dn", through, d)
    parts = [_join(x, tokens) for x in (s, grad_u, grad_d)]
    grad_B, grad_C = _join(grad_B, tokens), _join(grad_C, tokens)
    return finish(grad_y, grad_s, parts[0], parts[1], parts[2] * slope, grad_A, grad_B, grad_C, args)
