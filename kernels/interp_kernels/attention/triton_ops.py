"""Attention on Triton as torch custom operators with fake implementations and autograd
(`interp_kernels_triton::attention` and its backward).

The gradients are those of `triton_backward`; the sink logit's own is ``sum_i p_is (c_i - dH_i log p_is)``, p_is its
weight, made here in O(N).
"""

# Triton has no type stubs, and torch leaves parts of its device and library interfaces untyped.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import Any, TypeAlias, cast

import torch
import triton
from torch import Tensor

from interp_kernels.attention.api import AttentionCall
from interp_kernels.attention.triton_backward import attention_dkdv_kernel, attention_dq_kernel
from interp_kernels.attention.triton_lowering import Results, empty_results, forward, named_statistics
from interp_kernels.triton_args import forward_scale, is_plain, strided
from interp_kernels.triton_codec import decode_collect, decode_problem, encode
from interp_kernels.triton_tiles import launch, map_args, padded

# `Results` as the plain tuple that an operator returns.
_Planes: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("interp_kernels_triton::attention", mutates_args=())
def attention_op(
    q: Tensor, k: Tensor, v: Tensor, sink_logits: Tensor | None, tensors: list[Tensor], spec: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`Results` of the call that `triton_codec.encode` wrote down."""
    problem = decode_problem(q, k, sink_logits, tensors, spec)
    results = forward(AttentionCall(problem=problem, v=v, collect=decode_collect(tensors, spec)))
    return cast("_Planes", tuple(results))


@attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, sink_logits: Tensor | None, tensors: list[Tensor], spec: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return cast("_Planes", tuple(empty_results(q, v, decode_collect(tensors, spec), sink_logits is not None)))


@torch.library.custom_op("interp_kernels_triton::attention_backward", mutates_args=())
def attention_backward_op(
    q: Tensor, k: Tensor, v: Tensor, tensors: list[Tensor], spec: str,
    unit: Tensor, grad_out: Tensor, row_sum: Tensor, grad_entropy: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv from the forward's planes `unit`, dO, the row sums c and the gradient of the entropy by x (see `triton_backward`)."""
    p = decode_problem(q, k, None, tensors, spec)
    if p.edit is not None and p.edit.gate is not None:
        grad_out = (grad_out * p.edit.gate[..., None]).to(v.dtype)
    dq, dk, dv = _empty_gradients(q, k, v)
    width = max(padded(q.shape[3]), padded(v.shape[3]))
    args = {
        **map_args(p),
        "p_unit": unit,
        "scale": forward_scale(p),
        "scale_nats": p.scale,
        "BASE_2": is_plain(p),
        "p_v": strided(v),
        "p_do": strided(grad_out.to(v.dtype)),
        "p_c": row_sum,
        "p_dh": row_sum if grad_entropy is None else grad_entropy,
        "DV": v.shape[3],
        "ENTROPY": grad_entropy is not None,
        "BDV": padded(v.shape[3]),
        "PAD_D": padded(q.shape[3]) != q.shape[3],
        "PAD_DV": padded(v.shape[3]) != v.shape[3],
    }
    launch(
        attention_dq_kernel,
        "attention_dq",
        lambda meta: (triton.cdiv(p.queries, meta["BM"]), p.batch * p.heads),
        width,
        q.dtype,
        {**args, "p_dq": strided(dq)},
    )
    launch(
        attention_dkdv_kernel,
        "attention_dkdv",
        lambda meta: (triton.cdiv(p.keys, meta["BN"]), p.batch * p.key_heads),
        width,
        q.dtype,
        {**args, "p_dk": strided(dk), "p_dv": strided(dv)},
    )
    return dq, dk, dv


@attention_backward_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, tensors: list[Tensor], spec: str,
    unit: Tensor, grad_out: Tensor, row_sum: Tensor, grad_entropy: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _empty_gradients(q, k, v)


def _empty_gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, sink_logits, tensors, ctx.spec = inputs
    results = Results(*output)
    ctx.count = len(tensors)
    ctx.save_for_backward(q, k, v, sink_logits, results.out, results.lse, results.entropy, results.stats, *tensors)
    ctx.mark_non_differentiable(results.topk_index)


def _backward(
    ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, grad_entropy: Tensor | None, *_: Tensor | None
) -> tuple[Any, ...]:
    q, k, v, sink_logits, out, lse, entropy, stats, *tensors = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    row_sum = -(grad_out.float() * out.float()).sum(-1)
    if grad_lse is not None:
        row_sum = row_sum + grad_lse
    unit = stats[-2:]
    inner_sum, by_x = row_sum, None
    if entropy.numel() and grad_entropy is not None:
        p = decode_problem(q, k, None, tensors, ctx.spec)
        by_x = (grad_entropy * (math.log(2.0) if is_plain(p) else 1.0)).contiguous()
        row_sum = row_sum - grad_entropy * entropy
        # log of the inverse sum; a row that sees nothing has an inverse sum of 0 and passes nothing on.
        inner_sum = row_sum - grad_entropy * torch.where(unit[1] > 0, unit[1], 1.0).log()
    dq, dk, dv = attention_backward_op(
        q, k, v, tensors, ctx.spec, unit.contiguous(), grad_out.contiguous(), inner_sum.contiguous(), by_x
    )
    dsink = None
    if sink_logits is not None:
        log_share = torch.where(lse.isinf(), float("-inf"), sink_logits.float()[:, None] - lse)
        slope = row_sum if by_x is None or grad_entropy is None else row_sum - grad_entropy * log_share
        dsink = (log_share.exp() * slope).sum((0, 2)).to(sink_logits.dtype)
    return dq, dk, dv, dsink, [None] * ctx.count, None


attention_op.register_autograd(_backward, setup_context=_save)


def attend(call: AttentionCall) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Out, lse and statistics of a call, through the operator."""
    p = call.problem
    tensors, spec = encode(p, call.collect)
    results = Results(*attention_op(p.q, p.k, call.v, p.sink_logits, tensors, spec))
    return results.out, results.lse, named_statistics(results, call.collect, p.sink_logits is not None)
