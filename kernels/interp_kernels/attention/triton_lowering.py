"""Host side of the forward: lowers an `AttentionCall`, launches the kernels, and cuts the planes of statistics into named results."""

# Triton has no type stubs, and torch leaves parts of its device and library interfaces untyped.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from interp_kernels.attention.api import AttentionCall
from interp_kernels.attention.triton_forward import attention_fwd_kernel, attention_join_kernel
from interp_kernels.attention.triton_state import BASE
from interp_kernels.attention.triton_topk import topk
from interp_kernels.spec.collect import Collect
from interp_kernels.spec.problem import Problem
from interp_kernels.triton_args import (
    EditArgs,
    MaskArgs,
    Strided,
    forward_scale,
    interpreted,
    is_plain,
    keyed,
    lower_edit,
    lower_mask,
    strided,
)
from interp_kernels.triton_tiles import launch, padded, precision

# Rows up to which the keys are split over programs: below, the row tiles alone leave most of a GPU idle.
SPLIT_ROWS = 16
SPLIT_KEYS = 1024


class CollectArgs(NamedTuple):
    """`Collect` for the kernels: key sets (and `rest` as the last) as the bits of one word a key, ids by kind, window widths."""

    words: Strided | None = None
    row_ids: Strided | None = None
    key_ids: Strided | None = None
    windows: tuple[int, ...] | None = None
    offsets: tuple[int, ...] | None = None


def lower_collect(collect: Collect) -> CollectArgs:
    """`CollectArgs` of a wish."""
    bits = [] if collect.key_sets is None else list(collect.key_sets.unbind(1))
    bits += [] if collect.rest is None else [collect.rest]
    words = None
    if bits:
        wide = torch.int32 if len(bits) < 32 else torch.int64
        words = sum((bit.to(wide) << c for c, bit in enumerate(bits[1:], 1)), start=bits[0].to(wide))
    return CollectArgs(
        words=None if words is None else keyed(words),
        row_ids=None if collect.match is None else keyed(collect.match[0].masked_fill(collect.match[0] < 0, -2)),
        key_ids=None if collect.match is None else keyed(collect.match[1].clamp(min=-1)),
        windows=collect.windows or None,
        offsets=collect.offsets or None,
    )


def planes(wish: Collect, has_sink: bool) -> list[tuple[str, int]]:
    """Names and counts of the planes of statistics, in the order in which the kernels write them.

    The last is always ``unit``: reference logit (in its units) and inverse sum, that is lse without its rounding,
    for topk and the backward.
    """
    counted = [
        ("row_max", int(wish.row_max)),
        ("logit_moments", 2 * wish.logit_moments),
        ("prob_square", int(wish.prob_square)),
        ("distance", int(wish.distance)),
        ("rest_entropy", int(wish.rest is not None)),
        ("rest_mass", int(wish.rest is not None)),
        ("key_sets", 0 if wish.key_sets is None else wish.key_sets.shape[1]),
        ("match", 0 if wish.match is None else wish.match[0].shape[1]),
        ("windows", len(wish.windows)),
        ("offsets", len(wish.offsets)),
        ("sink_logit_mass", int(has_sink)),
        ("unit", 2),
    ]
    return [(name, count) for name, count in counted if count]


_VECTORS = ("logit_moments", "key_sets", "match", "windows", "offsets")  # results with an axis of their own


class Results(NamedTuple):
    """Raw results: out [B, H, Nq, Dv], lse and entropy [B, H, Nq], the planes [P, B, H, Nq], and topk (empty tensors
    where not asked for)."""

    out: Tensor
    lse: Tensor
    entropy: Tensor
    stats: Tensor
    topk_index: Tensor
    topk_prob: Tensor


def empty_results(q: Tensor, v: Tensor, collect: Collect, has_sink: bool) -> Results:
    """Unwritten results of the right shapes, strides and dtypes; all that tracing needs to know."""
    rows = q.shape[:3]
    count = sum(n for _, n in planes(collect, has_sink))
    top = q.shape[2] if collect.topk_rows is None else collect.topk_rows.shape[0]
    top_shape = (*q.shape[:2], top, collect.topk) if collect.topk else (0,)
    return Results(
        out=q.new_empty((*rows, v.shape[3])),
        lse=q.new_empty(rows, dtype=torch.float32),
        entropy=q.new_empty(rows if collect.entropy else (0,), dtype=torch.float32),
        stats=q.new_empty((count, *rows), dtype=torch.float32),
        topk_index=q.new_empty(top_shape, dtype=torch.int64),
        topk_prob=q.new_empty(top_shape, dtype=torch.float32),
    )


def forward(call: AttentionCall, splits: int | None = None) -> Results:
    """Out, lse and every statistic of a call. `splits`: over how many programs the keys of a row tile are split; None chooses."""
    p, wish = call.problem, call.collect
    results = empty_results(p.q, call.v, wish, p.sink_logits is not None)
    mask = lower_mask(p.mask, p.batch, p.heads, p.queries, p.keys, p.q.device)
    _sweep(call, mask, lower_edit(p.edit), lower_collect(wish), results, _splits(call) if splits is None else splits)
    if wish.topk:
        topk(p, results.stats[-2:], wish.topk_rows, results.topk_index, results.topk_prob)
    return results


def named_statistics(results: Results, collect: Collect, has_sink: bool) -> dict[str, Tensor]:
    """The results by the names of `Collect`. Only the entropy carries a gradient."""
    named: dict[str, Tensor] = {"entropy": results.entropy} if collect.entropy else {}
    start = 0
    for name, count in planes(collect, has_sink):
        part = results.stats[start : start + count].detach()
        named[name] = part.movedim(0, -1) if name in _VECTORS else part[0]
        start += count
    del named["unit"]
    if collect.topk:
        named |= {"topk_index": results.topk_index, "topk_prob": results.topk_prob.detach()}
    return named


def _splits(call: AttentionCall) -> int:
    p = call.problem
    if p.queries > SPLIT_ROWS or p.keys < 2 * SPLIT_KEYS:
        return 1
    processors = 1 if interpreted() else torch.cuda.get_device_properties(p.q.device).multi_processor_count
    return max(1, min(p.keys // SPLIT_KEYS, 2 * processors // (p.batch * p.heads), 64))


def _sweep(
    call: AttentionCall, mask: MaskArgs, edit: EditArgs, collect: CollectArgs, results: Results, splits: int
) -> None:
    p, wish = call.problem, call.collect
    extra = sum(n for name, n in planes(wish, False) if name in ("key_sets", "match", "windows", "offsets"))
    part = part_acc = None
    width = max(padded(p.q.shape[3]), padded(call.v.shape[3]))
    if splits > 1:
        part = torch.empty(splits, BASE.value + extra, *results.lse.shape, dtype=torch.float32, device=p.q.device)
        part_acc = torch.empty(splits, *results.out.shape, dtype=torch.float32, device=p.q.device)
    flags = {
        "ENTROPY": wish.entropy,
        "ROW_MAX": wish.row_max,
        "MOMENTS": wish.logit_moments,
        "SQUARE": wish.prob_square,
        "DISTANCE": wish.distance,
        "REST": wish.rest is not None,
        "BASE_2": is_plain(p),
    }
    shared = {
        "p_out": strided(results.out),
        "p_lse": results.lse,
        "p_entropy": results.entropy,
        "p_stats": results.stats,
        "p_sink": sink_vector(p),
        "p_part": part,
        "p_part_acc": part_acc,
        "ed": edit,
    }
    sizes = {"H": p.heads, "NQ": p.queries, "DV": call.v.shape[3], "splits": splits}
    launch(
        attention_fwd_kernel,
        "attention_split" if splits > 1 else "attention_fwd" if _is_lean(wish) else "attention_fwd_full",
        lambda meta: (triton.cdiv(p.queries, meta["BM"]), p.batch * p.heads, splits),
        width,
        p.q.dtype,
        {
            **shared,
            **sizes,
            **flags,
            "p_q": strided(p.q),
            "p_k": strided(p.k),
            "p_v": strided(call.v),
            "mk": mask,
            "co": collect,
            "NK": p.keys,
            "D": p.q.shape[3],
            "group": p.group,
            "offset": p.offset,
            # Nearer keys are looked at by the sums over windows and offsets, in the masked loop.
            "reach": max((*wish.windows, *(d + 1 for d in wish.offsets)), default=-(1 << 29)),
            "scale": forward_scale(p),
            "softcap": p.softcap,
            "CAUSAL": p.mask.is_causal,
            "SPLIT": splits > 1,
            "SETS": 0 if wish.key_sets is None else wish.key_sets.shape[1],
            "MATCHES": 0 if wish.match is None else wish.match[0].shape[1],
            "WINDOWS": len(wish.windows),
            "OFFSETS": len(wish.offsets),
            "BD": padded(p.q.shape[3]),
            "BDV": padded(call.v.shape[3]),
            "PAD_D": padded(p.q.shape[3]) != p.q.shape[3],
            "PAD_DV": padded(call.v.shape[3]) != call.v.shape[3],
            "PRECISION": precision(p.q.dtype),
        },
    )
    if splits > 1:
        launch(
            attention_join_kernel,
            "attention_join",
            lambda meta: (triton.cdiv(p.queries, meta["BM"]), p.batch * p.heads),
            width,
            p.q.dtype,
            {
                **shared,
                **sizes,
                **flags,
                "EXTRA": extra,
                "BDV": padded(call.v.shape[3]),
            },
        )


def _is_lean(wish: Collect) -> bool:
    """Whether few row vectors are kept, so that a larger tile fits the registers."""
    masses = [wish.key_sets, wish.rest, wish.match]
    return not (wish.logit_moments or wish.windows or wish.offsets or any(x is not None for x in masses))


def sink_vector(problem: Problem) -> Tensor | None:
    """The learned sink logits as float32 [H]."""
    return None if problem.sink_logits is None else problem.sink_logits.to(torch.float32).contiguous()
