"""The C++ backend of `tile`: the rectangle is swept in tiles and pooled at once; O(pixels) memory, float64 sums of float32 weights."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels import cpp_ops
from interp_kernels.flatten import FlatProblem, servable
from interp_kernels.tile.api import TileCall


def supports(call: TileCall) -> tuple[bool, str]:
    """Whether this backend can serve the call, and why not. Builds the kernels at its first use."""
    ok, why = servable(call.problem)
    return cpp_ops.ready() if ok else (ok, why)


@torch.no_grad()
def run(call: TileCall) -> Tensor:
    """The pixels, float32 [B, H, height, width]."""
    flat = FlatProblem.of(call.problem)
    return torch.ops.interp_kernels_cpu.tile(
        *flat.arguments(),
        call.lse.float().contiguous(),
        call.row_edges.contiguous(),
        call.col_edges.contiguous(),
        call.pool == "max",
    )
