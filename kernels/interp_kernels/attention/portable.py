"""`attention` in plain torch on any device and dtype, by row blocks: exact statistics in O(N) memory, a few passes over each block.

A block holds whole rows, so nothing is rescaled: with m the row's maximum, d = s - m and e = exp(d), every mass is a product or a sum of e over
l = sum e, and entropy = log l - (sum e d) / l, whose two terms have one sign. Nothing cancels, so results keep the plain tolerance rule.
Where only out and lse are wanted of a plain causal or full mask on a CPU, torch's own fused kernel gives both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp_kernels.attention.api import AttentionCall
from interp_kernels.attention.backward import differentiable, gradient_gap
from interp_kernels.attention.largest import largest
from interp_kernels.row_blocks import Block, Logits, Slab, part_of_batch, part_of_rows, slabs
from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span

Results = dict[str, Tensor]
_NONE = float("-inf")


def supports(call: AttentionCall) -> tuple[bool, str]:
    """Everything, but gradients of ALiBi slopes and of a dense bias."""
    return gradient_gap(call)


def run(call: AttentionCall) -> tuple[Tensor, Tensor, Results]:
    """out, lse and the statistics asked for; differentiable in out, lse and entropy."""
    return differentiable(call, _forward)


def _forward(call: AttentionCall) -> tuple[Tensor, Tensor, Results]:
    if call.collect.is_empty and _is_fused(call):
        return _fused(call)
    results = _empty_results(call)
    for slab in slabs(call.problem):
        sweep = _Sweep.of(call, slab)
        for block in slab.blocks():
            for name, value in sweep.measure(block).items():
                results[name][slab.batch, slab.heads, block.rows.start : block.rows.stop] = value
            if call.collect.topk:
                sweep.store_largest(block, results)
    return results.pop("out"), results.pop("lse"), results


def _is_fused(call: AttentionCall) -> bool:
    p, mask = call.problem, call.problem.mask
    refined = mask.window, mask.left, mask.right, mask.query_documents, mask.prefix_length, mask.head_windows, mask.block_keep, mask.alibi_slopes
    plain = all(x is None for x in (*refined, mask.dense_bias, p.softcap, p.sink_logits, p.edit)) and not mask.hidden
    # torch's causal flag puts row 0 at key 0; a single row that sees all keys needs no mask.
    square = not mask.is_causal or (p.offset == 0 and p.queries == p.keys) or p.offset >= p.keys - 1
    return plain and square and p.q.device.type == "cpu" and p.q.shape[3] == call.v.shape[3] and p.scale > 0


def _fused(call: AttentionCall) -> tuple[Tensor, Tensor, Results]:
    p = call.problem
    causal = p.mask.is_causal and p.offset < p.keys - 1
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (p.q, p.k, call.v))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=p.scale)
    return out, lse.to(p.work_dtype), {}


def _empty_results(call: AttentionCall) -> Results:
    p, wish = call.problem, call.collect
    sizes: dict[str, tuple[int, ...]] = {"lse": ()}
    flags = ("entropy", "row_max", "prob_square", "distance")
    sizes |= {name: () for name in flags if getattr(wish, name)}
    if wish.logit_moments:
        sizes["logit_moments"] = (2,)
    if wish.key_sets is not None:
        sizes["key_sets"] = (wish.key_sets.shape[1],)
    if wish.rest is not None:
        sizes |= {"rest_mass": (), "rest_entropy": ()}
    if wish.match is not None:
        sizes["match"] = (wish.match[0].shape[1],)
    sizes |= {name: (len(n),) for name, n in (("windows", wish.windows), ("offsets", wish.offsets)) if n}
    if p.sink_logits is not None:
        sizes["sink_logit_mass"] = ()
    lead = p.q.shape[:3]
    results = {name: p.q.new_empty((*lead, *size), dtype=p.work_dtype) for name, size in sizes.items()}
    results["out"] = p.q.new_empty((*lead, call.v.shape[3]))
    if wish.topk:
        rows = p.queries if wish.topk_rows is None else len(wish.topk_rows)
        shape = (*lead[:2], rows, wish.topk)
        results["topk_index"] = torch.full(shape, -1, dtype=torch.int64, device=p.q.device)
        results["topk_prob"] = p.q.new_zeros(shape, dtype=p.work_dtype)
    return results


@dataclass(frozen=True)
class _Softmax:
    """One block's softmax: d = s - m, e = exp(d), l = sum e; [b, h, rows] but for d and e. Log sum and lse as if empty rows had total 1."""

    d: Tensor
    e: Tensor
    row_max: Tensor
    l: Tensor
    inverse: Tensor
    lse_above_max: Tensor
    lse: Tensor
    sink_mass: Tensor | None
    sink_entropy: Tensor | None


class _Sweep:
    """The measuring of one slab."""

    def __init__(self, call: AttentionCall, slab: Slab, carried: Tensor, topk_rows: Tensor | None) -> None:
        self.call, self.slab, self.carried, self.topk_rows = call, slab, carried, topk_rows
        self.largest: tuple[Tensor, Tensor, Tensor] | None = None

    @staticmethod
    def of(call: AttentionCall, slab: Slab) -> _Sweep:
        """Put what every block is multiplied with side by side: values, then indicators of the key sets; [b * hkv, Nk, Dv + C]."""
        p, wish = slab.problem, call.collect
        v = call.v[slab.batch, slab.key_heads].to(slab.dtype).reshape(p.batch * p.key_heads, p.keys, -1)
        if wish.key_sets is not None:
            sets = part_of_batch(wish.key_sets, slab.batch).mT[:, None].expand(p.batch, p.key_heads, -1, -1)
            v = torch.cat([v, sets.reshape(v.shape[0], p.keys, -1).to(v.dtype)], -1)
        return _Sweep(call, slab, v.contiguous(), wish.topk_rows)

    def measure(self, block: Block) -> Results:
        """Everything asked for of the rows of a block, [b, h, rows, ...]; topk aside, which `store_largest` puts away."""
        wish = self.call.collect
        logits = self.slab.logits(block)
        got: Results = self._rest(logits, block) if wish.rest is not None else {}
        soft = self._softmax(logits)
        got |= {"lse": soft.lse} | self._products(soft, block)
        if wish.rest is not None:
            got["rest_mass"] = torch.exp(got["rest_mass"] - soft.row_max_safe) * soft.inverse
        return got
