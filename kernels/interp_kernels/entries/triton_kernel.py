"""Single attention weights p_ij = exp(s_ij - lse_i) at a list of pairs: BM pairs a program, D products each, no tensor core, O(E D)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.triton_masks import head_limits, load_lse, load_rows, row_logit_scale, tile_weights, visible_tile
from interp_kernels.triton_tiles import launch, map_args, row_lse


@triton.jit
def entries_fwd_kernel(
    p_q, p_k, p_lse, p_i, p_j, p_weight, mk, ed, H, E, NQ, NK, D, group, offset, scale, softcap,
    CAUSAL: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BM pairs of one head. Grid: tiles of pairs, B * H."""
    bh = tl.program_id(1).to(tl.int64)
    b = bh // H
    h = bh % H
    o_e = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    m_e = o_e < E
    o_i = tl.load(p_i + o_e, mask=m_e, other=0).to(tl.int32)[:, None]
    o_j = tl.load(p_j + o_e, mask=m_e, other=0).to(tl.int32)[:, None]
    o_d = tl.arange(0, BD)[None, :]
    b_q = load_rows(p_q.p + b * p_q.b + h * p_q.h, o_i, o_d, p_q.r, NQ, D, True, True).to(tl.float32)
    b_k = load_rows(p_k.p + b * p_k.b + (h // group) * p_k.h, o_j, o_d, p_k.r, NK, D, True, True).to(tl.float32)
    b_raw = tl.sum(b_q * b_k, 1)[:, None]
    m_vis = visible_tile(mk, ed, head_limits(mk, b, h, NK), b, h, o_i, o_j, NQ, NK, offset, CAUSAL)
    b_factor = row_logit_scale(ed, b, h, o_i, NQ)
    b_lse = load_lse(p_lse + bh * NQ, o_i, NQ)
    _, b_p, _ = tile_weights(
        b_raw, b_lse, m_vis, mk, ed, b_factor, b, h, o_i, o_j, NQ, NK, offset, scale, softcap, True
    )
    tl.store(p_weight + bh * E + o_e[:, None], b_p, mask=m_e[:, None])


def weights_at(problem: Problem, lse: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Float32 [B, H, E] at rows i and keys j (int64 [E]); 0 where the key is hidden or does not exist."""
    p = problem
    weight = torch.empty(p.batch, p.heads, len(i), dtype=torch.float32, device=p.q.device)
    if len(i):
        args = map_args(p)
        launch(
            entries_fwd_kernel,
            "entries_fwd",
            lambda meta: (triton.cdiv(len(i), meta["BM"]), p.batch * p.heads),
            args["BD"],
            p.q.dtype,
            {
                **args,
                "p_lse": row_lse(lse),
                "p_i": i.contiguous(),
                "p_j": j.contiguous(),
                "p_weight": weight,
                "E": len(i),
            },
        )
    return weight
