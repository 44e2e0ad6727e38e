"""Host side of the forward: lowers an `AttentionCall`, launches the kernels, and cuts the planes of statistics into named results."""

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
    """`Collect` for the kernels: key sets as one word a key, ids by kind, window widths."""

    set_words: Strided | None = None
    rest: Strided | None = None
    row_ids: Strided | None = None
    key_ids: Strided | None = None
    windows: tuple[int, ...] | None = None
    offsets: tuple[int, ...] | None = None


def lower_collect(collect: Collect) -> CollectArgs:
    """`CollectArgs` of a wish."""
    words = None
    if collect.key_sets is not None:
        words = torch.zeros_like(collect.key_sets[:, 0], dtype=torch.int32)
        for c in range(collect.key_sets.shape[1]):
            words |= collect.key_sets[:, c].to(torch.int32) << c
    return CollectArgs(
        set_words=None if words is None else keyed(words),
        rest=None if collect.rest is None else keyed(collect.rest.to(torch.int8)),
        row_ids=None if collect.match is None else keyed(collect.match[0]),
        key_ids=None if collect.match is None else keyed(collect.match[1]),
        windows=collect.windows or None,
        offsets=collect.offsets or None,
    )


def planes(call: AttentionCall) -> list[tuple[str, int]]:
    """Names and counts of the planes of statistics, in the order in which the kernels write them."""
    wish = call.collect
    counted = [
        ("entropy", int(wish.entropy)),
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
        ("sink_logit_mass", int(call.problem.sink_logits is not None)),
        ("unit", 2 * (wish.topk > 0)),
    ]
    return [(name, count) for name, count in counted if count]


_VECTORS = ("logit_moments", "key_sets", "match", "windows", "offsets")  # results with an axis of their own


def forward(call: AttentionCall, splits: int | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Out, lse and every statistic of a call. `splits`: over how many programs the keys of a row tile are split; None chooses."""
    p, wish = call.problem, call.collect
    mask = lower_mask(p.mask, p.batch, p.heads, p.queries, p.keys, p.q.device)
    edit = lower_edit(p.edit)
    layout = planes(call)
    out = torch.empty(p.batch, p.heads, p.queries, call.v.shape[3], dtype=p.q.dtype, device=p.q.device)
    rows = (p.batch, p.heads, p.queries)
    lse = torch.empty(rows, dtype=torch.float32, device=p.q.device)
    stats = torch.empty(sum(n for _, n in layout), *rows, dtype=torch.float32, device=p.q.device)
    _sweep(call, mask, edit, lower_collect(wish), out, lse, stats, _splits(call) if splits is None else splits)
    named: dict[str, Tensor] = {}
    start = 0
    for name, count in layout:
        named[name] = stats[start : start + count].movedim(0, -1) if name in _VECTORS else stats[start]
        start += count
    if wish.topk:
        unit = stats[start - 2 :]
        del named["unit"]
        named["topk_index"], named["topk_prob"] = topk(p, unit, wish.topk, wish.topk_rows)
    return out, lse, named


def _splits(call: AttentionCall) -> int:
    p = call.problem
    if p.queries > SPLIT_ROWS or p.keys < 2 * SPLIT_KEYS:
        return 1
    processors = 1 if interpreted() else torch.cuda.get_device_properties(p.q.device).multi_processor_count
    return max(1, min(p.keys // SPLIT_KEYS, 2 * processors // (p.batch * p.heads), 64))


def _sweep(
    call: AttentionCall, mask: MaskArgs, edit: EditArgs, collect: CollectArgs, out: Tensor, lse: Tensor, stats: Tensor, splits: int
) -> None:
    p, wish = call.problem, call.collect
    extra = sum(n for name, n in planes(call) if name in ("key_sets", "match", "windows", "offsets"))
    part = part_acc = None
    width = max(padded(p.q.shape[3]), padded(call.v.shape[3]))
    if splits > 1:
        part = torch.empty(splits, BASE.value + extra, *lse.shape, dtype=torch.float32, device=lse.device)
        part_acc = torch.empty(splits, *out.shape, dtype=torch.float32, device=lse.device)
    flags = {
        "ENTROPY": wish.entropy,
        "ROW_MAX": wish.row_max,
        "MOMENTS": wish.logit_moments,
        "SQUARE": wish.prob_square,
        "DISTANCE": wish.distance,
        "UNIT": wish.topk > 0,
        "BASE_2": is_plain(p),
    }
    shared = {"p_out": strided(out), "p_lse": lse, "p_stats": stats, "p_sink": sink_vector(call), "p_part": part, "p_part_acc": part_acc, "ed": edit}
    sizes = {"H": p.heads, "NQ": p.queries, "DV": call.v.shape[3], "splits": splits}
    launch(
        attention_fwd_kernel,
        "attention_fwd",
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
        attention_join_kernel[(triton.cdiv(p.queries, 16), p.batch * p.heads)](
            **shared, **sizes, **flags, REST=wish.rest is not None, EXTRA=extra, BM=16, BDV=padded(call.v.shape[3])
        )


def sink_vector(call: AttentionCall) -> Tensor | None:
    """The learned sink logits as float32 [H]."""
    sink = call.problem.sink_logits
    return None if sink is None else sink.detach().to(torch.float32).contiguous()
