"""The kernels of the Triton scan: pack, forward, backward. Importing this module imports Triton.

- A program is one warp: WIDTH neighbouring channels of one clip in one direction, all of its tokens in sequence, states
  in registers. Programs share nothing, so results do not depend on how they are scheduled.
- A thread has a channel with all of its states. Elementwise work is then done once, and sums over states need no other
  thread. It comes of what Triton is not told (`do_not_specialize`): if it knew that `wide` and the like are multiples
  of 4, a thread would read four neighbouring channels at once, with a part of their states.
- States come in tiles (first, size) of 32, 16, 8 or 4, as Triton wants powers of two: PADDED in all, so 22 states cost
  24 and not 32. Padding has A = B = C = 0: its states stay 0.
- Tokens are numbered in the order of the scan, i = 0 to L-1; a reverse scan walks through memory backwards.
- Tokens by channels lie dense, (B, L, E); z may be a part of something wider. Inputs are pairs of tensors, one of each
  scan, with what they have in common as to strides.
- tl.exp2 is one instruction, hence A2 = A * log2(e). `tensor * constexpr` in this order, for the interpreter.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _softplus(x):
    """log(1 + e^x) and its slope, to float32's last digits for x of any size and sign.

    max(x, 0) + log1p(q) with q = e^-|x|, and log1p(q) = 2 artanh(s) with s = q / (2 + q) at most 1/3: a polynomial in
    s^2 (at Chebyshev nodes, 4e-9), where log2(1 + q) would lose the digits of small steps.
    """
    q = tl.exp2(tl.abs(x) * -LOG2E)
    s = q / (q + 2.0)
    t = s * s
    series = 1.0 + t * (0.33333161 + t * (0.20012298 + t * (0.13982579 + t * 0.1407889)))
    return tl.maximum(x, 0.0) + s * series * 2.0, tl.where(x > 0.0, 1.0, q) / (q + 1.0)


@triton.jit
def _steps(raw, b, SOFTPLUS: tl.constexpr):
    """One token's step sizes from its delta, and their slope in delta."""
    d = raw.to(tl.float32)
    slope = tl.full(d.shape, 1.0, tl.float32)
    if b is not None:
        d += b
    if SOFTPLUS:
        d, slope = _softplus(d)
    return d, slope


@triton.jit
def _of(pair, way):
    """The tensor of this program's scan."""
    pointer = pair[0]
    if way == 1:
        pointer = pair[1]
    return pointer


@triton.jit
def _weight(pair, way, e, me):
    """Channels `e` of D, or of the bias; None where there is none."""
    found = None
    if pair is not None:
        found = tl.load(_of(pair, way) + e, mask=me, other=0.0).to(tl.float32)
    return found


@triton.jit
def _load_tiles(pointer, row, TILES: tl.constexpr):
    """Tiles (size, WIDTH) of a matrix of states by channels, whose rows are `row` apart."""
    found = ()
    for j in tl.static_range(len(TILES)):
        n = TILES[j][0] + tl.arange(0, TILES[j][1])
        found = found + (tl.load(pointer + n[:, None] * row),)
    return found


@triton.jit
def _store_tiles(pointer, row, tiles, TILES: tl.constexpr):
    for j in tl.static_range(len(TILES)):
        n = TILES[j][0] + tl.arange(0, TILES[j][1])
        tl.store(pointer + n[:, None] * row, tiles[j])


@triton.jit
def _zeros(TILES: tl.constexpr, WIDTH: tl.constexpr):
    found = ()  # tl.full, as the tl.zeros of Triton 3.6 wants constexprs
    for j in tl.static_range(len(TILES)):
        found = found + (tl.full((TILES[j][1], WIDTH), 0.0, tl.float32),)
    return found


@triton.jit
def _row(pointer, TILES: tl.constexpr):
    """One token's B, or C."""
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tl.load(pointer + TILES[j][0] + tl.arange(0, TILES[j][1]))[:, None],)
    return found


@triton.jit
def _decay(d, A2, TILES: tl.constexpr):
    """What is left of each state after a step."""
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tl.exp2(d[None, :] * A2[j]),)
    return found


@triton.jit
def _advance(h, decay, x, B, TILES: tl.constexpr):
    """States after a token, from those before it: h decay + x B."""
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (h[j] * decay[j] + x[None, :] * B[j],)
    return found


@triton.jit
def _plus(g, x, C, TILES: tl.constexpr):
    """Gradient of the states after a token, from that of later tokens: g + x C."""
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (g[j] + x[None, :] * C[j],)
    return found


@triton.jit
def _times(tiles, factors, TILES: tl.constexpr):
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tiles[j] * factors[j],)
    return found


@triton.jit
def _scaled(tiles, x, TILES: tl.constexpr):
    """Tiles times x, which is over channels."""
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tiles[j] * x[None, :],)
    return found


@triton.jit
def _over_states(tiles, factors, TILES: tl.constexpr):
    """Sum over states of tiles times factors, for each channel."""
    found = tl.sum(tiles[0] * factors[0], axis=0)
    for j in tl.static_range(1, len(TILES)):
        found += tl.sum(tiles[j] * factors[j], axis=0)
    return found


@triton.jit
def _over_channels(pointer, row, first, second, count, TILES: tl.constexpr, WIDTH: tl.constexpr):
    """Store sums over channels of two tokens' tiles, as rows `row` apart; the second's only where `count` is above 1.

    A product with ones, because Triton takes its operands through shared memory: a thread then adds up a row of WIDTH,
    where tl.sum would move each of 2 * PADDED rows across the warp five times. In full float32 ("ieee").
    """
    ones = tl.full((WIDTH, 1), 1.0, tl.float32)
    for j in tl.static_range(len(TILES)):
        both = tl.permute(tl.join(first[j], second[j]), (2, 0, 1)).reshape(2 * TILES[j][1], WIDTH)
        sums = tl.dot(both, ones, input_precision="ieee")
        m = tl.arange(0, 2 * TILES[j][1])[:, None]
        token = m // TILES[j][1]
        tl.store(pointer + TILES[j][0] + token * row + m % TILES[j][1], sums, mask=token < count)


@triton.jit(do_not_specialize=["L", "N", "rev0", "rev1"])
def pack(B, C, rows, L, N, rev0, rev1, PADDED: tl.constexpr, TOKENS: tl.constexpr, SIZE: tl.constexpr):
    """B and C of each token side by side in float32, in the order of the scan; 0 beyond N and beyond L.

    Rows (ways, B, tokens, 2, PADDED) are then read as whole vectors, whatever the rows of x_proj look like. B and C are
    (pair, clip, token, state): distances in elements.
    """
    clip, way = tl.program_id(1).to(tl.int64), tl.program_id(2)
    i = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    n = tl.arange(0, SIZE)
    t = tl.where(tl.where(way == 0, rev0, rev1) != 0, L - 1 - i, i)
    there = (i < L)[:, None] & (n < N)[None, :]
    first = (way * tl.num_programs(1) + clip) * tl.num_programs(0) * TOKENS
    out = rows + (first + i)[:, None] * (2 * PADDED) + n[None, :]
    for half in tl.static_range(2):
        source = B if half == 0 else C
        start = _of(source[0], way) + clip * source[1]
        values = tl.load(start + t[:, None] * source[2] + n[None, :] * source[3], mask=there, other=0.0)
        tl.store(out + half * PADDED, values.to(tl.float32), mask=(n < PADDED)[None, :])


@triton.jit
def _place(L, E, rev0, rev1, WIDTH: tl.constexpr):
    """A program's part: block, scan, clip, clip among all; first token and way on; channels, which are there."""
    block, way = tl.program_id(0), tl.program_id(2)
    clip = tl.program_id(1).to(tl.int64)
    index = way * tl.num_programs(1) + clip
    reverse = tl.where(way == 0, rev0, rev1) != 0
    origin, step = tl.where(reverse, L - 1, 0), tl.where(reverse, -1, 1)
    e = block * WIDTH + tl.arange(0, WIDTH)
    return block, way, clip, index, origin, step, e, e < E


@triton.jit(do_not_specialize=["L", "wide", "chunks", "kept_clip", "kept_block", "rev0", "rev1"])
def scan_forward(
    u, delta, z, rows, A, D, bias, y, kept,
    L, E, wide, chunks, kept_clip, kept_block, rev0, rev1,
    TILES: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, EVERY: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Y of each scan, (ways, B, L, E), and the states before every EVERY-th token if `kept` is given.

    TOKENS at a time: all of their loads are on the way before the first is needed. z is (pair, clip, token).
    """
    block, way, clip, index, origin, step, e, me = _place(L, E, rev0, rev1, WIDTH)
    row, dense = step * E, (clip * L + origin) * E + e
    at_u, at_delta = _of(u, way) + dense, _of(delta, way) + dense
    at_y = y + way * tl.num_programs(1).to(tl.int64) * L * E + dense
    at_rows = rows + index * (chunks * EVERY * 2 * PADDED)
    if z is not None:
        at_z = _of(z[0], way) + clip * z[1] + origin * z[2] + e
        z_row = step * z[2]
    skip, b = _weight(D, way, e, me), _weight(bias, way, e, me)
    A = _load_tiles(A + way * PADDED * wide + e[None, :], wide, TILES)
    A2 = _scaled(A, tl.full((WIDTH,), LOG2E, tl.float32), TILES)
    h = _zeros(TILES, WIDTH)
    for chunk in range(chunks):
        if kept is not None:
            at_kept = kept + index * kept_clip + block * kept_block + chunk * (PADDED * WIDTH)
            _store_tiles(at_kept + tl.arange(0, WIDTH)[None, :], WIDTH, h, TILES)
        for i in range(chunk * EVERY, tl.minimum(chunk * EVERY + EVERY, L), TOKENS):
            us, raw, zs = (), (), ()
            for k in tl.static_range(TOKENS):
                there = me & (i + k < L)
                us = us + (tl.load(at_u + (i + k) * row, mask=there, other=0.0),)
                raw = raw + (tl.load(at_delta + (i + k) * row, mask=there, other=0.0),)
                if z is not None:
                    zs = zs + (tl.load(at_z + (i + k) * z_row, mask=there, other=0.0),)
            for k in tl.static_range(TOKENS):
                x = us[k].to(tl.float32)
                d, _ = _steps(raw[k], b, SOFTPLUS)
                at = at_rows + (i + k) * (2 * PADDED)
                h = _advance(h, _decay(d, A2, TILES), d * x, _row(at, TILES), TILES)
                s = _over_states(h, _row(at + PADDED, TILES), TILES)
                if D is not None:
                    s += skip * x
                if z is not None:
                    gate = zs[k].to(tl.float32)
                    s *= gate / (tl.exp2(gate * -LOG2E) + 1.0)
                tl.store(at_y + (i + k) * row, s.to(y.dtype.element_ty), mask=me & (i + k < L))


@triton.jit(do_not_specialize=["L", "wide", "chunks", "kept_clip", "kept_block", "scratch_block", "rev0", "rev1"])
def scan_backward(
    grad_y, u, delta, z, rows, A, D, bias, kept, scratch,
    grad_u, grad_delta, grad_z, grad_A, parts, grad_D, grad_bias,
    L, E, wide, chunks, kept_clip, kept_block, scratch_block, rev0, rev1,
    TILES: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, EVERY: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Gradients of each scan by the adjoint recurrence, from the last chunk to the first; None is not computed.

    - A chunk is gone through forward from its kept state, to leave the states before every TOKENS-th token in
      `scratch`; then backward, TOKENS at a time, with their states and decays in registers: two exponentials a state
      and token, and no more memory than that of the scratch.
    - grad_u, grad_delta and grad_z are (ways, B, L, E). `parts` (ways, B, L, blocks, 2, PADDED) has the sums over each
      program's channels for B and C, and grad_A, grad_D and grad_bias those over each clip's tokens.
    """
    block, way, clip, index, origin, step, e, me = _place(L, E, rev0, rev1, WIDTH)
    row, dense = step * E, (clip * L + origin) * E + e
    at_u, at_delta, at_grad = _of(u, way), _of(delta, way), _of(grad_y, way)
    out = way * tl.num_programs(1).to(tl.int64) * L * E
    at_rows = rows + index * (chunks * EVERY * 2 * PADDED)
    column = tl.arange(0, WIDTH)[None, :]
    at_kept = _of(kept, way) + clip * kept_clip + block * kept_block + column
    at_scratch = scratch + (index * tl.num_programs(0) + block) * scratch_block + column
    if z is not None:
        at_z = _of(z[0], way) + clip * z[1] + origin * z[2] + e
        z_row = step * z[2]
    if parts is not None:
        parts_row = tl.num_programs(0) * (2 * PADDED)
        at_parts = parts + (index * L + origin) * parts_row + block * (2 * PADDED)
        parts_row *= step
    skip, b = _weight(D, way, e, me), _weight(bias, way, e, me)
    A = _load_tiles(A + way * PADDED * wide + e[None, :], wide, TILES)
    A2 = _scaled(A, tl.full((WIDTH,), LOG2E, tl.float32), TILES)
    g, of_A = _zeros(TILES, WIDTH), _zeros(TILES, WIDTH)
    of_D, of_bias = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    for chunk in range(chunks - 1, -1, -1):
        first = chunk * EVERY
        blocks = (tl.minimum(EVERY, L - first) + TOKENS - 1) // TOKENS
        h = _load_tiles(at_kept + chunk * (PADDED * WIDTH), WIDTH, TILES)
        _store_tiles(at_scratch, WIDTH, h, TILES)
        for s in range(1, blocks):
            for k in tl.static_range(TOKENS):
                i = first + s * TOKENS - TOKENS + k
                at = dense + i * row
                x = tl.load(at_u + at, mask=me, other=0.0).to(tl.float32)
                d, _ = _steps(tl.load(at_delta + at, mask=me, other=0.0), b, SOFTPLUS)
                h = _advance(h, _decay(d, A2, TILES), d * x, _row(at_rows + i * (2 * PADDED), TILES), TILES)
            _store_tiles(at_scratch + s * (PADDED * WIDTH), WIDTH, h, TILES)
        tl.debug_barrier()
        for s in range(blocks - 1, -1, -1):
            i = first + s * TOKENS
            xs, ds, slopes, grads, zs = (), (), (), (), ()
            for k in tl.static_range(TOKENS):
                there = me & (i + k < L)
                at = dense + (i + k) * row
                xs = xs + (tl.load(at_u + at, mask=there, other=0.0).to(tl.float32),)
                d, slope = _steps(tl.load(at_delta + at, mask=there, other=0.0), b, SOFTPLUS)
                ds, slopes = ds + (d,), slopes + (slope,)
                grads = grads + (tl.load(at_grad + at, mask=there, other=0.0).to(tl.float32),)
                if z is not None:
                    zs = zs + (tl.load(at_z + (i + k) * z_row, mask=there, other=0.0),)
            hs = (_load_tiles(at_scratch + s * (PADDED * WIDTH), WIDTH, TILES),)
            decays, inner, of_C = (), (), ()
            for k in tl.static_range(TOKENS):
                B = _row(at_rows + (i + k) * (2 * PADDED), TILES)
                decays = decays + (_decay(ds[k], A2, TILES),)
                hs = hs + (_advance(hs[k], decays[k], ds[k] * xs[k], B, TILES),)
                grad = grads[k]
                if z is not None:
                    gate = zs[k].to(tl.float32)
                    opening = 1.0 / (tl.exp2(gate * -LOG2E) + 1.0)
                    if grad_z is not None:
                        value = _over_states(hs[k + 1], _row(at_rows + (i + k) * (2 * PADDED) + PADDED, TILES), TILES)
                        if D is not None:
                            value += skip * xs[k]
                        value *= grad * opening * (gate * (1.0 - opening) + 1.0)
                        at = grad_z + out + (dense + (i + k) * row)
                        tl.store(at, value.to(grad_z.dtype.element_ty), mask=me & (i + k < L))
                    grad *= gate * opening
                inner = inner + (grad,)
                if parts is not None:
                    of_C = of_C + (_scaled(hs[k + 1], grad, TILES),)
                    if k % 2 == 1:
                        at = at_parts + (i + k - 1) * parts_row + PADDED
                        _over_channels(at, parts_row, of_C[k - 1], of_C[k], L - i - k + 1, TILES, WIDTH)
            of_B = ()
            for k in tl.static_range(TOKENS - 1, -1, -1):
                there = me & (i + k < L)
                B = _row(at_rows + (i + k) * (2 * PADDED), TILES)
                x, d, grad = xs[k], ds[k], inner[k]
                g = _plus(g, grad, _row(at_rows + (i + k) * (2 * PADDED) + PADDED, TILES), TILES)
                if parts is not None:
                    of_B = of_B + (_scaled(g, d * x, TILES),)
                    if k % 2 == 0:
                        at = at_parts + (i + k) * parts_row
                        here, later = of_B[TOKENS - 1 - k], of_B[TOKENS - 2 - k]
                        _over_channels(at, parts_row, here, later, L - i - k, TILES, WIDTH)
                from_input = _over_states(g, B, TILES)
                g = _times(g, decays[k], TILES)
                if k > 0:
                    through = _times(g, hs[k], TILES)
                else:  # read once more: kept in registers, it would leave too few of them for a third warp
                    through = _times(g, _load_tiles(at_scratch + s * (PADDED * WIDTH), WIDTH, TILES), TILES)
                if grad_A is not None:
                    of_A = _plus(of_A, d, through, TILES)
                of_delta = (from_input * x + _over_states(through, A2, TILES) * LN2) * slopes[k]
                of_u = from_input * d
                if D is not None:
                    of_u += skip * grad
                of_D += grad * x
                of_bias += of_delta
                at = out + (dense + (i + k) * row)
                if grad_u is not None:
                    tl.store(grad_u + at, of_u.to(grad_u.dtype.element_ty), mask=there)
                if grad_delta is not None:
                    tl.store(grad_delta + at, of_delta.to(grad_delta.dtype.element_ty), mask=there)
        tl.debug_barrier()
    if grad_A is not None:
        _store_tiles(grad_A + index * PADDED * wide + e[None, :], wide, of_A, TILES)
    if grad_D is not None:
        tl.store(grad_D + index * E + e, of_D, mask=me)
    if grad_bias is not None:
        tl.store(grad_bias + index * E + e, of_bias, mask=me)
