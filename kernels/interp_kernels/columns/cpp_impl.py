"""The C++ backend of `columns`: a key-major sweep in which every sum over rows belongs to one thread; float64 totals of float32 weights."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels import cpp_ops
from interp_kernels.columns.api import ColumnsCall
from interp_kernels.flatten import FlatProblem, servable

_NAMES = ("received", "diagonals", "block_sum", "block_max", "histogram_count", "histogram_mass")


def supports(call: ColumnsCall) -> tuple[bool, str]:
    """Whether this backend can serve the call, and why not. Builds the kernels at its first use."""
    ok, why = servable(call.problem)
    return cpp_ops.ready() if ok else (ok, why)


@torch.no_grad()
def run(call: ColumnsCall) -> dict[str, Tensor]:
    """The sums asked for, float32 (counts float64, which holds them exactly)."""
    flat = FlatProblem.of(call.problem)
    wish, subsets = call.collect, call.rows.shape[1]
    bit = 2 ** torch.arange(subsets, dtype=torch.int32)[:, None]
    results = torch.ops.interp_kernels_cpu.columns(
        *flat.arguments(),
        call.lse.float().contiguous(),
        (call.rows * bit).sum(1).to(torch.uint8).contiguous(),
        subsets,
        wish.received,
        wish.diagonals,
        wish.block,
        wish.histogram,
    )
    stats = {name: x for name, x in zip(_NAMES, results, strict=True) if x.ndim > 1}
    if wish.histogram:
        stats["histogram_count"] = stats["histogram_count"].double()
    return stats
