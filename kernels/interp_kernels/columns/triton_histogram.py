"""Histogram of -log2 p over row subsets: a row-major sweep that keeps 32 counts and 32 masses a row; the rows are
added by torch at the end.

Costs about 130 operations an entry (each of 32 bins looks at each entry twice), far more than the products; it is
for pictures, not for training.
Counts are sums of ones in float32, exact up to 2^24 an entry row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from interp_kernels.spec.collect import HISTOGRAM_BINS
from interp_kernels.spec.problem import Problem
from interp_kernels.triton_masks import (
    LOG2E,
    head_limits,
    key_tile_ranges,
    load_lse,
    load_rows,
    product,
    row_logit_scale,
    tile_weights,
    visible_tile,
)
from interp_kernels.triton_tiles import launch, map_args, row_lse


@triton.jit
def columns_histogram_kernel(
    p_q, p_k, p_lse, p_count, p_mass, mk, ed, H, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, BINS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BINS of the 32 bins of BM rows of one head. Grid: row tiles, B * H, groups of bins."""
    bh = tl.program_id(1).to(tl.int64)
    b = bh // H
    h = bh % H
    bin0 = tl.program_id(2) * BINS
    i0 = tl.program_id(0) * BM
    o_m = i0 + tl.arange(0, BM)
    o_i = o_m[:, None]
    o_d = tl.arange(0, BD)
    b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, o_d[None, :], p_q.r, NQ, D, True, True)
    b_lse = load_lse(p_lse + bh * NQ, o_i, NQ)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    limits = head_limits(mk, b, h, NK)
    sink_first, sink_end, near, _full, _full_end, end = key_tile_ranges(
        mk, ed, limits, i0, BM, NQ, NK, offset, 0, CAUSAL, BN
    )
    counts = ()
    masses = ()
    for _c in tl.static_range(BINS):
        counts = counts + (tl.zeros([BM], tl.float32),)
        masses = masses + (tl.zeros([BM], tl.float32),)
    sinks = sink_end - sink_first
    for index in range(0, sinks + end - near):
        tile = tl.where(index < sinks, sink_first + index, near + index - sinks)
        o_j = (tile * BN + tl.arange(0, BN))[None, :]
        b_k = load_rows(p_k.p + b * p_k.b + (h // group) * p_k.h, o_j, o_d[:, None], p_k.r, NK, D, True, True)
        b_raw = product(b_q, b_k, None, PRECISION)
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
        b_x, b_p, _tanh = tile_weights(
            b_raw, b_lse, m_vis, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap, True
        )
        # Hidden entries fall into no bin; weights that float32 takes for 0 are smaller than 2^-31 all the same.
        b_bin = tl.where(m_vis & (b_x > -float("inf")), tl.minimum(tl.maximum(-b_x * LOG2E, 0.0), 31.0), -1.0)
        b_bin = tl.floor(b_bin)
        more_counts = ()
        more_masses = ()
        for c in tl.static_range(BINS):
            m_bin = b_bin == (bin0 + c)
            more_counts = more_counts + (counts[c] + tl.sum(m_bin.to(tl.float32), 1),)
            more_masses = more_masses + (masses[c] + tl.sum(tl.where(m_bin, b_p, 0.0), 1),)
        counts = more_counts
        masses = more_masses
    for c in tl.static_range(BINS):
        o_row = (bh * 32 + bin0 + c) * NQ + o_m
        tl.store(p_count + o_row, counts[c], mask=o_m < NQ)
        tl.store(p_mass + o_row, masses[c], mask=o_m < NQ)


def histogram(problem: Problem, lse: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Counts and masses, float32 [B, H, S, 32], of visible entries with p > 0 by bin min(31, floor(-log2 p))."""
    p = problem
    shape = (p.batch, p.heads, HISTOGRAM_BINS, p.queries)
    count, mass = (torch.empty(shape, dtype=torch.float32, device=p.q.device) for _ in range(2))
    args = map_args(p) | {"p_lse": row_lse(lse)}
    bins = 8
    launch(
        columns_histogram_kernel,
        "columns_histogram",
        lambda meta: (triton.cdiv(p.queries, meta["BM"]), p.batch * p.heads, HISTOGRAM_BINS // bins),
        args["BD"],
        p.q.dtype,
        {"p_count": count, "p_mass": mass, "BINS": bins, **args},
    )
    members = rows.to(torch.float32).expand(p.batch, -1, -1)[:, None]
    return members @ count.mT, members @ mass.mT
