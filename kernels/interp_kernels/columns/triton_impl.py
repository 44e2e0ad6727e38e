"""`columns` on Triton (CUDA, ROCm; the interpreter on CPU). Triton is imported when a call runs, never before.

Each kind of sum has a sweep of its own over (q, k, lse): received (`triton_received`), diagonals (`triton_diagonals`), histogram
(`triton_histogram`), blocks (`triton_pool`). None uses atomics, so results repeat bit for bit.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from interp_kernels.columns.api import ColumnsCall
from interp_kernels.triton_args import refusal


def supports(call: ColumnsCall) -> tuple[bool, str]:
    """Whether Triton can serve the call, and if not, why."""
    why = refusal(call.problem)
    return not why, why


def run(call: ColumnsCall) -> dict[str, Tensor]:
    """The float32 sums that the call's `ColumnCollect` names."""
    p, wish = call.problem, call.collect
    stats: dict[str, Tensor] = {}
    if wish.received:
        sweep = importlib.import_module("interp_kernels.columns.triton_received")
        stats["received"] = sweep.received(p, call.lse, call.rows)
    if wish.diagonals:
        sweep = importlib.import_module("interp_kernels.columns.triton_diagonals")
        stats["diagonals"] = sweep.diagonals(p, call.lse, call.rows)
    if wish.histogram:
        sweep = importlib.import_module("interp_kernels.columns.triton_histogram")
        stats["histogram_count"], stats["histogram_mass"] = sweep.histogram(p, call.lse, call.rows)
    if wish.block:
        pool = importlib.import_module("interp_kernels.triton_pool")
        edges = (_edges(n, wish.block, p.q.device) for n in (p.queries, p.keys))
        stats["block_sum"], stats["block_max"] = pool.pooled(p, call.lse, *edges, want_sum=True, want_max=True)
    return stats


def _edges(length: int, block: int, device: torch.device) -> Tensor:
    return (torch.arange(-(-length // block) + 1, device=device) * block).clamp(max=length)
