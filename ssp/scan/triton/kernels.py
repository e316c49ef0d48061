"""The kernels of the Triton scan: pack, forward, backward. Importing this module imports Triton.

- A program is one warp: WIDTH neighbouring channels of one clip in one direction, all of its tokens in sequence, states
  in registers. Programs share nothing, so results do not depend on how they are scheduled.
- A thread has a channel with all of its states. Elementwise work is then done once, and sums over states need no other
  thread; it comes of Triton not knowing what `wide` and the like are divisible by, and so not reading four neighbouring
  channels at once (`do_not_specialize`).
- States come in tiles (first, size) of 32, 16, 8 or 4, as Triton wants powers of two: PADDED in all, so 22 states cost
  24 and not 32. Padding has A = B = C = 0: its states stay 0.
- Tokens are numbered in the order of the scan, i = 0 to L-1; a reverse scan walks through memory backwards.
- Tokens by channels lie dense, (B, L, E); z may be a part of something wider. A pair (pointer, way) is a tensor of the
  first scan and the distance to the second's, in elements, whether or not they are parts of one tensor.
- tl.exp2 is one instruction, hence A * log2(e). `tensor * constexpr` in this order: Triton's interpreter wants it so.
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
def _sigmoid(x):
    return 1.0 / (tl.exp2(x * -LOG2E) + 1.0)


@triton.jit
def _steps(pointer, b, there, SOFTPLUS: tl.constexpr):
    """One token's step sizes, and their slope in delta."""
    d = tl.load(pointer, mask=there, other=0.0).to(tl.float32)
    slope = tl.full(d.shape, 1.0, tl.float32)
    if b is not None:
        d += b
    if SOFTPLUS:
        d, slope = _softplus(d)
    return d, slope


@triton.jit
def _weight(pair, way, e, me):
    """Channels `e` of D or of the bias."""
    return tl.load(pair[0] + way * pair[1] + e, mask=me, other=0.0).to(tl.float32)


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
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tl.zeros((TILES[j][1], WIDTH), tl.float32),)
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
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tl.exp2(d[None, :] * A2[j]),)
    return found


@triton.jit
def _add(tiles, x, row, TILES: tl.constexpr):
    """Tiles plus the outer product of a row over states and x over channels."""
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tiles[j] + x[None, :] * row[j],)
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
    """Store sums over channels of two tokens' tiles, as rows `row` apart; the second's only where `count` is 2.

    A product with ones, because Triton takes its operands through shared memory: a thread then adds up a row of 32,
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
    (pointer, way, clip, token, state): distances in elements.
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
        start = source[0] + way * source[1] + clip * source[2]
        values = tl.load(start + t[:, None] * source[3] + n[None, :] * source[4], mask=there, other=0.0)
        tl.store(out + half * PADDED, values.to(tl.float32), mask=(n < PADDED)[None, :])


@triton.jit(do_not_specialize=["L", "wide", "chunks", "kept_clip", "kept_block", "rev0", "rev1"])
def scan_forward(
    u, delta, z, rows, A, D, bias, y, kept,
    L, E, wide, chunks, kept_clip, kept_block, rev0, rev1,
    TILES: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, EVERY: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Y of each scan, (ways, B, L, E), and the states before every EVERY-th token if `kept` is given.

    TOKENS at a time: all of their loads are on the way before the first is needed. z is (pointer, way, clip, token).
    """
    block, way = tl.program_id(0), tl.program_id(2)
    clip = tl.program_id(1).to(tl.int64)
    index = way * tl.num_programs(1) + clip
    reverse = tl.where(way == 0, rev0, rev1) != 0
    origin = tl.where(reverse, L - 1, 0)
    step = tl.where(reverse, -1, 1)
    row = step * E
    e = block * WIDTH + tl.arange(0, WIDTH)
    me = e < E
    dense = (clip * L + origin) * E + e
    at_u = u[0] + way * u[1] + dense
    at_delta = delta[0] + way * delta[1] + dense
    at_y = y + index * L * E + origin * E + e
    at_rows = rows + index * (chunks * EVERY * 2 * PADDED)
    h = _zeros(TILES, WIDTH)
    A2 = ()
    A = _load_tiles(A + way * PADDED * wide + e[None, :], wide, TILES)
    for j in tl.static_range(len(TILES)):
        A2 = A2 + (A[j] * LOG2E,)
    if D is not None:
        skip = _weight(D, way, e, me)
    b = None
    if bias is not None:
        b = _weight(bias, way, e, me)
    if z is not None:
        at_z = z[0] + way * z[1] + clip * z[2] + origin * z[3] + e
        z_row = step * z[3]
    for chunk in range(chunks):
        if kept is not None:
            at_kept = kept + index * kept_clip + block * kept_block + chunk * (PADDED * WIDTH)
            _store_tiles(at_kept + tl.arange(0, WIDTH)[None, :], WIDTH, h, TILES)
        for i in range(chunk * EVERY, tl.minimum(chunk * EVERY + EVERY, L), TOKENS):
            us, ds, zs = (), (), ()
            for k in tl.static_range(TOKENS):
                there = me & (i + k < L)
                us = us + (tl.load(at_u + (i + k) * row, mask=there, other=0.0),)
                ds = ds + (tl.load(at_delta + (i + k) * row, mask=there, other=0.0),)
                if z is not None:
                    zs = zs + (tl.load(at_z + (i + k) * z_row, mask=there, other=0.0),)
            for k in tl.static_range(TOKENS):
                x = us[k].to(tl.float32)
                d = ds[k].to(tl.float32)
                if bias is not None:
                    d += b
                if SOFTPLUS:
                    d, _ = _softplus(d)
                B = _row(at_rows + (i + k) * (2 * PADDED), TILES)
                C = _row(at_rows + (i + k) * (2 * PADDED) + PADDED, TILES)
                h = _add(_times(h, _decay(d, A2, TILES), TILES), d * x, B, TILES)
                s = _over_states(h, C, TILES)
                if D is not None:
                    s += skip * x
                if z is not None:
                    gate = zs[k].to(tl.float32)
                    s *= gate * _sigmoid(gate)
                tl.store(at_y + (i + k) * row, s.to(y.dtype.element_ty), mask=me & (i + k < L))


@triton.jit(do_not_specialize=["L", "wide", "chunks", "kept_clip", "kept_block", "scratch_block", "rev0", "rev1"])
def scan_backward(
    grad_y, u, delta, z, rows, A, D, bias, kept, scratch,
    grad_u, grad_delta, grad_z, grad_A, parts, grad_D, grad_bias,
    L, E, wide, chunks, kept_clip, kept_block, scratch_block, rev0, rev1,
    TILES: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, EVERY: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    block, way = tl.program_id(0), tl.program_id(2)
    clip = tl.program_id(1).to(tl.int64)
    index = way * tl.num_programs(1) + clip
    reverse = tl.where(way == 0, rev0, rev1) != 0
    origin = tl.where(reverse, L - 1, 0)
    step = tl.where(reverse, -1, 1)
    row = step * E
    e = block * WIDTH + tl.arange(0, WIDTH)
    me = e < E
    dense = (clip * L + origin) * E + e
    at_u = u[0] + way * u[1]
    at_delta = delta[0] + way * delta[1]
    at_grad = grad_y[0] + way * grad_y[1]
    out = way * tl.num_programs(1).to(tl.int64) * L * E
    at_rows = rows + index * (chunks * EVERY * 2 * PADDED)
    if parts is not None:
        parts_row = tl.num_programs(0) * (2 * PADDED)
        at_parts = parts + (index * L + origin) * parts_row + block * (2 * PADDED)
        parts_row *= step
    column = tl.arange(0, WIDTH)[None, :]
    at_kept = kept[0] + way * kept[1] + clip * kept_clip + block * kept_block + column
    at_scratch = scratch + (index * tl.num_programs(0) + block) * scratch_block + column
    g = _zeros(TILES, WIDTH)
    A2 = ()
    A = _load_tiles(A + way * PADDED * wide + e[None, :], wide, TILES)
    for j in tl.static_range(len(TILES)):
        A2 = A2 + (A[j] * LOG2E,)
    if D is not None:
        skip = _weight(D, way, e, me)
    b = None
    if bias is not None:
        b = _weight(bias, way, e, me)
    if z is not None:
        at_z = z[0] + way * z[1] + clip * z[2] + origin * z[3] + e
        z_row = step * z[3]
    of_A = _zeros(TILES, WIDTH)
    of_D = tl.zeros((WIDTH,), tl.float32)
    of_bias = tl.zeros((WIDTH,), tl.float32)
    for chunk in range(chunks - 1, -1, -1):
        first = chunk * EVERY
        blocks = (tl.minimum(EVERY, L - first) + TOKENS - 1) // TOKENS
        h = _load_tiles(at_kept + chunk * (PADDED * WIDTH), WIDTH, TILES)
        _store_tiles(at_scratch, WIDTH, h, TILES)
        for s in range(1, blocks):
            for k in tl.static_range(TOKENS):
                i = first + s * TOKENS - TOKENS + k
                x = tl.load(at_u + (dense + i * row), mask=me, other=0.0).to(tl.float32)
                d, _ = _steps(at_delta + (dense + i * row), b, me, SOFTPLUS)
                B = _row(at_rows + i * (2 * PADDED), TILES)
                h = _add(_times(h, _decay(d, A2, TILES), TILES), d * x, B, TILES)
            _store_tiles(at_scratch + s * (PADDED * WIDTH), WIDTH, h, TILES)
        tl.debug_barrier()
        for s in range(blocks - 1, -1, -1):
            i = first + s * TOKENS
            xs, ds, slopes, zs, grads = (), (), (), (), ()
            for k in tl.static_range(TOKENS):
                there = me & (i + k < L)
                at = dense + (i + k) * row
                xs = xs + (tl.load(at_u + at, mask=there, other=0.0).to(tl.float32),)
                d, slope = _steps(at_delta + at, b, there, SOFTPLUS)
                ds = ds + (d,)
                slopes = slopes + (slope,)
                grads = grads + (tl.load(at_grad + at, mask=there, other=0.0).to(tl.float32),)
                if z is not None:
                    zs = zs + (tl.load(at_z + (i + k) * z_row, mask=there, other=0.0),)
            hs = (_load_tiles(at_scratch + s * (PADDED * WIDTH), WIDTH, TILES),)
            decays, of_C, inner = (), (), ()
            for k in tl.static_range(TOKENS):
                B = _row(at_rows + (i + k) * (2 * PADDED), TILES)
                decays = decays + (_decay(ds[k], A2, TILES),)
                hs = hs + (_add(_times(hs[k], decays[k], TILES), ds[k] * xs[k], B, TILES),)
                grad = grads[k]
                if z is not None:
                    gate = zs[k].to(tl.float32)
                    open = _sigmoid(gate)
                    if grad_z is not None:
                        C = _row(at_rows + (i + k) * (2 * PADDED) + PADDED, TILES)
                        value = _over_states(hs[k + 1], C, TILES)
                        if D is not None:
                            value += skip * xs[k]
                        value *= grad * open * (gate * (1.0 - open) + 1.0)
                        at = dense + (i + k) * row
                        tl.store(grad_z + out + at, value.to(grad_z.dtype.element_ty), mask=me & (i + k < L))
                    grad *= gate * open
                inner = inner + (grad,)
                if parts is not None:
                    of_C = of_C + (_scaled(hs[k + 1], grad, TILES),)
                    if k % 2 == 1:
                        to = at_parts + (i + k - 1) * parts_row + PADDED
                        _over_channels(to, parts_row, of_C[k - 1], of_C[k], L - i - k + 1, TILES, WIDTH)
            of_B = ()
            for k in tl.static_range(TOKENS - 1, -1, -1):
                there = me & (i + k < L)
                at = dense + (i + k) * row
                B = _row(at_rows + (i + k) * (2 * PADDED), TILES)
                C = _row(at_rows + (i + k) * (2 * PADDED) + PADDED, TILES)
                x, d, grad = xs[k], ds[k], inner[k]
                g = _add(g, grad, C, TILES)
                if parts is not None:
                    of_B = of_B + (_scaled(g, d * x, TILES),)
                    if k % 2 == 0:
                        to = at_parts + (i + k) * parts_row
                        _over_channels(
                            to, parts_row, of_B[TOKENS - 1 - k], of_B[TOKENS - 2 - k], L - i - k, TILES, WIDTH
                        )
                from_input = _over_states(g, B, TILES)
                g = _times(g, decays[k], TILES)
                if k > 0:
                    through = _times(g, hs[k], TILES)
                else:
                    through = _times(g, _load_tiles(at_scratch + s * (PADDED * WIDTH), WIDTH, TILES), TILES)
                if grad_A is not None:
                    of_A = _add_tiles(of_A, _scaled(through, d, TILES), TILES)
                of_delta = (from_input * x + _over_states(through, A2, TILES) * LN2) * slopes[k]
                of_u = from_input * d
                if D is not None:
                    of_u += skip * grad
                of_D += grad * x
                of_bias += of_delta
                if grad_u is not None:
                    tl.store(grad_u + out + at, of_u.to(grad_u.dtype.element_ty), mask=there)
                if grad_delta is not None:
                    tl.store(grad_delta + out + at, of_delta.to(grad_delta.dtype.element_ty), mask=there)
        tl.debug_barrier()
    if grad_A is not None:
        _store_tiles(grad_A + index * PADDED * wide + e[None, :], wide, of_A, TILES)
    if grad_D is not None:
        tl.store(grad_D + index * E + e, of_D, mask=me)
    if grad_bias is not None:
        tl.store(grad_bias + index * E + e, of_bias, mask=me)


@triton.jit
def _add_tiles(tiles, more, TILES: tl.constexpr):
    found = ()
    for j in tl.static_range(len(TILES)):
        found = found + (tiles[j] + more[j],)
    return found
