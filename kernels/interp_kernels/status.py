"""What each backend can do on this machine and why not: the content of the command `interp kernels`, which also builds ahead of time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from interp_kernels import build as builder
from interp_kernels import cpp_ops
from interp_kernels.attention.api import IMPLEMENTATIONS, attention_call
from interp_kernels.dispatch import verdicts
from interp_kernels.spec.mask import Mask

_SUMMARY = {
    "cpu": "C++ kernels, fused, built on first use",
    "triton": "Triton kernels for CUDA and ROCm",
    "portable": "torch's own fused attention and exact identities, any device",
    "reference": "dense float64, for small problems and for tests",
}


@dataclass(frozen=True, kw_only=True)
class BackendStatus:
    """One backend: whether it works here (for `cpu` before its build: whether it can be built), why not, and facts about it by name."""

    backend: str
    summary: str
    works: bool
    reason: str
    details: dict[str, str] = field(default_factory=dict[str, str])


def status() -> list[BackendStatus]:
    """Every backend, fastest first. Builds nothing."""
    return [_cpu() if name == "cpu" else _asked(name) for name in IMPLEMENTATIONS]


def build(progress: builder.Progress | None = None) -> BackendStatus:
    """Build the C++ kernels now (nothing to do where the cache holds them); `progress` gets one line, by default it goes to stderr."""
    cpp_ops.ready(progress)
    return _cpu()


def _cpu() -> BackendStatus:
    tools = builder.toolchain()
    details = {
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": _bfloat16(),
        "threads": str(torch.get_num_threads()),
        "cache": str(builder.cache_folder()),
    }
    reason = builder.failure() or ""
    if isinstance(tools, str):
        reason = reason or tools
    else:
        path = builder.library(tools)
        details |= {
            "compiler": tools.version,
            "library": str(path),
            "built": "yes" if path.exists() else "no, on first use",
        }
    return BackendStatus(backend="cpu", summary=_SUMMARY["cpu"], works=not reason, reason=reason, details=details)


def _bfloat16() -> str:
    if not builder.is_loaded():
        return "known once the kernels are loaded"
    if cpp_ops.bfloat16_path() == "native":
        return "the processor's bfloat16 products (AMX or AVX512_BF16), float32 sums"
    return "widened to float32: this processor gains nothing by bfloat16 products"


def _asked(name: str) -> BackendStatus:
    """Ask a backend about the smallest call on the device it is for."""
    device = "cuda" if name == "triton" and torch.cuda.is_available() else "cpu"
    q = torch.zeros(1, 1, 1, 16, device=device)
    call = attention_call(
        q, q, q, mask=Mask.causal(), scale=None, softcap=None, sink_logits=None, edit=None, collect=None
    )
    try:
        verdict = verdicts({name: IMPLEMENTATIONS[name]}, call)[0]
    except ModuleNotFoundError as missing:
        return BackendStatus(backend=name, summary=_SUMMARY[name], works=False, reason=str(missing))
    details = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    return BackendStatus(backend=name, summary=_SUMMARY[name], works=verdict.ok, reason=verdict.reason, details=details)
