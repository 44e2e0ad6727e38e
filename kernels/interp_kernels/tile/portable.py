"""`tile` in plain torch on any device: only the rows and keys of the rectangle, by row blocks, pooled as they pass. No gradients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from interp_kernels.row_blocks import block_entries
from interp_kernels.scores import block_scores
from interp_kernels.tile.api import TileCall
from interp_kernels.visibility import Span


def supports(call: TileCall) -> tuple[bool, str]:
    """Everything."""
    return True, ""


def run(call: TileCall) -> Tensor:
    """[B, H, height, width] in the working dtype."""
    dtype = call.problem.work_dtype
    p = replace(call.problem, q=call.problem.q.to(dtype), k=call.problem.k.to(dtype))
    row_edges, col_edges = call.row_edges, call.col_edges
    height, width = len(row_edges) - 1, len(col_edges) - 1
    picture = p.q.new_zeros((p.batch, p.heads, height, width), dtype=dtype)
    cols, there = _columns_of_bins(col_edges, call.cols.start)
    step = max(1, block_entries(p.q.device) // max(1, p.batch * p.heads * (call.cols.stop - call.cols.start)))
    with torch.no_grad():
        for start in range(call.rows.start, call.rows.stop, step):
            rows = Span(start, min(start + step, call.rows.stop))
            lse = call.lse[:, :, rows.start : rows.stop].to(dtype)
            s = block_scores(p, rows, call.cols, dtype)
            prob = s.sub_(lse.masked_fill(lse == float("-inf"), 0.0)[..., None]).exp_()
            binned = prob[..., cols] * there
            line = torch.bucketize(rows.arange(prob.device), row_edges, right=True) - 1
            if call.pool == "mean":
                picture.index_add_(2, line, binned.sum(-1))
            else:
                largest = binned.amax(-1)
                picture.scatter_reduce_(2, line[:, None].expand_as(largest), largest, "amax")
    if call.pool == "max":
        return picture
    cells = row_edges.diff()[:, None] * col_edges.diff()
    return picture / cells


def _columns_of_bins(edges: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The columns of every bin, counted from `start`, int64 [width, widest bin], and which of these places are real."""
    sizes = edges.diff()
    place = torch.arange(int(sizes.max()), device=edges.device)
    there = place < sizes[:, None]
    return (edges[:-1, None] - start + place).where(there, 0), there
