"""Tile sizes, warps and pipeline stages of every Triton kernel: data, in one place, and the launcher that reads it.

The candidates come from compiling for sm_80, sm_90, sm_100 and gfx942 and keeping what neither spills nor passes a chip's shared memory
(`python tests/kernel_ops/support/triton_compile.py --table`); on a GPU the first call of each kind times them and keeps the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton

from interp_kernels.triton_args import interpreted


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """One way to launch a kernel: the constants BM and BN, warps, stages."""

    BM: int
    BN: int
    warps: int
    stages: int

    @property
    def constants(self) -> dict[str, int]:
        """The compile-time sizes as the kernels name them."""
        return {"BM": self.BM, "BN": self.BN}


def _t(bm: int, bn: int, warps: int, stages: int) -> Tiling:
    return Tiling(BM=bm, BN=bn, warps=warps, stages=stages)


# (kernel, platform, padded head dim up to) -> candidates for 16-bit inputs, the safest first. float32 takes the row "float32".
TILINGS: dict[tuple[str, str, int], tuple[Tiling, ...]] = {
    ("attention_fwd", "cuda", 64): (_t(64, 64, 4, 3), _t(128, 64, 8, 3)),
    ("attention_fwd", "cuda", 128): (_t(64, 64, 4, 2), _t(128, 64, 8, 2)),
    ("attention_fwd", "cuda", 256): (_t(64, 32, 4, 2),),
    ("attention_fwd", "hip", 64): (_t(64, 64, 4, 1),),
    ("attention_fwd", "hip", 128): (_t(64, 64, 4, 1),),
    ("attention_fwd", "hip", 256): (_t(64, 32, 4, 1),),
}
# The interpreter pays per tile, not per entry; 16 is the least that a tensor core takes, so small tests cross tile borders.
INTERPRETED = _t(16, 16, 4, 1)


def tilings(kernel: str, platform: str, width: int, dtype: torch.dtype) -> tuple[Tiling, ...]:
    """Candidates for a kernel on "cuda" or "hip" with head dims up to `width`."""
    name = f"{kernel}.float32" if dtype == torch.float32 else kernel
    limits = sorted(limit for known, where, limit in TILINGS if known == name and where == platform)
    return TILINGS[name, platform, next(limit for limit in limits if width <= limit)]


def launch(
    kernel: Any, name: str, grid: Callable[[Mapping[str, int]], tuple[int, ...]], width: int, dtype: torch.dtype, args: Mapping[str, Any]
) -> None:
    """Run `kernel` with `args` (by name) on the grid that `grid` makes of the tile sizes; on a GPU with the fastest tiling of its list."""
    if interpreted():
        kernel[grid](**args, **INTERPRETED.constants)
        return
    platform = "cuda" if torch.version.hip is None else "hip"
    _tuned(kernel, tilings(name, platform, width, dtype))[grid](**args, enable_fp_fusion=True)


@cache
def _tuned(kernel: Any, candidates: tuple[Tiling, ...]) -> Any:
    configs = [triton.Config(t.constants, num_warps=t.warps, num_stages=t.stages) for t in candidates]
    return triton.autotune(configs, key=[name for name in ("BD", "BDV", "CAUSAL", "SETS", "SPLIT") if name in kernel.arg_names])(kernel)


def padded(width: int) -> int:
    """Head dim as the kernels hold it: the next power of two, at least 16."""
    return max(16, triton.next_power_of_2(width))


def precision(dtype: torch.dtype) -> str:
    """Products of float32 are taken in full float32 (TF32 would cost three digits); 16-bit inputs have nothing to lose."""
    return "ieee" if dtype == torch.float32 else "tf32"
