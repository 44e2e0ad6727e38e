"""Logits of a rectangle of rows and keys in plain torch: the definition of s_ij that every backend must meet."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span, additive, visible


def block_scores(problem: Problem, rows: Span, cols: Span, dtype: torch.dtype) -> Tensor:
    """Final logits s_ij (scaled, capped, biased, edited) in `dtype`, [B, H, rows, cols]; -inf where hidden. Never repeats k."""
    p = problem
    q = p.q[:, :, rows.start : rows.stop].to(dtype)
    k = p.k[:, :, cols.start : cols.stop].to(dtype)
    grouped = q.reshape(p.batch, p.key_heads, p.group * q.shape[2], q.shape[3])
    s = (grouped @ k.mT).view(p.batch, p.heads, q.shape[2], k.shape[2]) * p.scale
    if p.softcap is not None:
        s = p.softcap * torch.tanh(s / p.softcap)
    seen = visible(p.mask, p.heads, p.queries, p.keys, rows, cols, q.device)
    bias = additive(p.mask, p.queries, p.keys, rows, cols, dtype, q.device)
    if bias is not None:
        # Hidden entries may hold -inf, which times a logit_scale of 0 would give the scale a NaN gradient.
        s = s + bias.masked_fill(~seen, 0.0)
    if p.edit is not None:
        if p.edit.logit_scale is not None:
            factor = p.edit.logit_scale.to(dtype)
            factor = factor[:, :, rows.start : rows.stop] if factor.shape[2] > 1 else factor
            s = s * factor[..., None]
        if p.edit.key_bias is not None:
            s = s + p.edit.key_bias[:, :, None, cols.start : cols.stop].to(dtype)
    return s.masked_fill(~seen, float("-inf"))
