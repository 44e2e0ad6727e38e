"""`tile`: a rectangle of the attention map as a small picture, exact at cell level and pooled (mean or max) beyond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp_kernels.dispatch import BackendChoice, choose
from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask
from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span

Pool = Literal["mean", "max"]
IMPLEMENTATIONS = {
    "cpu": "interp_kernels.tile.cpp_impl",
    "triton": "interp_kernels.tile.triton_impl",
    "portable": "interp_kernels.tile.portable",
    "reference": "interp_kernels.tile.reference",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TileCall:
    """A checked call as the implementations get it: spans of rows and keys, bin edges int64 [height + 1] and [width + 1], pooling."""

    problem: Problem
    lse: Tensor
    rows: Span
    cols: Span
    row_edges: Tensor
    col_edges: Tensor
    pool: Pool


def tile(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    rows: tuple[int, int],
    cols: tuple[int, int],
    size: int | tuple[int, int],
    pool: Pool = "mean",
    *,
    mask: Mask,
    scale: float | None = None,
    softcap: float | None = None,
    edit: Edit | None = None,
    backend: BackendChoice = "auto",
) -> Tensor:
    """Pool the cells rows[0]..rows[1] x cols[0]..cols[1] into at most `size` pixels a side.

    Pixel (y, x) covers the cells between `bin_edges`; hidden cells count as weight 0. With no more cells than pixels every pixel is one cell.

    Args:
        q, k, mask, scale, softcap, edit: as they were given to `attention`.
        lse: [B, H, Nq] from `attention`.
        rows, cols: half-open ranges of row and key numbers.
        size: largest height and width of the picture, one number or (height, width).
        pool: "mean" (mass keeps its total: mean times cells) or "max" (finds needles).
        backend: as in `attention`.

    Returns:
        [B, H, height, width] float32 (float64 from float64 input or `reference`).

    Raises:
        ValueError: empty or out-of-range rectangle, size below 1, unknown pool.
    """
    problem = Problem.of(q, k, mask=mask, scale=scale, softcap=softcap, sink_logits=None, edit=edit)
    if lse.shape != q.shape[:3]:
        raise ValueError(f"lse: wanted {tuple(q.shape[:3])}, got {tuple(lse.shape)}")
    if pool not in ("mean", "max"):
        raise ValueError(f"pool: got {pool!r}; valid are mean, max")
    for name, (a, b), n in (("rows", rows, problem.queries), ("cols", cols, problem.keys)):
        if not 0 <= a < b <= n:
            raise ValueError(f"{name}: wanted a non-empty range inside [0, {n}), got {a}..{b}")
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size: wanted at least 1 pixel a side, got {size}")
    call = TileCall(
        problem=problem,
        lse=lse,
        rows=Span(*rows),
        cols=Span(*cols),
        row_edges=bin_edges(*rows, height, q.device),
        col_edges=bin_edges(*cols, width, q.device),
        pool=pool,
    )
    _, implementation = choose("tile", IMPLEMENTATIONS, backend, call, q.device)
    return implementation.run(call)


def bin_edges(start: int, stop: int, bins: int, device: torch.device | str) -> Tensor:
    """Edges of min(bins, stop - start) nearly equal bins: start + floor(b * n / bins), int64 [bins + 1]."""
    bins = min(bins, stop - start)
    return start + torch.arange(bins + 1, device=device) * (stop - start) // bins
