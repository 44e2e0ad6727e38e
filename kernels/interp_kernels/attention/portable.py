"""`attention` in plain torch on any device and dtype, by row blocks: exact statistics in O(N) memory, a few passes over each block.

A block holds whole rows, so nothing is rescaled and nothing cancels (see `block_statistics`; `Rest` for the exception).
Where only out and lse are wanted of a plain causal or full mask on a CPU, torch's own fused kernel gives both; where the entropy is
wanted beside them and nothing else, it gives that too, with the keys as values: ``H_i = lse_i - scale q_i.(P K)_i`` (the mean logit taken
from the log-sum-exp). Two large numbers cancel there: such an entropy errs by up to 8 eps(float32) max|s|, and is only taken in float32
and float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from interp_kernels.attention.api import AttentionCall
from interp_kernels.attention.backward import differentiable, without_gradient
from interp_kernels.attention.block_statistics import (
    Rest,
    Softmax,
    distance,
    entropy,
    matches,
    moments,
    offsets,
    prob_square,
    softmax,
    weigh_logits,
    windows,
)
from interp_kernels.attention.largest import largest
from interp_kernels.row_blocks import Block, Slab, part_of_batch, part_of_rows, slabs

Results = dict[str, Tensor]


def supports(call: AttentionCall) -> tuple[bool, str]:
    """Everything, but gradients of ALiBi slopes and of a dense bias."""
    names = without_gradient(call)
    return (
        not names,
        f"it gives no gradient of {' and '.join(names)}; detach, or use backend='reference'" if names else "",
    )


def run(call: AttentionCall) -> tuple[Tensor, Tensor, Results]:
    """out, lse and the statistics asked for; differentiable in out, lse and entropy."""
    return differentiable(call, _forward)


def _forward(call: AttentionCall) -> tuple[Tensor, Tensor, Results]:
    if _is_fused(call):
        if call.collect.is_empty:
            return (*_fused(call, call.v), {})
        if _is_entropy_alone(call):
            return _fused_entropy(call)
    results = _empty_results(call)
    for slab in slabs(call.problem):
        sweep = _Sweep(call, slab)
        for block in slab.blocks():
            for name, value in sweep.measure(block, results).items():
                results[name][slab.batch, slab.heads, block.rows.start : block.rows.stop] = value
    return results.pop("out"), results.pop("lse"), results


def _is_fused(call: AttentionCall) -> bool:
    p, mask = call.problem, call.problem.mask
    windows = (mask.window, mask.head_windows, mask.alibi_slopes)
    plain = mask.is_positional and all(x is None for x in (*windows, p.softcap, p.sink_logits, p.edit))
    # torch's causal flag puts row 0 at key 0; rows that all see all keys need no mask.
    square = not mask.is_causal or (p.offset == 0 and p.queries == p.keys) or p.offset >= p.keys - 1
    return plain and square and p.q.device.type == "cpu" and p.q.shape[3] == call.v.shape[3]


def _fused(call: AttentionCall, values: Tensor) -> tuple[Tensor, Tensor]:
    p = call.problem
    causal = p.mask.is_causal and p.offset < p.keys - 1
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (p.q, p.k, values))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=p.scale)
    return out, lse.to(p.work_dtype)


def _is_entropy_alone(call: AttentionCall) -> bool:
    wish = call.collect
    return wish.entropy and replace(wish, entropy=False).is_empty and call.problem.q.dtype == call.problem.work_dtype


def _fused_entropy(call: AttentionCall) -> tuple[Tensor, Tensor, Results]:
    p = call.problem
    out, lse = _fused(call, call.v)
    mean_key, _ = _fused(call, p.k)
    # torch gives no type for vecdot.
    product = cast(Tensor, torch.linalg.vecdot(p.q, mean_key))  # pyright: ignore[reportUnknownMemberType]
    mean_logit = product.mul_(p.scale)
    return out, lse, {"entropy": (lse - mean_logit).clamp_(min=0.0)}


def _empty_results(call: AttentionCall) -> Results:
    p, wish = call.problem, call.collect
    sizes: dict[str, tuple[int, ...]] = {"lse": ()}
    sizes |= {name: () for name in ("entropy", "row_max", "prob_square", "distance") if getattr(wish, name)}
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


class _Sweep:
    """The measuring of one slab, block after block."""

    def __init__(self, call: AttentionCall, slab: Slab) -> None:
        p, wish = slab.problem, call.collect
        self.wish, self.slab, self.width = wish, slab, call.v.shape[3]
        v = call.v[slab.batch, slab.key_heads].to(slab.dtype).reshape(slab.k.shape[0], p.keys, -1)
        self.sets = None
        if wish.key_sets is not None:
            sets = part_of_batch(wish.key_sets, slab.batch).mT.to(slab.dtype)
            self.sets = sets[:, None].expand(p.batch, p.key_heads, -1, -1).reshape(slab.k.shape[0], p.keys, -1)
        self.edit = p.edit
        self.has_factors = p.edit is not None and p.edit.factors is not None
        # Without factors, values and key sets meet the same weights: one product for both.
        joined = self.sets is not None and not self.has_factors
        self.values = torch.cat([v, self.sets], -1) if joined and self.sets is not None else v.contiguous()

    def measure(self, block: Block, results: Results) -> Results:
        """Everything asked for of the rows of a block, [b, h, rows, ...]; topk goes to `results` at once, by its own rows."""
        wish, slab, offset = self.wish, self.slab, self.slab.problem.offset
        logits = slab.logits(block)
        soft = softmax(logits, slab.problem.sink_logits, slab.buffer("e", *logits.s.shape))
        got: Results = {"lse": soft.lse}
        if wish.topk:
            self._store_largest(block, soft, results)
        rest = None
        if wish.rest is not None:
            left_out = part_of_batch(wish.rest, slab.batch)[:, block.cols.start : block.cols.stop]
            rest = Rest(soft, left_out)
        if wish.row_max:
            got["row_max"] = soft.row_max
        if wish.prob_square:
            got["prob_square"] = prob_square(soft)
        if wish.distance:
            got["distance"] = distance(soft, block, offset, slab.buffer("scratch", *soft.e.shape))
        if wish.windows:
            got["windows"] = windows(soft, block, offset, wish.windows)
        if wish.offsets:
            got["offsets"] = offsets(soft, block, offset, wish.offsets)
        if wish.match is not None:
            row_ids, key_ids = (part_of_batch(x, slab.batch) for x in wish.match)
            ids = row_ids[..., block.rows.start : block.rows.stop], key_ids[..., block.cols.start : block.cols.stop]
            got["match"] = matches(soft, *ids, slab.buffer("scratch", *soft.e.shape))
        if wish.entropy or wish.logit_moments or rest is not None:
            logits.fill_hidden(soft.d, 0.0)
        if wish.logit_moments:
            got["logit_moments"] = moments(soft)
        if wish.entropy or rest is not None:
            weighed = weigh_logits(soft)
            if wish.entropy:
                got["entropy"] = entropy(soft, weighed)
            if rest is not None:
                got["rest_mass"], got["rest_entropy"] = rest.finish(weighed)
        if soft.sink is not None:
            got["sink_logit_mass"] = soft.sink[0]
        return got | self._products(soft, block)

    def _products(self, soft: Softmax, block: Block) -> Results:
        """out and key_sets. With factors, e is destroyed."""
        slab, cols, got = self.slab, slice(block.cols.start, block.cols.stop), {}
        lead = soft.row_max.shape
        if self.has_factors and self.sets is not None:
            got["key_sets"] = torch.bmm(slab.grouped(soft.e), self.sets[:, cols]).view(*lead, -1)
        factors = slab.factors(block)
        weights = soft.e if factors is None else soft.e.mul_(factors)
        product = torch.bmm(slab.grouped(weights), self.values[:, cols]).view(*lead, -1) * soft.inverse[..., None]
        out = product[..., : self.width]
        if self.sets is not None and not self.has_factors:
            got["key_sets"] = product[..., self.width :]
        elif self.sets is not None:
            got["key_sets"] = got["key_sets"] * soft.inverse[..., None]
        if self.edit is not None and self.edit.gate is not None:
            out = out * part_of_rows(self.edit.gate, block.rows).to(out.dtype)[..., None]
        return {**got, "out": out}

    def _store_largest(self, block: Block, soft: Softmax, results: Results) -> None:
        wish, slab, rows = self.wish, self.slab, block.rows
        if wish.topk_rows is None:
            local, place = slice(None), slice(rows.start, rows.stop)
        else:
            place = ((wish.topk_rows >= rows.start) & (wish.topk_rows < rows.stop)).nonzero()[:, 0]
            local = wish.topk_rows[place] - rows.start
        value, index = largest(soft.d[:, :, local], wish.topk)
        probability = torch.exp(value) * soft.inverse[:, :, local, None]
        results["topk_index"][slab.batch, slab.heads, place] = torch.where(index < 0, -1, index + block.cols.start)
        results["topk_prob"][slab.batch, slab.heads, place] = probability
