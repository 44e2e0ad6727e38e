"""Gradients of out, lse and entropy by row blocks, in O(N) memory.

With p_ij the weights, H_i the entropy and f_ij the factor of an edit times its gate, the gradient of the final logits is

    dS_ij = p_ij (g_ij - sum_j p_ij g_ij) + dlse_i p_ij - dH_i p_ij (log p_ij + H_i),    g_ij = f_ij dO_i . v_j

and for the learned sink logit, which has neither value nor key, the same with g = 0. dS then goes back through
logit_scale, soft-cap and scale; key heads sum over their group. Source: the Jacobian of the softmax as in FlashAttention
(Dao et al. 2022, arXiv 2205.14135, section B.2), and the derivative of H = -sum p log p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp_kernels.attention.api import AttentionCall
from interp_kernels.attention.block_statistics import softmax
from interp_kernels.row_blocks import Block, Logits, Slab, part_of_rows, slabs

Forward = Callable[[AttentionCall], tuple[Tensor, Tensor, dict[str, Tensor]]]
DIFFERENTIABLE = ("out", "lse", "entropy")


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionGrads:
    """Gradients in the shapes and dtypes of the call's tensors; None where the call has no such tensor."""

    q: Tensor
    k: Tensor
    v: Tensor
    sink_logits: Tensor | None = None
    logit_scale: Tensor | None = None
    key_bias: Tensor | None = None
    factors: Tensor | None = None
    gate: Tensor | None = None


NAMES = tuple(f.name for f in fields(AttentionGrads))


def without_gradient(call: AttentionCall) -> list[str]:
    """Tensors of the call that want a gradient which no backend but the reference gives."""
    mask = call.problem.mask
    wanted = {"the ALiBi slopes": mask.alibi_slopes, "a dense bias": mask.dense_bias}
    return [name for name, x in wanted.items() if torch.is_grad_enabled() and x is not None and x.requires_grad]


def differentiable(call: AttentionCall, forward: Forward) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Run `forward` on the call, with the gradients of this module where a tensor of the call wants one.

    Statistics other than the entropy carry no gradient.
    """
    tensors = _tensors(call)
    if not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)):
        with torch.no_grad():
            return forward(call)
    names: list[str] = []
    applied = _Attention.apply(call, forward, names, *tensors)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    flat = cast("tuple[Tensor, ...]", applied)
    results = dict(zip(names, flat, strict=True))
    return results.pop("out"), results.pop("lse"), results


def attention_backward(
    call: AttentionCall, d_out: Tensor | None, d_lse: Tensor | None, d_entropy: Tensor | None
) -> AttentionGrads:
    """Gradients of a call from those of its results (None for zero); nothing of the forward needs to be kept."""
    with torch.no_grad():
        sums = _zeros(call)
        for slab in slabs(call.problem, keep_stages=True):
            part = _SlabBackward(call, slab, sums, d_out, d_lse, d_entropy)
            for block in slab.blocks():
                part.add(block)
            part.store()
        return _finished(call, sums)


def _tensors(call: AttentionCall) -> tuple[Tensor | None, ...]:
    p, edit = call.problem, call.problem.edit
    of_edit = (None,) * 4 if edit is None else (edit.logit_scale, edit.key_bias, edit.factors, edit.gate)
    return (p.q, p.k, call.v, p.sink_logits, *of_edit)


class _Attention(torch.autograd.Function):
    """The forward of a backend with the backward of this module."""

    @staticmethod
    def forward(
        ctx: Any, call: AttentionCall, forward: Forward, names: list[str], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        out, lse, stats = forward(call)
        results = {"out": out, "lse": lse, **stats}
        names.extend(results)
        ctx.call, ctx.names = call, tuple(names)
        # What the backward reads is in the call; saving it lets torch complain of a tensor that was written to meanwhile.
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*(x for name, x in results.items() if name not in DIFFERENTIABLE))
        ctx.set_materialize_grads(False)
        return tuple(results.values())

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (once_differentiable hides the names)
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        given = dict(zip(ctx.names, grad_outputs, strict=True))
        d_out, d_lse, d_entropy = (given.get(name) for name in DIFFERENTIABLE)
        got = attention_backward(ctx.call, d_out, d_lse, d_entropy)
        wanted = ctx.needs_input_grad[3:]
        return (
            None,
            None,
            None,
            *(getattr(got, name) if want else None for name, want in zip(NAMES, wanted, strict=True)),
        )


def _zeros(call: AttentionCall) -> dict[str, Tensor]:
    """A sum for every tensor of the call that has a gradient, in the working dtype and in the full shape (nothing broadcast)."""
    p, sizes = call.problem, {"sink_logits": (call.problem.heads,)}
    if p.edit is not None:
        rows = (p.batch, p.heads, p.queries)
        columns = 0 if p.edit.factors is None else p.edit.factors.shape[3]
        sizes |= {"logit_scale": rows, "gate": rows, "factors": (*rows, columns), "key_bias": (*rows[:2], p.keys)}
    there = {name: x for name, x in zip(NAMES, _tensors(call), strict=True) if x is not None}
    return {name: x.new_zeros(sizes.get(name, tuple(x.shape)), dtype=p.work_dtype) for name, x in there.items()}


def _finished(call: AttentionCall, sums: dict[str, Tensor]) -> AttentionGrads:
    like = {name: x for name, x in zip(NAMES, _tensors(call), strict=True) if x is not None}
    return AttentionGrads(**{name: x.sum_to_size(like[name].shape).to(like[name].dtype) for name, x in sums.items()})


class _SlabBackward:
    """The backward of one slab, block after block; gradients of keys and values are summed here and stored at the end."""

    def __init__(self, call: AttentionCall, slab: Slab, sums: dict[str, Tensor], *of_rows: Tensor | None) -> None:
        self.slab, self.sums = slab, sums
        self.v = call.v[slab.batch, slab.key_heads].to(slab.dtype).reshape(*slab.k.shape[:2], -1).contiguous()
        here = (None if x is None else x[slab.batch, slab.heads].to(slab.dtype) for x in of_rows)
        self.d_out, self.d_lse, self.d_entropy = here
        self.dk, self.dv = torch.zeros_like(slab.k), torch.zeros_like(self.v)

    def add(self, block: Block) -> None:
        """Add what a block of rows gives to all gradients."""
        slab, lines = self.slab, slice(block.rows.start, block.rows.stop)
        logits = slab.logits(block)
        # The block holds whole rows, so its softmax is taken anew: exp(s - lse) would carry the rounding of a large lse.
        soft = softmax(logits, slab.problem.sink_logits, slab.buffer("p", *logits.s.shape))
        prob = soft.e.mul_(soft.inverse[..., None])
        log_p = logits.fill_hidden(soft.d, 0.0).sub_(soft.log_total[..., None])
        if self.d_out is None:
            ds, every = slab.buffer("ds", *prob.shape).zero_(), torch.zeros_like(soft.lse)
        else:
            ds = self._through_values(block, prob, self.d_out[:, :, lines])
            every = -torch.mul(prob, ds, out=slab.buffer("scratch", *prob.shape)).sum(-1)
        if self.d_lse is not None:
            every = every + self.d_lse[:, :, lines]
        ds += every[..., None]
        surprise = None
        if self.d_entropy is not None:
            d_entropy = self.d_entropy[:, :, lines]
            own = -torch.mul(prob, log_p, out=slab.buffer("scratch", *prob.shape)).sum(-1)
            entropy = own if soft.sink is None else own + soft.sink[1]
            ds -= log_p.add_(entropy[..., None]).mul_(d_entropy[..., None])
            surprise = d_entropy, entropy
        ds *= prob
        self._through_logits(block, logits, ds)
        if soft.sink is not None:
            mass, part = soft.sink
            every = mass * every
            if surprise is not None:
                # As for a key, with mass * log mass = -part.
                every = every - surprise[0] * (mass * surprise[1] - part)
            self.sums["sink_logits"][slab.heads] += every.sum((0, 2))

    def store(self) -> None:
        """Write the sums over the slab's rows to the results."""
        slab, p = self.slab, self.slab.problem
        # The slab's q carries the scale, and over it the soft-cap.
        dk = self.dk if p.softcap is None else self.dk * p.softcap
        lead = (p.batch, p.key_heads, p.keys)
        self.sums["k"][slab.batch, slab.key_heads] = dk.view(*lead, -1)
        self.sums["v"][slab.batch, slab.key_heads] = self.dv.view(*lead, -1)

    def _through_values(self, block: Block, prob: Tensor, d_out: Tensor) -> Tensor:
        """Gradient of the weights, f_ij dO_i . v_j; adds to those of values, factors and gate."""
        slab, edit, cols = self.slab, self.slab.problem.edit, slice(block.cols.start, block.cols.stop)
        d_prob = slab.buffer("ds", *prob.shape)
        torch.bmm(slab.grouped(d_out), self.v[:, cols].mT, out=slab.grouped(d_prob))
        gate = None if edit is None or edit.gate is None else part_of_rows(edit.gate, block.rows).to(slab.dtype)
        factors = slab.factors(block)
        if edit is not None and edit.sets is not None and "factors" in self.sums:
            member = torch.cat([edit.sets, ~edit.sets.any(2, keepdim=True)], 2)[..., cols].to(slab.dtype)
            by_set = (prob * d_prob) @ member.mT
            self._rows("factors", block)[...] = by_set if gate is None else by_set * gate[..., None]
        if factors is not None:
            d_prob *= factors
        if gate is not None:
            self._rows("gate", block)[...] = (prob * d_prob).sum(-1)
            d_prob *= gate[..., None]
            d_out = d_out * gate[..., None]
        weights = prob if factors is None else prob * factors
        self.dv[:, cols].baddbmm_(slab.grouped(weights).mT, slab.grouped(d_out))
        return d_prob

    def _through_logits(self, block: Block, logits: Logits, ds: Tensor) -> None:
        """From the final logits back to q, k and the edits of logits."""
        slab, p, cols = self.slab, self.slab.problem, slice(block.cols.start, block.cols.stop)
        if "key_bias" in self.sums:
            self.sums["key_bias"][slab.batch, slab.heads, cols] += ds.sum(2)
        if logits.unscaled is not None and p.edit is not None and p.edit.logit_scale is not None:
            self._rows("logit_scale", block)[...] = (ds * logits.unscaled).sum(-1)
            ds *= part_of_rows(p.edit.logit_scale, block.rows).to(ds.dtype)[..., None]
        if logits.capped is not None and p.softcap is not None:
            ds *= 1 - (logits.capped / p.softcap).square()
        grouped = slab.grouped(ds)
        self._rows("q", block)[...] = (grouped @ slab.k[:, cols]).view(*ds.shape[:3], -1) * p.scale
        self.dk[:, cols].baddbmm_(grouped.mT, slab.rows_of_q(block.rows))

    def _rows(self, name: str, block: Block) -> Tensor:
        return self.sums[name][self.slab.batch, self.slab.heads, block.rows.start : block.rows.stop]
