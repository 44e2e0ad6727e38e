"""`entries`: single attention weights, exact, O(D) each: p_ij = exp(s_ij - lse_i)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interp_kernels.dispatch import BackendChoice, choose
from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask
from interp_kernels.spec.problem import Problem

IMPLEMENTATIONS = {
    "cpu": "interp_kernels.entries.cpp_impl",
    "triton": "interp_kernels.entries.triton_impl",
    "portable": "interp_kernels.entries.portable",
    "reference": "interp_kernels.entries.reference",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class EntriesCall:
    """A checked call as the implementations get it: lse [B, H, Nq], row and key numbers int64 [E]."""

    problem: Problem
    lse: Tensor
    i: Tensor
    j: Tensor


def entries(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    i: Tensor,
    j: Tensor,
    *,
    mask: Mask,
    scale: float | None = None,
    softcap: float | None = None,
    edit: Edit | None = None,
    backend: BackendChoice = "auto",
) -> Tensor:
    """Attention weights at the pairs (i[e], j[e]) in every batch item and head.

    Args:
        q, k, mask, scale, softcap, edit: as they were given to `attention`.
        lse: [B, H, Nq] from `attention`.
        i: row numbers, int [E].
        j: key numbers, int [E].
        backend: as in `attention`.

    Returns:
        [B, H, E] float32 (float64 from float64 input or `reference`); 0 where the entry is hidden.

    Raises:
        ValueError: sizes that do not fit, numbers out of range.
    """
    problem = Problem.of(q, k, mask=mask, scale=scale, softcap=softcap, sink_logits=None, edit=edit)
    if lse.shape != q.shape[:3]:
        raise ValueError(f"lse: wanted {tuple(q.shape[:3])}, got {tuple(lse.shape)}")
    if i.ndim != 1 or i.shape != j.shape or i.is_floating_point() or j.is_floating_point():
        raise ValueError(
            f"i, j: wanted two integer tensors [E], got {i.dtype} {tuple(i.shape)} and {j.dtype} {tuple(j.shape)}"
        )
    for name, x, n in (("i", i, problem.queries), ("j", j, problem.keys)):
        if len(x) and not 0 <= int(x.min()) <= int(x.max()) < n:
            raise ValueError(f"{name}: wanted numbers in [0, {n}), got {int(x.min())} to {int(x.max())}")
    call = EntriesCall(problem=problem, lse=lse, i=i.long().to(q.device), j=j.long().to(q.device))
    _, implementation = choose("entries", IMPLEMENTATIONS, backend, call, q.device)
    return implementation.run(call)
