"""The definition of `attention` in plain torch: the dense map in float64, whatever the dtype of the call. Small problems only; O(Nq Nk) memory.

Differentiable by torch's own autograd in every tensor of the call, through every result that is a smooth function of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels.attention.api import AttentionCall
from interp_kernels.scores import block_scores
from interp_kernels.spec.collect import Collect
from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span

MAX_MAP_ENTRIES = 2**26
_NONE = float("-inf")


def supports(call: AttentionCall) -> tuple[bool, str]:
    """Whether the dense map is small enough; the reason when not."""
    return fits(call.problem)


def fits(problem: Problem) -> tuple[bool, str]:
    """Whether a dense float64 map of this problem is allowed: at most 2**26 entries (512 MiB)."""
    entries = problem.batch * problem.heads * problem.queries * problem.keys
    if entries <= MAX_MAP_ENTRIES:
        return True, ""
    return False, f"the reference stores the dense map, and {entries:,} entries are more than its {MAX_MAP_ENTRIES:,}"


def dense_logits(problem: Problem) -> Tensor:
    """The final logits s_ij of the whole map, float64 [B, H, Nq, Nk]; -inf where hidden."""
    return block_scores(problem, Span(0, problem.queries), Span(0, problem.keys), torch.float64)


def run(call: AttentionCall) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """out (dtype of q), lse and statistics (float64)."""
    p = call.problem
    s = dense_logits(p)
    seen = s > _NONE
    row_max = s.detach().amax(-1)
    sink = None if p.sink_logits is None else p.sink_logits.double()[None, :, None].expand(s.shape[:3])
    lse = _log_sum_exp(s if sink is None else torch.cat([s, sink[..., None]], -1))
    prob = _exp_below(s, lse)
    stats = _row_statistics(call, s, seen, prob, lse, row_max)
    if sink is not None:
        mass = _exp_below(sink[..., None], lse)[..., 0]
        stats["sink_logit_mass"] = mass
        if "entropy" in stats:
            stats["entropy"] = stats["entropy"] + mass * (lse - sink).masked_fill(mass == 0, 0.0)
    return _out(call, prob).to(p.q.dtype), lse, stats


def _out(call: AttentionCall, prob: Tensor) -> Tensor:
    p, edit = call.problem, call.problem.edit
    if edit is not None and edit.sets is not None and edit.factors is not None:
        member = torch.cat([edit.sets, ~edit.sets.any(2, keepdim=True)], 2).double()
        prob = prob * (edit.factors.double() @ member)
    out = prob @ call.v.double().repeat_interleave(p.group, 1)
    return out if edit is None or edit.gate is None else out * edit.gate.double()[..., None]


def _row_statistics(
    call: AttentionCall, s: Tensor, seen: Tensor, prob: Tensor, lse: Tensor, row_max: Tensor
) -> dict[str, Tensor]:
    p, wish = call.problem, call.collect
    finite = s.masked_fill(~seen, 0.0)
    gap = (torch.arange(p.queries, device=s.device)[:, None] + p.offset) - torch.arange(p.keys, device=s.device)
    stats: dict[str, Tensor] = {}
    if wish.entropy:
        stats["entropy"] = _entropy(prob, finite, seen, lse)
    if wish.row_max:
        stats["row_max"] = row_max
    if wish.logit_moments:
        low = (finite - row_max.masked_fill(row_max == _NONE, 0.0)[..., None]).masked_fill(~seen, 0.0)
        stats["logit_moments"] = torch.stack([low.sum(-1), low.square().sum(-1)], -1)
    if wish.prob_square:
        stats["prob_square"] = prob.square().sum(-1)
    if wish.distance:
        stats["distance"] = (prob * gap).sum(-1)
    if wish.key_sets is not None:
        stats["key_sets"] = prob @ wish.key_sets.double().mT[:, None]
    if wish.rest is not None:
        others = seen & ~wish.rest[:, None, None, :]
        rest_lse = _log_sum_exp(s.masked_fill(~others, _NONE))
        rest = _exp_below(s.masked_fill(~others, _NONE), rest_lse)
        stats["rest_mass"] = _exp_below(rest_lse[..., None], lse)[..., 0]
        stats["rest_entropy"] = _entropy(rest, finite, others, rest_lse)
    if wish.match is not None:
        rows, keys = wish.match
        same = (rows[..., :, None] == keys[..., None, :]) & (rows >= 0)[..., None]
        stats["match"] = torch.einsum("bhij,bmij->bhim", prob, same.double().expand(p.batch, -1, -1, -1))
    if wish.windows:
        stats["windows"] = torch.stack([(prob * ((gap >= 0) & (gap < w))).sum(-1) for w in wish.windows], -1)
    if wish.offsets:
        stats["offsets"] = torch.stack([(prob * (gap == d)).sum(-1) for d in wish.offsets], -1)
    if wish.topk:
        stats |= _largest(wish, s, prob)
    return stats


def _largest(wish: Collect, s: Tensor, prob: Tensor) -> dict[str, Tensor]:
    if wish.topk_rows is not None:
        s, prob = s[:, :, wish.topk_rows], prob[:, :, wish.topk_rows]
    k = min(wish.topk, s.shape[-1])
    order = torch.sort(s, dim=-1, descending=True, stable=True).indices[..., :k]
    index = torch.full((*s.shape[:3], wish.topk), -1, device=s.device)
    value = torch.zeros(index.shape, dtype=s.dtype, device=s.device)
    index[..., :k] = torch.where(s.gather(-1, order) == _NONE, -1, order)
    value[..., :k] = prob.gather(-1, order)
    return {"topk_index": index, "topk_prob": value}


def _log_sum_exp(s: Tensor) -> Tensor:
    # torch.logsumexp has a NaN gradient where all entries are -inf: such rows are computed from zeros and then set.
    empty = (s == _NONE).all(-1)
    return torch.logsumexp(s.masked_fill(empty[..., None], 0.0), -1).masked_fill(empty, _NONE)


def _exp_below(s: Tensor, lse: Tensor) -> Tensor:
    return torch.exp(s - lse.masked_fill(lse == _NONE, 0.0)[..., None])


def _entropy(prob: Tensor, finite: Tensor, seen: Tensor, lse: Tensor) -> Tensor:
    return (prob * (lse.masked_fill(lse == _NONE, 0.0)[..., None] - finite).masked_fill(~seen, 0.0)).sum(-1)
