"""`attention`: softmax attention with the statistics asked for, in one sweep and O(N) memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from interp_kernels.dispatch import BackendChoice, Verdict, choose, verdicts
from interp_kernels.spec.collect import Collect
from interp_kernels.spec.edit import Edit
from interp_kernels.spec.mask import Mask
from interp_kernels.spec.problem import Problem

IMPLEMENTATIONS = {
    "cpu": "interp_kernels.attention.cpp_impl",
    "triton": "interp_kernels.attention.triton_impl",
    "portable": "interp_kernels.attention.portable",
    "reference": "interp_kernels.attention.reference",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionCall:
    """A checked call as the implementations get it: the problem, the values [B, Hkv, Nk, Dv] and what to collect."""

    problem: Problem
    v: Tensor
    collect: Collect


@dataclass(frozen=True, kw_only=True, eq=False)
class Attended:
    """Result of `attention`.

    Attributes:
        out: [B, H, Nq, Dv] in q's dtype; 0 for rows that see nothing.
        lse: [B, H, Nq], natural-log sum of exp of the visible logits and the sink logit, float32 (float64 from float64
            input or `reference`). A row that sees no key has -inf, or, where there is one, its sink logit.
        stats: by the names of `Collect` (see there); with sink logits also ``sink_logit_mass`` [B, H, Nq], the learned sink's own share.
        backend: which backend ran.
    """

    out: Tensor
    lse: Tensor
    stats: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    backend: str


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    edit: Edit | None = None,
    collect: Collect | None = None,
    backend: BackendChoice = "auto",
) -> Attended:
    """Attend, and measure while attending.

    Differentiable in q, k, v and sink_logits (with `portable` and `reference` also in the tensors of `edit`) through
    ``out``, ``lse`` and ``stats["entropy"]``.

    Args:
        q: [B, H, Nq, D], after rotary and QK norm.
        k: [B, Hkv, Nk, D]; H a multiple of Hkv (grouped-query attention without repeating).
        v: [B, Hkv, Nk, Dv].
        mask: structure of visibility; `Mask.causal()` for decoders.
        scale: factor on q.k; None means D ** -0.5.
        softcap: c of c * tanh(scale q.k / c) (Gemma 2), or None.
        sink_logits: [H], a learned logit that enters the denominator only (gpt-oss), or None.
        edit: changes inside the kernel, or None.
        collect: what to measure, or None for out and lse only.
        backend: "auto", or one of "cpu", "triton", "portable", "reference", which then runs or raises.

    Returns:
        `Attended` with out, lse, stats and the backend that ran.

    Raises:
        ValueError: shapes, dtypes or sizes that do not fit; all mismatches in one message.
        BackendError: the explicit backend cannot serve the call.
    """
    call = attention_call(
        q, k, v, mask=mask, scale=scale, softcap=softcap, sink_logits=sink_logits, edit=edit, collect=collect
    )
    name, implementation = choose("attention", IMPLEMENTATIONS, backend, call, q.device)
    out, lse, stats = implementation.run(call)
    return Attended(out=out, lse=lse, stats=stats, backend=name)


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    edit: Edit | None = None,
    collect: Collect | None = None,
) -> list[Verdict]:
    """What every backend says of this call of `attention`: can it, and why not. Same arguments as `attention`."""
    call = attention_call(
        q, k, v, mask=mask, scale=scale, softcap=softcap, sink_logits=sink_logits, edit=edit, collect=collect
    )
    return verdicts(IMPLEMENTATIONS, call)


def attention_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    scale: float | None,
    softcap: float | None,
    sink_logits: Tensor | None,
    edit: Edit | None,
    collect: Collect | None,
) -> AttentionCall:
    """Check the arguments of `attention` and bring them to canonical form."""
    wish = Collect() if collect is None else collect
    problem, bad = None, list[str]()
    try:
        problem = Problem.of(q, k, mask=mask, scale=scale, softcap=softcap, sink_logits=sink_logits, edit=edit)
    except ValueError as said:
        bad.append(str(said))
    if v.ndim != 4 or v.shape[:3] != k.shape[:3] or v.shape[3] == 0 or v.dtype != k.dtype or v.device != k.device:
        wanted = f"{tuple(k.shape[:3])} + [Dv] of {k.dtype} on {k.device}"
        bad.append(f"v: wanted {wanted}, got {tuple(v.shape)} of {v.dtype} on {v.device}")
    if q.ndim == k.ndim == 4:
        try:
            wish.check(q.shape[0], q.shape[2], k.shape[2])
        except ValueError as said:
            bad.append(str(said))
    if problem is None or bad:
        raise ValueError("; ".join(bad))
    return AttentionCall(problem=problem, v=v, collect=wish.to(q.device))
