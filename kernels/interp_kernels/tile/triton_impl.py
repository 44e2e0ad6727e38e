"""`tile` on Triton (CUDA, ROCm; the interpreter on CPU): see `triton_pool`. Triton is imported when a call runs, never before."""

from __future__ import annotations

import importlib

from torch import Tensor

from interp_kernels.tile.api import TileCall
from interp_kernels.triton_args import refusal


def supports(call: TileCall) -> tuple[bool, str]:
    """Whether Triton can serve the call, and if not, why."""
    why = refusal(call.problem)
    return not why, why


def run(call: TileCall) -> Tensor:
    """Float32 picture [B, H, height, width]: cell by cell where every pixel is one cell, else pooled."""
    pool = importlib.import_module("interp_kernels.triton_pool")
    height, width = call.rows.stop - call.rows.start, call.cols.stop - call.cols.start
    if len(call.row_edges) - 1 == height and len(call.col_edges) - 1 == width:
        return pool.cells(call.problem, call.lse, call.rows, call.cols)
    is_mean = call.pool == "mean"
    total, largest = pool.pooled(
        call.problem, call.lse, call.row_edges, call.col_edges, want_sum=is_mean, want_max=not is_mean
    )
    if not is_mean:
        return largest
    return total / (call.row_edges.diff()[:, None] * call.col_edges.diff()[None, :])
