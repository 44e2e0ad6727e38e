"""The k largest weights of chosen rows: a sweep of its own over q and k (no values), so that the forward keeps its registers.

Each program holds k slots a row (value, key number) and scans the keys upwards; a tile gives up its best keys one by
one while any row's best
beats that row's worst slot. Ties: keys arrive by rising number and replace only what is strictly smaller, so the lowest numbers stay.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.triton_args import forward_scale, is_plain
from interp_kernels.triton_masks import (
    head_limits,
    load_rows,
    product,
    row_logit_scale,
    tile_logits,
    visible_tile,
    weight,
)
from interp_kernels.triton_tiles import launch, map_args


@triton.jit
def attention_topk_kernel(
    p_q, p_k, p_unit, p_rows, p_index, p_prob, mk, ed, H, T, NQ, NK, D, group, offset, scale, softcap, K,
    CAUSAL: tl.constexpr, BASE_2: tl.constexpr, SLOTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD:
    tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The K (at most SLOTS) best keys of BM of the T chosen rows. Grid: tiles of rows, B * H."""
    bh = tl.program_id(1).to(tl.int64)
    b = bh // H
    h = bh % H
    o_t = tl.program_id(0) * BM + tl.arange(0, BM)
    m_t = o_t < T
    o_m = tl.load(p_rows + o_t, mask=m_t, other=0).to(tl.int32)
    o_i = o_m[:, None]
    o_d = tl.arange(0, BD)[None, :]
    o_slot = tl.arange(0, SLOTS)[None, :]
    b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, o_d, p_q.r, NQ, D, True, True)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    limits = head_limits(mk, b, h, NK)
    last = tl.max(tl.where(m_t, o_m, 0), 0) + offset
    end = NK
    if CAUSAL and mk.prefix is None:
        end = tl.minimum(NK, last + 1)
    # Empty slots are told apart by their own negative numbers; slots beyond K hold +inf and are never the worst.
    b_value = tl.where((o_slot < K) & (o_t[:, None] >= 0), -float("inf"), float("inf"))
    b_index = tl.zeros([BM, SLOTS], tl.int32) - 1 - o_slot
    for j0 in range(0, end, BN):
        o_n = j0 + tl.arange(0, BN)
        b_k = load_rows(p_k.p + b * p_k.b + (h // group) * p_k.h, o_n[:, None], o_d, p_k.r, NK, D, True, True)
        b_raw = product(b_q, tl.trans(b_k), None, PRECISION)
        b_s, _ = tile_logits(b_raw, mk, ed, b_factor, b, h, o_i, o_n[None, :], NQ, NK, offset, scale, softcap)
        m_vis = visible_tile(mk, ed, limits, b, h, o_i, o_n[None, :], NQ, NK, offset, CAUSAL)
        b_s = tl.where(m_vis & m_t[:, None], b_s, -float("inf"))
        b_best = tl.max(b_s, 1)
        b_worst = tl.min(b_value, 1)
        while tl.max((b_best > b_worst).to(tl.int32), 0) > 0:
            o_best = tl.argmax(b_s, 1)
            # Of the smallest slots the one with the highest number leaves.
            o_leaves = tl.max(tl.where(b_value == b_worst[:, None], b_index, -2147483647), 1)
            m_slot = (b_index == o_leaves[:, None]) & (b_value == b_worst[:, None]) & (b_best > b_worst)[:, None]
            b_value = tl.where(m_slot, b_best[:, None], b_value)
            b_index = tl.where(m_slot, (j0 + o_best)[:, None], b_index)
            b_s = tl.where(tl.arange(0, BN)[None, :] == o_best[:, None], -float("inf"), b_s)
            b_best = tl.max(b_s, 1)
            b_worst = tl.min(b_value, 1)

    plane = tl.num_programs(1).to(tl.int64) * NQ
    b_ref = tl.load(p_unit + bh * NQ + o_m, mask=m_t, other=0.0)
    b_inverse = tl.load(p_unit + plane + bh * NQ + o_m, mask=m_t, other=0.0)
    b_value = tl.where(o_slot < K, b_value, -float("inf"))
    for place in range(0, K):
        b_best = tl.max(b_value, 1)
        o_first = tl.min(tl.where((b_value == b_best[:, None]) & (b_index >= 0), b_index, 2147483647), 1)
        m_found = b_best > -float("inf")
        p_place = (bh * T + o_t) * K + place
        tl.store(p_index + p_place, tl.where(m_found, o_first, -1).to(tl.int64), mask=m_t)
        tl.store(p_prob + p_place, tl.where(m_found, weight(b_best - b_ref, BASE_2) * b_inverse, 0.0), mask=m_t)
        b_value = tl.where(b_index == o_first[:, None], -float("inf"), b_value)


def topk(problem: Problem, unit: Tensor, rows: Tensor | None, index: Tensor, prob: Tensor) -> None:
    """Fill `index` (int64) and `prob` (float32), [B, H, T, k], falling, on the rows `rows` (None: all).

    `unit` [2, B, H, Nq]: the forward's reference logit (in its units) and inverse sum; weights from them do not carry the rounding of lse.
    """
    p = problem
    count, k = index.shape[2:]
    if count:
        chosen = torch.arange(p.queries, device=p.q.device) if rows is None else rows.contiguous()
        own = {
            "p_unit": unit,
            "p_rows": chosen,
            "p_index": index,
            "p_prob": prob,
            "T": count,
            "K": k,
            "BASE_2": is_plain(p),
            "SLOTS": max(2, triton.next_power_of_2(k)),
        }
        args = map_args(p)
        launch(
            attention_topk_kernel,
            "attention_topk",
            lambda meta: (triton.cdiv(count, meta["BM"]), p.batch * p.heads),
            args["BD"],
            p.q.dtype,
            {**args, **own, "scale": forward_scale(p)},
        )
