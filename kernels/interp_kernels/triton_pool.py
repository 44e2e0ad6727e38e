"""Weights pooled over rectangles of the map, from (q, k, lse): the kernel behind `tile` and behind the block sums and maxima of `columns`.

One program a pixel: it walks its rectangle in BM x BN tiles and writes one sum and one maximum, so there is nothing
to add atomically. A tile
that no row of the rectangle can see is not computed. Pixels smaller than a tile waste the rest of it (a tensor core
takes at least 16 x 16);
rectangles of at most one cell a pixel go to `cells_fwd_kernel`, which writes its whole tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.triton_masks import (
    head_limits,
    key_tile_ranges,
    load_lse,
    load_rows,
    product,
    row_logit_scale,
    tile_weights,
    visible_tile,
)
from interp_kernels.triton_tiles import launch, map_args, padded, row_lse
from interp_kernels.visibility import Span


@triton.jit
def _weights_of(
    p_q, p_k, p_lse, mk, ed, limits, b, h, bh, o_i, o_j, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Weights of the tile of rows o_i [BM, 1] and keys o_j [1, BN]; 0 where hidden."""
    o_d = tl.arange(0, BD)
    b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, o_d[None, :], p_q.r, NQ, D, True, True)
    b_k = load_rows(p_k.p + b * p_k.b + (h // group) * p_k.h, o_j, o_d[:, None], p_k.r, NK, D, True, True)
    b_raw = product(b_q, b_k, None, PRECISION)
    m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    b_lse = load_lse(p_lse + bh * NQ, o_i, NQ)
    _x, b_p, _tanh = tile_weights(
        b_raw, b_lse, m_vis, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap, True
    )
    return b_p


@triton.jit
def pool_fwd_kernel(
    p_q, p_k, p_lse, p_row_edges, p_col_edges, p_sum, p_max, mk, ed, H, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum and maximum of one pixel. Grid: columns of pixels, rows of pixels, B * H."""
    x = tl.program_id(0)
    y = tl.program_id(1)
    bh = tl.program_id(2).to(tl.int64)
    b = bh // H
    h = bh % H
    row_first = tl.load(p_row_edges + y)
    row_stop = tl.load(p_row_edges + y + 1)
    col_first = tl.load(p_col_edges + x)
    col_stop = tl.load(p_col_edges + x + 1)
    limits = head_limits(mk, b, h, NK)
    # [1]-shaped sums: a scalar cannot be carried through the loops in the interpreter.
    b_sum = tl.zeros([BM], tl.float32)
    b_max = tl.zeros([BM], tl.float32)
    for i0 in range(row_first, row_stop, BM):
        o_i = (i0 + tl.arange(0, BM))[:, None]
        rows = tl.minimum(row_stop - i0, BM)
        ranges = key_tile_ranges(mk, ed, limits, i0, rows, NQ, NK, offset, 0, CAUSAL, BN)
        sink_first, sink_end, near, _full, _full_end, end = ranges
        for j0 in range(col_first, col_stop, BN):
            last = tl.minimum(j0 + BN, col_stop) - 1
            near_ones = (j0 // BN < end) & (last // BN >= near)
            sink_ones = (j0 // BN < sink_end) & (last // BN >= sink_first)
            if near_ones | sink_ones:
                o_j = (j0 + tl.arange(0, BN))[None, :]
                b_p = _weights_of(
                    p_q, p_k, p_lse, mk, ed, limits, b, h, bh, o_i, o_j, NQ, NK, D, group, offset, scale, softcap,
                    CAUSAL, BD, PRECISION,
                )  # fmt: skip
                b_p = tl.where((o_i < row_stop) & (o_j < col_stop), b_p, 0.0)
                b_sum += tl.sum(b_p, 1)
                b_max = tl.maximum(b_max, tl.max(b_p, 1))
    o_pixel = (bh * tl.num_programs(1) + y) * tl.num_programs(0) + x
    if p_sum is not None:
        tl.store(p_sum + o_pixel, tl.sum(b_sum, 0))
    if p_max is not None:
        tl.store(p_max + o_pixel, tl.max(b_max, 0))


@triton.jit
def cells_fwd_kernel(
    p_q, p_k, p_lse, p_cell, mk, ed, row_first, row_stop, col_first, col_stop, H, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The weights of a rectangle, cell by cell. Grid: tiles of keys, tiles of rows, B * H."""
    bh = tl.program_id(2).to(tl.int64)
    b = bh // H
    h = bh % H
    o_i = (row_first + tl.program_id(1) * BM + tl.arange(0, BM))[:, None]
    o_j = (col_first + tl.program_id(0) * BN + tl.arange(0, BN))[None, :]
    b_p = _weights_of(
        p_q, p_k, p_lse, mk, ed, head_limits(mk, b, h, NK), b, h, bh, o_i, o_j, NQ, NK, D, group, offset, scale, softcap,
        CAUSAL, BD, PRECISION,
    )  # fmt: skip
    width = col_stop - col_first
    o_cell = (bh * (row_stop - row_first) + o_i - row_first) * width + o_j - col_first
    tl.store(p_cell + o_cell, b_p, mask=(o_i < row_stop) & (o_j < col_stop))


def pooled(
    problem: Problem, lse: Tensor, row_edges: Tensor, col_edges: Tensor, *, want_sum: bool, want_max: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Sum and maximum of the weights in every rectangle between edges (int64 [n + 1] each): float32 [B, H, rows, columns] or None."""
    p = problem
    shape = (p.batch, p.heads, len(row_edges) - 1, len(col_edges) - 1)
    total = torch.empty(shape, dtype=torch.float32, device=p.q.device) if want_sum else None
    largest = torch.empty(shape, dtype=torch.float32, device=p.q.device) if want_max else None
    own = {
        "p_row_edges": row_edges.to(torch.int32),
        "p_col_edges": col_edges.to(torch.int32),
        "p_sum": total,
        "p_max": largest,
    }
    launch(
        pool_fwd_kernel,
        "pool_fwd",
        lambda meta: (shape[3], shape[2], p.batch * p.heads),
        padded(p.q.shape[3]),
        p.q.dtype,
        {**own, **map_args(p), "p_lse": row_lse(lse)},
    )
    return total, largest


def cells(problem: Problem, lse: Tensor, rows: Span, cols: Span) -> Tensor:
    """The weights of a rectangle, float32 [B, H, rows, columns]."""
    p = problem
    height, width = rows.stop - rows.start, cols.stop - cols.start
    cell = torch.empty(p.batch, p.heads, height, width, dtype=torch.float32, device=p.q.device)
    own = {
        "p_cell": cell,
        "row_first": rows.start,
        "row_stop": rows.stop,
        "col_first": cols.start,
        "col_stop": cols.stop,
    }
    launch(
        cells_fwd_kernel,
        "pool_fwd",
        lambda meta: (triton.cdiv(width, meta["BN"]), triton.cdiv(height, meta["BM"]), p.batch * p.heads),
        padded(p.q.shape[3]),
        p.q.dtype,
        {**own, **map_args(p), "p_lse": row_lse(lse)},
    )
    return cell
