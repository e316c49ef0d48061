"""The kernels of the convolution with SiLU. Importing this module imports Triton.

A program has TOKENS neighbouring tokens of WIDTH channels of a clip, in the order of the scan: i = 0 to L-1, and a
reverse convolution walks through memory backwards. Tokens that several taps see are read again, from the first cache
level; the gradient before SiLU of a token that its TAPS - 1 predecessors need is computed anew by each of them, which
costs arithmetic where there is plenty, and no memory.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _place(reverse, L, E, TOKENS: tl.constexpr, WIDTH: tl.constexpr):
    """A program's clip, tokens (in the order of the scan) and channels, and which of these are there."""
    i = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    e = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    return tl.program_id(2).to(tl.int64), i, e, e < E


@triton.jit
def _at(i, reverse, L, token):
    """Where token i of the scan lies, as a column of distances."""
    return (tl.where(reverse != 0, L - 1 - i, i).to(tl.int64) * token)[:, None]


@triton.jit
def _rows(x, i, e, me, reverse, L, token):
    """Tokens i of a clip, in float32; 0 where there are none."""
    there = ((i >= 0) & (i < L))[:, None] & me[None, :]
    return tl.load(x + _at(i, reverse, L, token) + e[None, :], mask=there, other=0.0).to(tl.float32)


@triton.jit
def _tap(weight, k, e, me, TAPS: tl.constexpr):
    return tl.load(weight + e * TAPS + k, mask=me, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _convolve(x, weight, bias, i, e, me, reverse, L, token, TAPS: tl.constexpr):
    """Convolution at tokens i, before SiLU."""
    found = tl.zeros((i.shape[0], e.shape[0]), tl.float32)
    if bias is not None:
        found += tl.load(bias + e, mask=me, other=0.0).to(tl.float32)[None, :]
    for k in tl.static_range(TAPS):
        found += _tap(weight, k, e, me, TAPS) * _rows(x, i - (TAPS - 1) + k, e, me, reverse, L, token)
    return found


@triton.jit(do_not_specialize=["L", "reverse"])
def conv_silu(
    x, weight, bias, y,
    L, E, x_clip, x_token, y_clip, y_token, reverse,
    TAPS: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """SiLU of the convolution of x, to y."""
    clip, i, e, me = _place(reverse, L, E, TOKENS, WIDTH)
    value = _convolve(x + clip * x_clip, weight, bias, i, e, me, reverse, L, x_token, TAPS)
    value = value / (tl.exp2(value * -LOG2E) + 1.0)
    at = y + clip * y_clip + _at(i, reverse, L, y_token) + e[None, :]
    tl.store(at, value.to(y.dtype.element_ty), mask=(i < L)[:, None] & me[None, :])


@triton.jit(do_not_specialize=["L", "reverse"])
def conv_silu_backward(
    grad_y, x, weight, bias, grad_x, parts,
    L, E, grad_clip, grad_token, x_clip, x_token, out_clip, out_token, reverse,
    ADD: tl.constexpr, TAPS: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradient of x, written or added to grad_x; and sums over a program's tokens for weight and bias, to `parts`.

    `parts` is (B, programs, TAPS + 1, E), the bias behind the last tap. What is None is not computed.
    """
    clip, i, e, me = _place(reverse, L, E, TOKENS, WIDTH)
    x += clip * x_clip
    grad_y += clip * grad_clip
    reached = tl.zeros((TOKENS, WIDTH), tl.float32)
    for k in tl.static_range(TAPS):
        value = _convolve(x, weight, bias, i + k, e, me, reverse, L, x_token, TAPS)
        opening = 1.0 / (tl.exp2(value * -LOG2E) + 1.0)
        grad = _rows(grad_y, i + k, e, me, reverse, L, grad_token) * opening * (value * (1.0 - opening) + 1.0)
        reached += _tap(weight, TAPS - 1 - k, e, me, TAPS) * grad
        if k == 0 and parts is not None:
            program = clip * tl.num_programs(1) + tl.program_id(1)
            at = parts + program * (TAPS + 1) * E + e
            for m in tl.static_range(TAPS):
                seen = _rows(x, i - (TAPS - 1) + m, e, me, reverse, L, x_token)
                tl.store(at + m * E, tl.sum(grad * seen, axis=0), mask=me)
            tl.store(at + TAPS * E, tl.sum(grad, axis=0), mask=me)
    if grad_x is not None:
        at = grad_x + clip * out_clip + _at(i, reverse, L, out_token) + e[None, :]
        there = (i < L)[:, None] & me[None, :]
        if ADD:
            reached += tl.load(at, mask=there, other=0.0).to(tl.float32)
        tl.store(at, reached.to(grad_x.dtype.element_ty), mask=there)
