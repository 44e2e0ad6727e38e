"""The definition of `entries`: look the pairs up in the dense float64 map."""

from __future__ import annotations

from torch import Tensor

from interp_kernels.attention.reference import fits
from interp_kernels.columns.reference import dense_map
from interp_kernels.entries.api import EntriesCall


def supports(call: EntriesCall) -> tuple[bool, str]:
    """Whether the dense map is small enough; the reason when not."""
    return fits(call.problem)


def run(call: EntriesCall) -> Tensor:
    """float64 [B, H, E]."""
    return dense_map(call.problem, call.lse)[:, :, call.i, call.j]
