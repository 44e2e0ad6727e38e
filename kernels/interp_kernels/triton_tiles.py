"""Tile sizes, warps and pipeline stages of every Triton kernel: data, in one place, and the launcher that reads it.

The candidates come from compiling for sm_80, sm_90, sm_100 and gfx942 and keeping what neither spills nor passes a chip's shared memory
(`python tests/kernel_ops/support/triton_compile.py --table`); on a GPU the first call of each kind times them and keeps the fastest.
"""

# Triton has no type stubs, and torch leaves parts of its device and library interfaces untyped.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.triton_args import interpreted, lower_edit, lower_mask, strided


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """One way to launch a kernel: the constants BM and BN, warps, stages."""

    BM: int
    BN: int
    warps: int
    stages: int


def _t(bm: int, bn: int, warps: int, stages: int) -> Tiling:
    return Tiling(BM=bm, BN=bn, warps=warps, stages=stages)


# (kernel, platform, padded head dim up to) -> candidates for 16-bit inputs, the safest first. float32 takes the row "float32".
TILINGS: dict[tuple[str, str, int], tuple[Tiling, ...]] = {
    ("attention_fwd", "cuda", 64): (_t(64, 64, 4, 3), _t(128, 64, 8, 3)),
    ("attention_fwd", "cuda", 128): (_t(64, 64, 4, 2), _t(128, 64, 8, 2)),
    ("attention_fwd", "cuda", 256): (_t(64, 32, 8, 1),),
    ("attention_fwd", "hip", 128): (_t(64, 32, 4, 1),),
    ("attention_fwd", "hip", 256): (_t(64, 32, 4, 1),),
    ("attention_fwd_full", "cuda", 64): (_t(64, 32, 4, 2),),
    ("attention_fwd_full", "cuda", 128): (_t(128, 16, 8, 2),),
    ("attention_fwd_full", "cuda", 256): (_t(16, 64, 8, 1),),
    ("attention_fwd_full", "hip", 128): (_t(64, 32, 4, 1),),
    ("attention_fwd_full", "hip", 256): (_t(16, 32, 4, 1),),
    ("attention_split", "cuda", 64): (_t(16, 64, 4, 2),),
    ("attention_split", "cuda", 128): (_t(16, 32, 4, 2),),
    ("attention_split", "cuda", 256): (_t(16, 32, 4, 1),),
    ("attention_split", "hip", 128): (_t(16, 64, 4, 1),),
    ("attention_split", "hip", 256): (_t(16, 32, 4, 1),),
    ("attention_join", "cuda", 256): (_t(16, 16, 4, 1),),
    ("attention_join", "hip", 256): (_t(16, 16, 4, 1),),
    ("attention_topk", "cuda", 256): (_t(16, 64, 4, 2),),
    ("attention_topk", "hip", 256): (_t(16, 64, 4, 1),),
    ("attention_dq", "cuda", 64): (_t(64, 64, 4, 2),),
    ("attention_dq", "cuda", 128): (_t(64, 32, 4, 2),),
    ("attention_dq", "cuda", 256): (_t(32, 32, 8, 1),),
    ("attention_dq", "hip", 64): (_t(64, 64, 4, 1),),
    ("attention_dq", "hip", 128): (_t(64, 32, 4, 1),),
    ("attention_dq", "hip", 256): (_t(16, 32, 4, 1),),
    ("attention_dkdv", "cuda", 64): (_t(64, 32, 4, 3),),
    ("attention_dkdv", "cuda", 128): (_t(64, 32, 8, 1), _t(32, 32, 4, 1)),
    ("attention_dkdv", "cuda", 256): (_t(32, 32, 8, 1),),
    ("attention_dkdv", "hip", 64): (_t(64, 32, 4, 1),),
    ("attention_dkdv", "hip", 128): (_t(64, 32, 4, 1),),
    ("attention_dkdv", "hip", 256): (_t(16, 32, 4, 1),),
    ("columns_received", "cuda", 128): (_t(64, 64, 4, 3), _t(64, 128, 8, 3)),
    ("columns_received", "cuda", 256): (_t(32, 64, 4, 2),),
    ("columns_received", "hip", 128): (_t(64, 64, 4, 1),),
    ("columns_received", "hip", 256): (_t(32, 32, 8, 1),),
    ("columns_diagonal", "cuda", 128): (_t(32, 32, 4, 1),),
    ("columns_diagonal", "cuda", 256): (_t(32, 32, 8, 1),),
    ("columns_diagonal", "hip", 128): (_t(32, 32, 4, 1),),
    ("columns_diagonal", "hip", 256): (_t(32, 32, 8, 1),),
    ("columns_histogram", "cuda", 128): (_t(64, 32, 4, 1),),
    ("columns_histogram", "cuda", 256): (_t(32, 32, 8, 1),),
    ("columns_histogram", "hip", 128): (_t(64, 64, 4, 1),),
    ("columns_histogram", "hip", 256): (_t(32, 32, 8, 1),),
    ("pool_fwd", "cuda", 256): (_t(32, 32, 4, 1),),
    ("pool_fwd", "hip", 256): (_t(32, 32, 4, 1),),
    ("entries_fwd", "cuda", 256): (_t(16, 16, 4, 1),),
    ("entries_fwd", "hip", 256): (_t(16, 16, 4, 1),),
}
# Products of float32 in full precision run on CUDA cores and unroll into registers: small tiles only.
_FLOAT32_KERNELS = (
    "attention_fwd",
    "attention_fwd_full",
    "attention_split",
    "attention_topk",
    "attention_dq",
    "attention_dkdv",
    "columns_received",
    "columns_diagonal",
    "columns_histogram",
    "pool_fwd",
)
TILINGS.update(
    {
        (f"{kernel}.float32", platform, width): (tiling,)
        for kernel in _FLOAT32_KERNELS
        for platform, width, tiling in (
            ("cuda", 64, _t(16, 16, 4, 1) if kernel == "attention_topk" else _t(32, 32, 8, 1)),
            ("cuda", 256, _t(16, 16, 4, 1)),
            ("hip", 256, _t(16, 16, 4, 1)),
        )
    }
)
# The interpreter pays per tile, not per entry; 16 is the least that a tensor core takes, so small tests cross tile borders.
INTERPRETED = _t(16, 16, 4, 1)


def tilings(kernel: str, platform: str, width: int, dtype: torch.dtype) -> tuple[Tiling, ...]:
    """Candidates for a kernel on "cuda" or "hip" with head dims up to `width`."""
    own = f"{kernel}.float32"
    name = own if dtype == torch.float32 and any(known == own for known, _, _ in TILINGS) else kernel
    limits = sorted(limit for known, where, limit in TILINGS if known == name and where == platform)
    return TILINGS[name, platform, next(limit for limit in limits if width <= limit)]


def launch(
    kernel: Any,
    name: str,
    grid: Callable[[Mapping[str, int]], tuple[int, ...]],
    width: int,
    dtype: torch.dtype,
    args: Mapping[str, Any],
) -> None:
    """Run `kernel` with `args` (by name) on the grid that `grid` makes of the tile sizes; on a GPU with the fastest tiling of its list."""
    if interpreted():
        kernel[grid](**args, **constants(kernel, INTERPRETED))
        return
    platform = "cuda" if torch.version.hip is None else "hip"
    device = next(x.device for x in args.values() if isinstance(x, Tensor))
    with torch.cuda.device(device):
        _tuned(kernel, tilings(name, platform, width, dtype))[grid](**args, enable_fp_fusion=True)


def constants(kernel: Any, tiling: Tiling) -> dict[str, int]:
    """The compile-time sizes of a tiling that the kernel knows."""
    return {name: size for name, size in (("BM", tiling.BM), ("BN", tiling.BN)) if name in kernel.arg_names}


@cache
def _tuned(kernel: Any, candidates: tuple[Tiling, ...]) -> Any:
    configs = [triton.Config(constants(kernel, t), num_warps=t.warps, num_stages=t.stages) for t in candidates]
    return triton.autotune(
        configs, key=[name for name in ("BD", "BDV", "CAUSAL", "SETS", "SPLIT") if name in kernel.arg_names]
    )(kernel)


def padded(width: int) -> int:
    """Head dim as the kernels hold it: the next power of two, at least 16."""
    return max(16, triton.next_power_of_2(width))


def precision(dtype: torch.dtype) -> str:
    """How `triton_masks.product` multiplies: float32 in full (TF32 would cost three digits), 16-bit inputs exactly in any mode."""
    if dtype == torch.bfloat16 and interpreted():
        return "widened"
    return "ieee" if dtype == torch.float32 else "tf32"


def map_args(problem: Problem) -> dict[str, object]:
    """The arguments that every kernel over the map takes."""
    p = problem
    return {
        "p_q": strided(p.q),
        "p_k": strided(p.k),
        "mk": lower_mask(p.mask, p.batch, p.heads, p.queries, p.keys, p.q.device),
        "ed": lower_edit(p.edit),
        "H": p.heads,
        "NQ": p.queries,
        "NK": p.keys,
        "D": p.q.shape[3],
        "group": p.group,
        "offset": p.offset,
        "scale": p.scale,
        "softcap": p.softcap,
        "CAUSAL": p.mask.is_causal,
        "BD": padded(p.q.shape[3]),
        "PRECISION": precision(p.q.dtype),
    }


def row_lse(lse: Tensor) -> Tensor:
    """lse as the kernels read it: float32, dense."""
    return lse.to(torch.float32).contiguous()
