"""The running state of a row tile and its algebra: what a tile of logits adds, how two states join, what is stored at the end.

A state is a flat tuple of float32 row vectors [BM], in base 2 for plain calls (BASE_2; the scale holds log2 e), else in nats:

    0 m   largest visible logit          4 a1  sum (s - m)            8 mr  m over the keys outside `rest`
    1 l   sum w(s - m)                   5 a2  sum (s - m)^2          9 rl  their l
    2 t   sum w(s - m) (s - m)          6 p2  sum w(s - m)^2         10 rt  their t
    3 n   visible keys                   7 ds  sum w(s - m) (pos - j)
    11.. one mass per key set, then per kind of match, per window, per offset (each sum w(s - m) over its keys)

where w is 2^x or e^x. The sums are centred on the running maximum: the entropy log l - t / l does not cancel, and
moving the maximum by d changes them in closed form
(`_recentred`; the second moment's three terms share one sign). A vector that nobody asked for stays what it was and is compiled away.
"""

from __future__ import annotations

import triton
import triton.language as tl

from interp_kernels.triton_masks import LN2, key_factor, member, weight

BASE = tl.constexpr(11)


@triton.jit
def empty_state(EXTRA: tl.constexpr, BM: tl.constexpr):
    """The state of rows that have seen nothing, with EXTRA masses."""
    b_zero = tl.zeros([BM], tl.float32)
    b_none = b_zero - float("inf")
    st = (b_none, b_zero, b_zero, b_zero, b_zero, b_zero, b_zero, b_zero, b_none, b_zero, b_zero)
    for _ in tl.static_range(EXTRA):
        st = st + (b_zero,)
    return st


@triton.jit
def _recentred(
    st, b_m, ENTROPY: tl.constexpr, MOMENTS: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr,
    EXTRA: tl.constexpr, BASE_2: tl.constexpr,
):  # fmt: skip
    """The same state on the maximum b_m (not below its own), and the factor that takes its weights there; the three of `rest` stay."""
    t, n, a1, a2, p2, ds = st[2], st[3], st[4], st[5], st[6], st[7]
    # A row that has seen nothing has -inf - -inf here; its sums are 0 and stay so for any finite step.
    b_step = tl.where(st[0] > -float("inf"), st[0] - b_m, 0.0)
    b_alpha = weight(b_step, BASE_2)
    if ENTROPY:
        t = (t + b_step * st[1]) * b_alpha
    if MOMENTS:
        a2 = a2 + b_step * (2.0 * a1 + n * b_step)
        a1 = a1 + n * b_step
    if SQUARE:
        p2 = p2 * b_alpha * b_alpha
    if DISTANCE:
        ds = ds * b_alpha
    moved = (b_m, st[1] * b_alpha, t, n, a1, a2, p2, ds, st[8], st[9], st[10])
    for c in tl.static_range(EXTRA):
        moved = moved + (st[11 + c] * b_alpha,)
    return moved, b_alpha


@triton.jit
def _recentred_rest(b_mr, mr, rl, rt, BASE_2: tl.constexpr):
    """The sums rl and rt over the keys outside `rest`, moved from their maximum mr to b_mr."""
    b_step = tl.where(mr > -float("inf"), mr - b_mr, 0.0)
    b_alpha = weight(b_step, BASE_2)
    return rl * b_alpha, (rt + b_step * rl) * b_alpha


@triton.jit
def joined(
    one, two, ENTROPY: tl.constexpr, MOMENTS: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr,
    EXTRA: tl.constexpr, BASE_2: tl.constexpr,
):  # fmt: skip
    """The state of two disjoint sets of keys, and the factors for their weighted values."""
    b_m = tl.maximum(one[0], two[0])
    b_mr = tl.maximum(one[8], two[8])
    one, b_alpha = _recentred(one, b_m, ENTROPY, MOMENTS, SQUARE, DISTANCE, EXTRA, BASE_2)
    two, b_beta = _recentred(two, b_m, ENTROPY, MOMENTS, SQUARE, DISTANCE, EXTRA, BASE_2)
    rl_one, rt_one = _recentred_rest(b_mr, one[8], one[9], one[10], BASE_2)
    rl_two, rt_two = _recentred_rest(b_mr, two[8], two[9], two[10], BASE_2)
    both = (b_m,)
    for c in tl.static_range(1, 8):
        both = both + (one[c] + two[c],)
    both = both + (b_mr, rl_one + rl_two, rt_one + rt_two)
    for c in tl.static_range(EXTRA):
        both = both + (one[11 + c] + two[11 + c],)
    return both, b_alpha, b_beta


@triton.jit
def load_row_ids(co, b, o_i, NQ, MATCHES: tl.constexpr):
    """The rows' ids of each kind of match (`triton_lowering.lower_collect` has given negative ids of rows and of
    keys different numbers)."""
    ids = ()
    for c in tl.static_range(MATCHES):
        ids = ids + (tl.load(co.row_ids.p + b * co.row_ids.b + c * co.row_ids.h + o_i, mask=o_i < NQ, other=-2),)
    return ids


@triton.jit
def _load_keys(p_x, tile, NK, other, MASKED: tl.constexpr, BN: tl.constexpr):
    """A vector over the keys of a tile, [1, BN]. One scalar address and small offsets: 64-bit addresses a key would
    cost 2 registers each."""
    o_t = tl.arange(0, BN)[None, :]
    p_tile = p_x + tile * BN
    return tl.load(p_tile + o_t, mask=o_t < NK - tile * BN, other=other) if MASKED else tl.load(p_tile + o_t)


@triton.jit
def absorbed(
    st, b_s, m_vis, tile, row_ids, ed, co, b, h, o_i, o_j, NQ, NK, offset,
    MASKED: tl.constexpr, ENTROPY: tl.constexpr, MOMENTS: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr,
    REST: tl.constexpr, SETS: tl.constexpr, MATCHES: tl.constexpr, WINDOWS: tl.constexpr, OFFSETS: tl.constexpr,
    BASE_2: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The state after a tile of logits [BM, BN] (-inf where hidden), the weights of the tile (edited ones for out),
    and the factor for what was before.

    o_i is [BM, 1], o_j [1, BN]. Without MASKED every entry is visible, every key exists and no key is within reach
    of a window or an offset.
    """
    EXTRA: tl.constexpr = SETS + MATCHES + WINDOWS + OFFSETS
    mr, rl, rt = st[8], st[9], st[10]
    if SETS > 0 or REST:
        b_word = _load_keys(co.words.p + b * co.words.b, tile, NK, 0, MASKED, BN)
    # First, so that its tiles are dead when those of all keys are made: they have a maximum, and so exponentials, of their own.
    if REST:
        b_xr = tl.where(((b_word >> SETS) & 1) != 0, -float("inf"), b_s)
        b_mr = tl.maximum(mr, tl.max(b_xr, 1))
        rl, rt = _recentred_rest(b_mr, mr, rl, rt, BASE_2)
        mr = b_mr
        b_xr = b_xr - tl.where(b_mr > -float("inf"), b_mr, 0.0)[:, None]
        b_pr = weight(b_xr, BASE_2)
        rl += tl.sum(b_pr, 1)
        rt += tl.sum(tl.where(b_xr > -float("inf"), b_pr * b_xr, 0.0), 1)

    b_m = tl.maximum(st[0], tl.max(b_s, 1))
    st, b_alpha = _recentred(st, b_m, ENTROPY, MOMENTS, SQUARE, DISTANCE, EXTRA, BASE_2)
    if MASKED:
        b_x = b_s - tl.where(b_m > -float("inf"), b_m, 0.0)[:, None]
        b_p = weight(b_x, BASE_2)
        b_x = tl.where(m_vis, b_x, 0.0)
    else:
        b_x = b_s - b_m[:, None]
        b_p = weight(b_x, BASE_2)
    t, n, a1, a2, p2, ds = st[2], st[3], st[4], st[5], st[6], st[7]
    if MOMENTS:
        a1 += tl.sum(b_x, 1)
        a2 += tl.sum(b_x * b_x, 1)
        if MASKED:
            n += tl.sum(m_vis.to(tl.float32), 1)
        else:
            n += BN
    if ENTROPY:
        t += tl.sum(b_p * b_x, 1)
    if SQUARE:
        p2 += tl.sum(b_p * b_p, 1)
    if DISTANCE:
        ds += tl.sum(b_p * ((o_i + offset).to(tl.float32) - o_j.to(tl.float32)), 1)
    grown = (b_m, st[1] + tl.sum(b_p, 1), t, n, a1, a2, p2, ds, mr, rl, rt)

    if SETS > 0:
        for c in tl.static_range(SETS):
            grown = grown + (st[11 + c] + tl.sum(b_p * member(b_word, c), 1),)
    for c in tl.static_range(MATCHES):
        b_key_id = _load_keys(co.key_ids.p + b * co.key_ids.b + c * co.key_ids.h, tile, NK, -1, MASKED, BN)
        grown = grown + (st[11 + SETS + c] + tl.sum(tl.where(row_ids[c] == b_key_id, b_p, 0.0), 1),)
    for c in tl.static_range(WINDOWS):
        b_mass = st[11 + SETS + MATCHES + c]
        if MASKED:
            b_gap = o_i + offset - o_j
            b_mass += tl.sum(tl.where((b_gap >= 0) & (b_gap < co.windows[c]), b_p, 0.0), 1)
        grown = grown + (b_mass,)
    for c in tl.static_range(OFFSETS):
        b_mass = st[11 + SETS + MATCHES + WINDOWS + c]
        if MASKED:
            b_mass += tl.sum(tl.where(o_i + offset - o_j == co.offsets[c], b_p, 0.0), 1)
        grown = grown + (b_mass,)

    if ed.factors is not None:
        b_p = b_p * key_factor(ed, b, h, o_i, o_j, NQ, NK)
    return grown, b_p, b_alpha


@triton.jit
def store_state(p_part, st, o_row, m_row, plane, COUNT: tl.constexpr):
    """Write a partial state, one plane of rows for each vector."""
    for c in tl.static_range(COUNT):
        tl.store(p_part + c * plane + o_row, st[c], mask=m_row)


@triton.jit
def load_state(p_part, o_row, m_row, plane, COUNT: tl.constexpr):
    """Read a partial state again."""
    st = ()
    for c in tl.static_range(COUNT):
        st = st + (tl.load(p_part + c * plane + o_row, mask=m_row, other=0.0),)
    return st


@triton.jit
def store_results(
    st, b_acc, p_out, p_lse, p_entropy, p_stats, p_sink, ed, b, h, o_m, o_d, o_row, plane, NQ, DV,
    ENTROPY: tl.constexpr, ROW_MAX: tl.constexpr, MOMENTS: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr,
    REST: tl.constexpr, EXTRA: tl.constexpr, BASE_2: tl.constexpr,
):  # fmt: skip
    """Normalise and write a row tile: out, lse, entropy, and the planes of statistics in the order of `triton_lowering.PLANES`.

    o_m [BM] are row numbers, o_d [BDV] features, o_row [BM] positions in a plane [B * H * Nq] (int64). A learned
    sink joins the denominator here.
    """
    NATS: tl.constexpr = LN2 if BASE_2 else 1.0
    m_row = o_m < NQ
    m = st[0]
    b_top = m
    if p_sink is not None:
        b_sink = tl.load(p_sink + h) / NATS
        b_top = tl.maximum(m, b_sink)
    b_some = b_top > -float("inf")
    b_ref = tl.where(b_some, b_top, 0.0)
    b_step = tl.where(m > -float("inf"), m - b_ref, 0.0)
    b_alpha = weight(b_step, BASE_2)
    b_total = st[1] * b_alpha
    b_centred = (st[2] + b_step * st[1]) * b_alpha
    if p_sink is not None:
        b_own = weight(b_sink - b_ref, BASE_2)
        b_total += b_own
        b_centred += tl.where(b_own > 0, b_own * (b_sink - b_ref), 0.0)
    b_inverse = tl.where(b_some, 1.0 / tl.where(b_some, b_total, 1.0), 0.0)
    b_log = tl.log(tl.where(b_some, b_total, 1.0))
    b_unit = b_alpha * b_inverse

    b_weight = b_unit
    if ed.gate is not None:
        b_weight = b_weight * tl.load(
            ed.gate.p + b * ed.gate.b + h * ed.gate.h + o_m.to(tl.int64) * ed.gate.r, mask=m_row, other=0.0
        )
    b_out = b_acc * b_weight[:, None]
    p_rows = p_out.p + b * p_out.b + h * p_out.h + o_m.to(tl.int64)[:, None] * p_out.r + o_d[None, :]
    tl.store(p_rows, b_out.to(p_out.p.dtype.element_ty), mask=m_row[:, None] & (o_d < DV)[None, :])
    tl.store(p_lse + o_row, tl.where(b_some, b_ref * NATS + b_log, -float("inf")), mask=m_row)

    if ENTROPY:
        tl.store(p_entropy + o_row, tl.where(b_some, b_log - NATS * b_centred * b_inverse, 0.0), mask=m_row)
    p_next = p_stats + o_row
    if ROW_MAX:
        tl.store(p_next, m * NATS, mask=m_row)
        p_next += plane
    if MOMENTS:
        tl.store(p_next, st[4] * NATS, mask=m_row)
        tl.store(p_next + plane, st[5] * (NATS * NATS), mask=m_row)
        p_next += 2 * plane
    if SQUARE:
        tl.store(p_next, st[6] * b_unit * b_unit, mask=m_row)
        p_next += plane
    if DISTANCE:
        tl.store(p_next, st[7] * b_unit, mask=m_row)
        p_next += plane
    if REST:
        b_left = st[9] > 0
        b_rest_log = tl.log(tl.where(b_left, st[9], 1.0))
        b_rest_share = weight(tl.where(b_left, st[8] - b_ref, 0.0), BASE_2) * st[9] * b_inverse
        tl.store(p_next, tl.where(b_left, b_rest_log - NATS * st[10] / tl.where(b_left, st[9], 1.0), 0.0), mask=m_row)
        tl.store(p_next + plane, b_rest_share, mask=m_row)
        p_next += 2 * plane
    for c in tl.static_range(EXTRA):
        tl.store(p_next, st[11 + c] * b_unit, mask=m_row)
        p_next += plane
    if p_sink is not None:
        tl.store(p_next, b_own * b_inverse, mask=m_row)
        p_next += plane
    tl.store(p_next, b_ref, mask=m_row)
    tl.store(p_next + plane, b_inverse, mask=m_row)
