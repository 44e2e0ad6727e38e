"""`columns`: key-side statistics in a second, key-major sweep over q, k and lse. Needs no v; O(N) memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp_kernels.dispatch import BackendChoice, choose
from interp_kernels.spec.collect import ColumnCollect
from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask
from interp_kernels.spec.problem import Problem

MAX_ROW_SUBSETS = 8
IMPLEMENTATIONS = {
    "cpu": "interp_kernels.columns.cpp_impl",
    "triton": "interp_kernels.columns.triton_impl",
    "portable": "interp_kernels.columns.portable",
    "reference": "interp_kernels.columns.reference",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnsCall:
    """A checked call as the implementations get it: lse [B, H, Nq], row subsets bool [B or 1, S, Nq]."""

    problem: Problem
    lse: Tensor
    rows: Tensor
    collect: ColumnCollect


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Result of `columns`: `stats` by the names of `ColumnCollect` (float32, float64 from `reference`) and the backend that ran."""

    stats: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    backend: str


def columns(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    mask: Mask,
    rows: Tensor | None = None,
    collect: ColumnCollect | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    edit: Edit | None = None,
    backend: BackendChoice = "auto",
) -> Columns:
    """Sum the attention map over rows, diagonals or blocks without storing it.

    Args:
        q, k, mask, scale, softcap, edit: as they were given to `attention`.
        lse: [B, H, Nq] from `attention` (a sink logit is in it already).
        rows: row subsets, bool [S, Nq] or [B, S, Nq], S <= 8; None: one subset of all rows.
        collect: what to sum; None: received mass.
        backend: as in `attention`.

    Returns:
        `Columns`.

    Raises:
        ValueError: sizes that do not fit.
        BackendError: the explicit backend cannot serve the call.
    """
    problem = Problem.of(q, k, mask=mask, scale=scale, softcap=softcap, sink_logits=None, edit=edit)
    if lse.shape != q.shape[:3]:
        raise ValueError(f"lse: wanted {tuple(q.shape[:3])}, got {tuple(lse.shape)}")
    if rows is None:
        rows = torch.ones(1, 1, problem.queries, dtype=torch.bool, device=q.device)
    rows = rows if rows.ndim == 3 else rows.unsqueeze(0)
    if rows.dtype != torch.bool or rows.shape[0] not in (1, problem.batch) or rows.shape[2] != problem.queries:
        raise ValueError(
            f"rows: wanted bool [S, {problem.queries}] or [{problem.batch}, S, {problem.queries}], got {rows.dtype} {tuple(rows.shape)}"
        )
    if not 1 <= rows.shape[1] <= MAX_ROW_SUBSETS:
        raise ValueError(f"rows: wanted 1 to {MAX_ROW_SUBSETS} subsets, got {rows.shape[1]}")
    call = ColumnsCall(
        problem=problem, lse=lse, rows=rows.to(q.device), collect=ColumnCollect() if collect is None else collect
    )
    name, implementation = choose("columns", IMPLEMENTATIONS, backend, call, q.device)
    return Columns(stats=implementation.run(call), backend=name)
