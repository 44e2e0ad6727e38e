"""The C++ backend of `entries`: one dot product an entry, float32."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels import cpp_ops
from interp_kernels.entries.api import EntriesCall
from interp_kernels.flatten import FlatProblem, servable


def supports(call: EntriesCall) -> tuple[bool, str]:
    """Whether this backend can serve the call, and why not. Builds the kernels at its first use."""
    ok, why = servable(call.problem)
    return cpp_ops.ready() if ok else (ok, why)


@torch.no_grad()
def run(call: EntriesCall) -> Tensor:
    """The weights, float32 [B, H, E]."""
    flat = FlatProblem.of(call.problem)
    return torch.ops.interp_kernels_cpu.entries(
        *flat.arguments(), call.lse.float().contiguous(), call.i.contiguous(), call.j.contiguous()
    )
