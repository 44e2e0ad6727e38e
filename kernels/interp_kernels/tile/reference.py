"""The definition of `tile`: pool the dense float64 map, bin after bin."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from interp_kernels.attention.reference import fits
from interp_kernels.columns.reference import dense_map
from interp_kernels.tile.api import TileCall


def supports(call: TileCall) -> tuple[bool, str]:
    """Whether the dense map is small enough; the reason when not."""
    return fits(call.problem)


def run(call: TileCall) -> Tensor:
    """float64 [B, H, height, width]."""
    prob = dense_map(call.problem, call.lse)
    pool = torch.mean if call.pool == "mean" else torch.amax
    lines = torch.stack([pool(prob[:, :, a:b], 2) for a, b in _bins(call.row_edges)], 2)
    return torch.stack([pool(lines[..., a:b], 3) for a, b in _bins(call.col_edges)], 3)


def _bins(edges: Tensor) -> itertools.pairwise[tuple[int, int]]:
    numbers: list[int] = edges.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return itertools.pairwise(numbers)
