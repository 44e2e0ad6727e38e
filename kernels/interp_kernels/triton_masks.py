"""Visibility, logits and tile ranges inside Triton kernels: the device-side twin of `visibility` and `scores`.

Every function works on broadcastable row numbers `o_i` and key numbers `o_j`, so that row-major kernels pass [BM, 1]
and [1, BN] and key-major
kernels [1, BM] and [BN, 1]. Features that a call does not use are None in `MaskArgs` and `EditArgs`; Triton removes them when it compiles.
Logits are in nats; only the forward of plain calls takes log2 e into the scale, so that a bare exp2 makes a weight.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
MINUS_TWO_LOG2E = tl.constexpr(-2.8853900817779268)
# Stands for "no edge"; sums with positions stay inside int32.
FAR = tl.constexpr(1 << 29)


@triton.jit
def head_limits(mk, b, h, NK):
    """Scalars of one (batch item, head): first key, end of keys, end of prefix, end of sinks, width of the lower window."""
    left = 0
    stop = NK
    if mk.left is not None:
        left = tl.load(mk.left + b)
    if mk.right is not None:
        stop = NK - tl.load(mk.right + b)
    prefix_end = left
    if mk.prefix is not None:
        prefix_end = left + tl.load(mk.prefix + b)
    sink_end = left
    if mk.sinks is not None:
        sink_end = left + tl.load(mk.sinks + h)
    window = FAR
    if mk.windows is not None:
        window = tl.load(mk.windows + h)
    elif mk.window is not None:
        window = mk.window
    return left, stop, prefix_end, sink_end, window


@triton.jit
def upper_width(mk, CAUSAL: tl.constexpr):
    """Row at position pos sees keys below pos + this width (before the prefix)."""
    width = FAR
    if CAUSAL:
        width = 1
    elif mk.window is not None:
        width = mk.window
    return width


@triton.jit
def visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL: tl.constexpr):
    """Which entries exist: bool, the broadcast of o_i and o_j. Rows and keys beyond the ends do not."""
    left, stop, prefix_end, sink_end, window = limits
    o_pos = o_i + offset
    m_vis = (o_j >= left) & (o_j < stop) & (o_i < NQ)
    if CAUSAL or mk.window is not None:
        m_up = o_j < o_pos + upper_width(mk, CAUSAL)
        if mk.prefix is not None:
            m_up = m_up | (o_j < prefix_end)
        m_vis = m_vis & m_up
    if mk.windows is not None or mk.window is not None:
        m_low = o_j > o_pos - window
        if mk.sinks is not None:
            m_low = m_low | (o_j < sink_end)
        m_vis = m_vis & m_low
    m_i = o_i < NQ
    m_j = o_j < NK
    if mk.row_docs is not None:
        b_row_doc = tl.load(mk.row_docs.p + b * mk.row_docs.b + o_i, mask=m_i, other=0)
        b_key_doc = tl.load(mk.key_docs.p + b * mk.key_docs.b + o_j, mask=m_j, other=0)
        m_vis = m_vis & (b_row_doc == b_key_doc)
    if mk.row_words is not None:
        b_row_word = tl.load(mk.row_words.p + b * mk.row_words.b + o_i, mask=m_i, other=0) & tl.load(mk.head_words + h)
        b_key_word = tl.load(mk.key_words.p + b * mk.key_words.b + o_j, mask=m_j, other=0)
        m_vis = m_vis & ((b_row_word & b_key_word) == 0)
    if mk.keep is not None:
        p_keep = (
            mk.keep.p
            + b * mk.keep.b
            + h * mk.keep.h
            + (o_i // mk.block_rows).to(tl.int64) * mk.keep.r
            + o_j // mk.block_keys
        )
        m_vis = m_vis & (tl.load(p_keep, mask=m_i & m_j, other=0) != 0)
    if mk.bias is not None:
        p_bias = mk.bias.p + b * mk.bias.b + h * mk.bias.h + o_i.to(tl.int64) * mk.bias.r + o_j
        m_vis = m_vis & (tl.load(p_bias, mask=m_i & m_j, other=0) > mk.bias_floor)
    if ed.key_bias is not None:
        p_bias = ed.key_bias.p + b * ed.key_bias.b + h * ed.key_bias.h + o_j
        m_vis = m_vis & (tl.load(p_bias, mask=m_j, other=0.0) > float("-inf"))
    return m_vis


@triton.jit
def member(b_word, c):
    """1.0 where bit c of a word is set, else 0.0; a select, because converting an integer costs as much as an exponential."""
    return tl.where(((b_word >> c) & 1) != 0, 1.0, 0.0)


@triton.jit
def weight(b_x, BASE_2: tl.constexpr):
    """2^x for logits in base 2, e^x for nats."""
    return tl.exp2(b_x) if BASE_2 else tl.exp2(b_x * LOG2E)


@triton.jit
def tanh(b_x):
    """Hyperbolic tangent in float32: an odd polynomial (own minimax fit, relative error 3e-9) below 0.6, exponentials above."""
    b_z = b_x * b_x
    b_poly = (((-0.00589515766 * b_z + 0.0207959713) * b_z - 0.0537838302) * b_z + 0.133319241) * b_z - 0.33333298
    b_e = tl.exp2(tl.abs(b_x) * MINUS_TWO_LOG2E)
    b_large = (1.0 - b_e) / (1.0 + b_e)
    return tl.where(tl.abs(b_x) < 0.6, b_x + b_x * b_z * b_poly, tl.where(b_x < 0, -b_large, b_large))


@triton.jit
def row_logit_scale(ed, b, h, o_i, NQ):
    """The edit's factor on the logits of each row, in the shape of o_i; 1 without one."""
    b_factor = 1.0
    if ed.logit_scale is not None:
        p_factor = ed.logit_scale.p + b * ed.logit_scale.b + h * ed.logit_scale.h + o_i.to(tl.int64) * ed.logit_scale.r
        b_factor = tl.load(p_factor, mask=o_i < NQ, other=0.0)
    return b_factor


@triton.jit
def tile_logits(b_raw, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap):
    """Final logits of a tile of raw products q.k, and the tanh of the soft-cap (the raw products without one).

    In nats; or in base 2 where `scale` holds log2 e, which it may when nothing but the scale acts on the products.
    """
    b_s = b_raw * scale
    b_tanh = b_raw
    if softcap is not None:
        b_tanh = tanh(b_s / softcap)
        b_s = b_tanh * softcap
    if mk.slopes is not None:
        b_s -= tl.load(mk.slopes + h) * tl.abs((o_i + offset).to(tl.float32) - o_j.to(tl.float32))
    if mk.bias_adds is not None:
        p_bias = mk.bias.p + b * mk.bias.b + h * mk.bias.h + o_i.to(tl.int64) * mk.bias.r + o_j
        b_s += tl.load(p_bias, mask=(o_i < NQ) & (o_j < NK), other=0.0).to(tl.float32)
    if ed.logit_scale is not None:
        b_s = b_s * b_factor
    if ed.key_bias is not None:
        p_bias = ed.key_bias.p + b * ed.key_bias.b + h * ed.key_bias.h + o_j
        b_s += tl.load(p_bias, mask=o_j < NK, other=0.0)
    return b_s, b_tanh


@triton.jit
def tile_weights(
    b_raw, b_lse, m_vis, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap, MASKED: tl.constexpr
):
    """Log-weights s - lse and weights exp(s - lse) of a tile, for sweeps that know lse (as b_lse in the shape of
    o_i, finite); and the tanh."""
    b_s, b_tanh = tile_logits(b_raw, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap)
    b_x = b_s - b_lse
    b_p = tl.exp2(b_x * LOG2E)
    if MASKED:
        b_p = tl.where(m_vis, b_p, 0.0)
    return b_x, b_p, b_tanh


@triton.jit
def load_lse(p_lse, o_i, NQ):
    """lse of rows in the shape of o_i; +inf (so that weights are 0) for rows that see nothing or do not exist."""
    b_lse = tl.load(p_lse + o_i, mask=o_i < NQ, other=float("inf"))
    return tl.where(b_lse > -float("inf"), b_lse, float("inf"))


@triton.jit
def raw_gradient(b_ds, b_tanh, ed, b_factor, softcap):
    """Gradient by the scaled products q.k from that by the final logits (the scale itself is left to the end of the sweep)."""
    if softcap is not None:
        b_ds = b_ds * (1.0 - b_tanh * b_tanh)
    if ed.logit_scale is not None:
        b_ds = b_ds * b_factor
    return b_ds


@triton.jit
def key_factor(ed, b, h, o_i, o_j, NQ, NK):
    """The edit's factor after the softmax: a tile, one factor for the set that each key is in (the last for none)."""
    p_factor = ed.factors.p + b * ed.factors.b + h * ed.factors.h + o_i.to(tl.int64) * ed.factors.r
    b_code = tl.load(ed.codes.p + b * ed.codes.b + h * ed.codes.h + o_j, mask=o_j < NK, other=0)
    return tl.load(p_factor + b_code, mask=(o_i < NQ) & (o_j < NK), other=0.0)


@triton.jit
def always_masked(mk, ed):
    """Whether any tile may hold hidden entries, so that none can be taken without looking."""
    irregular = False
    if (
        mk.row_docs is not None
        or mk.row_words is not None
        or mk.keep is not None
        or mk.bias is not None
        or ed.key_bias is not None
    ):
        irregular = True
    return irregular


@triton.jit
def key_tile_ranges(mk, ed, limits, i0, rows, NQ, NK, offset, reach, CAUSAL: tl.constexpr, BN: tl.constexpr):
    """Key tiles of the rows [i0, i0 + rows): three ranges of masked tiles and between the last two the tiles that are wholly visible.

    Returns sink_first, sink_end, near_first, full_first, full_end, end: masked are [sink_first, sink_end), [near_first, full_first) and
    [full_end, end); full are [full_first, full_end). Keys closer than `reach` to a row count as masked (window sums look at them).
    """
    left, stop, prefix_end, sink_end, window = limits
    first = i0 + offset
    last = tl.minimum(i0 + rows, NQ) - 1 + offset
    low = left
    high = stop
    full_low = left
    full_high = stop
    if CAUSAL or mk.window is not None:
        width = upper_width(mk, CAUSAL)
        high = tl.minimum(stop, tl.maximum(last + width, prefix_end))
        full_high = tl.minimum(stop, tl.maximum(first + width, prefix_end))
    sink_first_tile = left // BN
    sink_end_tile = left // BN
    if mk.windows is not None or mk.window is not None:
        low = tl.maximum(left, first - window + 1)
        full_low = tl.maximum(left, last - window + 1)
        if mk.sinks is not None:
            sink_end_tile = tl.maximum(tl.cdiv(tl.minimum(sink_end, high), BN), sink_first_tile)
    full_high = tl.minimum(full_high, first - reach + 1)
    end_tile = tl.cdiv(tl.maximum(high, 0), BN)
    near_tile = tl.minimum(tl.maximum(low // BN, sink_end_tile), end_tile)
    near_tile = tl.maximum(near_tile, sink_end_tile)
    end_tile = tl.maximum(end_tile, near_tile)
    full_tile = tl.minimum(tl.maximum(tl.cdiv(full_low, BN), near_tile), end_tile)
    full_end_tile = tl.maximum(tl.minimum(tl.maximum(full_high, 0) // BN, end_tile), full_tile)
    if always_masked(mk, ed):
        full_end_tile = full_tile
    return sink_first_tile, sink_end_tile, near_tile, full_tile, full_end_tile, end_tile


@triton.jit
def row_tile_ranges(mk, ed, limits, j0, keys, NQ, NK, offset, CAUSAL: tl.constexpr, BM: tl.constexpr):
    """Row tiles that see the keys [j0, j0 + keys): first, full_first, full_end, end; masked are the tiles outside
    [full_first, full_end)."""
    left, stop, prefix_end, sink_end, window = limits
    j1 = j0 + keys
    low = 0
    high = NQ
    full_low = 0
    full_high = NQ
    if CAUSAL or mk.window is not None:
        width = upper_width(mk, CAUSAL)
        # Row i sees key j from i = j - width + 1 - offset on; keys of the prefix are seen by every row.
        low = tl.where(j0 < prefix_end, 0, tl.maximum(j0 - width + 1 - offset, 0))
        full_low = tl.where(j1 <= prefix_end, 0, tl.maximum(j1 - width - offset, 0))
    if mk.windows is not None or mk.window is not None:
        high = tl.minimum(NQ, tl.maximum(j1 - 1 + window - offset, 0))
        full_high = tl.minimum(NQ, tl.maximum(j0 + window - offset, 0))
        if mk.sinks is not None:
            high = tl.where(j0 < sink_end, NQ, high)
            full_high = tl.where(j1 <= sink_end, NQ, full_high)
    nothing = (j0 >= stop) | (j1 <= left)
    ragged = (j0 < left) | (j1 > stop)
    end_tile = tl.where(nothing, 0, tl.cdiv(high, BM))
    first_tile = tl.minimum(low // BM, end_tile)
    full_tile = tl.minimum(tl.maximum(tl.cdiv(full_low, BM), first_tile), end_tile)
    full_end_tile = tl.maximum(tl.minimum(full_high // BM, end_tile), full_tile)
    full_end_tile = tl.where(ragged, full_tile, full_end_tile)
    if always_masked(mk, ed):
        full_end_tile = full_tile
    return first_tile, full_tile, full_end_tile, end_tile


@triton.jit
def masked_tile(t, sink_first, sink_end, near, full, full_end):
    """Number of the t-th masked key tile of `key_tile_ranges`."""
    sinks = sink_end - sink_first
    before = sinks + full - near
    return tl.where(t < sinks, sink_first + t, tl.where(t < before, near + t - sinks, full_end + t - before))


@triton.jit
def product(b_a, b_b, b_acc, PRECISION: tl.constexpr):
    """b_a times b_b (plus b_acc) in float32. The interpreter cannot multiply bfloat16: "widened" gives it the same numbers in float32."""
    if PRECISION == "widened":
        b_ab = tl.dot(b_a.to(tl.float32), b_b.to(tl.float32), b_acc, input_precision="ieee")
    else:
        b_ab = tl.dot(b_a, b_b, b_acc, input_precision=PRECISION)
    return b_ab


@triton.jit
def load_rows(p_x, o_row, o_col, stride, rows, cols, MASK_ROWS: tl.constexpr, MASK_COLS: tl.constexpr):
    """A tile of rows, zero beyond the ends; o_row and o_col are broadcastable, the feature stride is 1."""
    p_tile = p_x + o_row.to(tl.int64) * stride + o_col
    if MASK_ROWS and MASK_COLS:
        b_x = tl.load(p_tile, mask=(o_row < rows) & (o_col < cols), other=0.0)
    elif MASK_ROWS:
        b_x = tl.load(p_tile, mask=o_row < rows, other=0.0)
    elif MASK_COLS:
        b_x = tl.load(p_tile, mask=o_col < cols, other=0.0)
    else:
        b_x = tl.load(p_tile)
    return b_x
