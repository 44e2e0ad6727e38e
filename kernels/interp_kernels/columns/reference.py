"""The definition of `columns` in plain torch: the dense map exp(s - lse) in float64, then sums. Small problems only; O(Nq Nk) memory."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels.attention.reference import dense_logits, fits
from interp_kernels.columns.api import ColumnsCall
from interp_kernels.spec.collect import HISTOGRAM_BINS
from interp_kernels.spec.problem import Problem


def supports(call: ColumnsCall) -> tuple[bool, str]:
    """Whether the dense map is small enough; the reason when not."""
    return fits(call.problem)


def dense_map(problem: Problem, lse: Tensor) -> Tensor:
    """The whole map exp(s - lse), float64 [B, H, Nq, Nk]; 0 where hidden and in empty rows."""
    lse = lse.double()
    return torch.exp(dense_logits(problem) - lse.masked_fill(lse == float("-inf"), 0.0)[..., None])


def run(call: ColumnsCall) -> dict[str, Tensor]:
    """The sums asked for, float64."""
    p, wish = call.problem, call.collect
    prob = dense_map(p, call.lse)
    rows = call.rows[:, None].double()
    stats: dict[str, Tensor] = {}
    if wish.received:
        stats["received"] = rows @ prob
    if wish.diagonals:
        i = torch.arange(p.queries, device=prob.device)[:, None]
        number = i - torch.arange(p.keys, device=prob.device) + p.keys - 1
        weighted = rows[..., None] * prob[:, :, None]
        stats["diagonals"] = weighted.new_zeros(*weighted.shape[:3], p.queries + p.keys - 1).index_add(
            -1, number.flatten(), weighted.flatten(-2)
        )
    if wish.block:
        high, wide = -(-p.queries // wish.block), -(-p.keys // wish.block)
        pad = (0, wide * wish.block - p.keys, 0, high * wish.block - p.queries)
        cells = torch.nn.functional.pad(prob, pad).view(p.batch, p.heads, high, wish.block, wide, wish.block)
        stats["block_sum"], stats["block_max"] = cells.sum((3, 5)), cells.amax((3, 5))
    if wish.histogram:
        number = (-torch.log2(prob)).floor().clamp(0, HISTOGRAM_BINS - 1)
        there = [(number == b) & (prob > 0) for b in range(HISTOGRAM_BINS)]
        stats["histogram_count"] = torch.stack([(rows @ x.double()).sum(-1) for x in there], -1)
        stats["histogram_mass"] = torch.stack([(rows @ (prob * x)).sum(-1) for x in there], -1)
    return stats
