"""`entries` on Triton (CUDA, ROCm; the interpreter on CPU): see `triton_kernel`. Triton is imported when a call runs, never before."""

from __future__ import annotations

import importlib

from torch import Tensor

from interp_kernels.entries.api import EntriesCall
from interp_kernels.triton_args import refusal


def supports(call: EntriesCall) -> tuple[bool, str]:
    """Whether Triton can serve the call, and if not, why."""
    why = refusal(call.problem)
    return not why, why


def run(call: EntriesCall) -> Tensor:
    """Float32 weights [B, H, E]."""
    kernel = importlib.import_module("interp_kernels.entries.triton_kernel")
    return kernel.weights_at(call.problem, call.lse, call.i, call.j)
