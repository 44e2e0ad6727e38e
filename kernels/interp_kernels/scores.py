"""Logits in plain torch: the definition of s_ij that every backend must meet, on a rectangle of rows and keys or at single entries."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span, additive, additive_at, visible, visible_at


def block_scores(problem: Problem, rows: Span, cols: Span, dtype: torch.dtype) -> Tensor:
    """Final logits s_ij (scaled, capped, biased, edited) in `dtype`, [B, H, rows, cols]; -inf where hidden. Never repeats k."""
    p = problem
    q = p.q[:, :, rows.start : rows.stop].to(dtype)
    k = p.k[:, :, cols.start : cols.stop].to(dtype)
    grouped = q.reshape(p.batch, p.key_heads, p.group * q.shape[2], q.shape[3])
    s = (grouped @ k.mT).view(p.batch, p.heads, q.shape[2], k.shape[2])
    seen = visible(p.mask, p.heads, p.queries, p.keys, rows, cols, q.device)
    bias = additive(p.mask, p.queries, p.keys, rows, cols, dtype, q.device)
    scale, shift = _edits(p, dtype)
    scale = None if scale is None else (scale[:, :, rows.start : rows.stop] if scale.shape[2] > 1 else scale)[..., None]
    shift = None if shift is None else shift[:, :, None, cols.start : cols.stop]
    return _finished(p, s, bias, seen, scale, shift)


def scores_at(problem: Problem, i: Tensor, j: Tensor, dtype: torch.dtype) -> Tensor:
    """Final logits at the entries (i[e], j[e]) in `dtype`, [B, H, E]; -inf where hidden. O(E D) memory."""
    p = problem
    q = p.q[:, :, i].to(dtype).view(p.batch, p.key_heads, p.group, len(i), -1)
    s = (q * p.k[:, :, None, j].to(dtype)).sum(-1).flatten(1, 2)
    seen = visible_at(p.mask, p.heads, p.queries, p.keys, i, j)
    bias = additive_at(p.mask, p.queries, p.keys, i, j, dtype)
    scale, shift = _edits(p, dtype)
    scale = None if scale is None else scale[:, :, i] if scale.shape[2] > 1 else scale
    return _finished(p, s, bias, seen, scale, None if shift is None else shift[:, :, j])


def _edits(problem: Problem, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    edit = problem.edit
    tensors = (None, None) if edit is None else (edit.logit_scale, edit.key_bias)
    return tuple(None if x is None else x.to(dtype) for x in tensors)  # pyright: ignore[reportReturnType] (of two)


def _finished(
    problem: Problem, s: Tensor, bias: Tensor | None, seen: Tensor, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    s = s * problem.scale
    if problem.softcap is not None:
        s = problem.softcap * torch.tanh(s / problem.softcap)
    if bias is not None:
        # Hidden entries may hold -inf, which times a logit_scale of 0 would give the scale a NaN gradient.
        s = s + bias.masked_fill(~seen, 0.0)
    s = s if scale is None else s * scale
    s = s if shift is None else s + shift
    return s.masked_fill(~seen, float("-inf"))
