"""The definition of a `Mask` in plain torch, evaluated on a rectangle of rows and keys; and the structure a fast sweep needs (bounds, bits).

Backends in torch call `visible` and `additive`; the fused ones read `row_bounds`, `hide_bits` and the mask's own tensors, and are tested
against these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp_kernels.spec.mask import Mask


@dataclass(frozen=True)
class Span:
    """A half-open range of row or key numbers."""

    start: int
    stop: int

    def arange(self, device: torch.device | str) -> Tensor:
        """The numbers, int64 [stop - start]."""
        return torch.arange(self.start, self.stop, device=device)


@dataclass(frozen=True)
class _Where:
    """Which entries are asked for: row numbers i and key numbers j that broadcast to the answer's last axes, and the indices that read there."""

    i: Tensor
    j: Tensor
    rows: slice | Tensor
    cols: slice | Tensor

    @staticmethod
    def rectangle(rows: Span, cols: Span, device: torch.device | str) -> _Where:
        i, j = rows.arange(device)[:, None], cols.arange(device)[None, :]
        return _Where(i, j, slice(rows.start, rows.stop), slice(cols.start, cols.stop))

    @property
    def shape(self) -> torch.Size:
        return self.i.shape if self.i.ndim == 1 else torch.Size((self.i.shape[0], self.j.shape[1]))

    def of_rows(self, x: Tensor) -> Tensor:
        """x [..., Nq] at the rows, with an axis for heads put in: [..., 1, *i.shape]."""
        return x[..., self.rows].reshape(*x.shape[:-1], 1, *self.i.shape)

    def of_keys(self, x: Tensor) -> Tensor:
        """x [..., Nk] at the keys: [..., 1, *j.shape]."""
        return x[..., self.cols].reshape(*x.shape[:-1], 1, *self.j.shape)

    def per_batch(self, x: Tensor) -> Tensor:
        return x.to(torch.int64).view(-1, 1, *(1,) * self.i.ndim)

    def per_head(self, x: Tensor) -> Tensor:
        return x.view(1, -1, *(1,) * self.i.ndim)


def visible(
    mask: Mask, heads: int, queries: int, keys: int, rows: Span, cols: Span, device: torch.device | str
) -> Tensor:
    """Which entries of the rectangle rows x cols exist: bool [B or 1, H or 1, rows, cols]."""
    return _visible(mask, heads, queries, keys, _Where.rectangle(rows, cols, device))


def visible_at(mask: Mask, heads: int, queries: int, keys: int, i: Tensor, j: Tensor) -> Tensor:
    """Which of the entries (i[e], j[e]) exist: bool [B or 1, H or 1, E]; i and j int64 [E]."""
    return _visible(mask, heads, queries, keys, _Where(i, j, i, j))


def additive(
    mask: Mask, queries: int, keys: int, rows: Span, cols: Span, dtype: torch.dtype, device: torch.device | str
) -> Tensor | None:
    """What the mask adds to the logits of visible entries: [B or 1, H or 1, rows, cols], or None when it adds nothing."""
    return _additive(mask, queries, keys, dtype, _Where.rectangle(rows, cols, device))


def additive_at(mask: Mask, queries: int, keys: int, i: Tensor, j: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What the mask adds to the logits at (i[e], j[e]): [B or 1, H or 1, E], or None when it adds nothing."""
    return _additive(mask, queries, keys, dtype, _Where(i, j, i, j))


def _visible(mask: Mask, heads: int, queries: int, keys: int, at: _Where) -> Tensor:
    j = at.j
    pos = at.i + mask.resolved_offset(queries, keys)
    first = j if mask.left is None else j - at.per_batch(mask.left)
    seen: Tensor = torch.ones((), dtype=torch.bool, device=j.device)
    if mask.is_causal or mask.window is not None:
        seen = j <= pos if mask.is_causal else j < pos + (mask.window or 0)
        if mask.prefix_length is not None:
            seen = seen | (first < at.per_batch(mask.prefix_length))
    window = at.per_head(mask.head_windows) if mask.head_windows is not None else mask.window
    if window is not None:
        near = j > pos - window
        if mask.head_sinks is not None:
            near = near | (first < at.per_head(mask.head_sinks))
        seen = seen & near
    if mask.left is not None:
        seen = seen & (first >= 0)
    if mask.right is not None:
        seen = seen & (j < keys - at.per_batch(mask.right))
    if mask.query_documents is not None and mask.key_documents is not None:
        seen = seen & (at.of_rows(mask.query_documents) == at.of_keys(mask.key_documents))
    for r in mask.hidden:
        cut = at.of_rows(r.rows) & at.of_keys(r.keys)
        if r.heads is not None:
            chosen = torch.zeros(heads, dtype=torch.bool, device=j.device)
            chosen[list(r.heads)] = True
            cut = cut & at.per_head(chosen)
        seen = seen & ~cut
    if mask.block_keep is not None and mask.block_size is not None:
        bq, bk = mask.block_size
        seen = seen & mask.block_keep[:, :, at.i // bq, j // bk]
    if mask.dense_bias is not None:
        part = mask.dense_bias[:, :, at.rows, at.cols]
        seen = seen & (part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2)
    lead = seen.shape[:2] if seen.ndim == 2 + at.i.ndim else (1, 1)
    return seen.expand(*lead, *at.shape)


def _additive(mask: Mask, queries: int, keys: int, dtype: torch.dtype, at: _Where) -> Tensor | None:
    total = None
    if mask.alibi_slopes is not None:
        gap = (at.i + mask.resolved_offset(queries, keys) - at.j).abs()
        total = -at.per_head(mask.alibi_slopes.to(dtype)) * gap.to(dtype)
    if mask.dense_bias is not None and mask.dense_bias.dtype != torch.bool:
        part = mask.dense_bias[:, :, at.rows, at.cols].to(dtype)
        total = part if total is None else total + part
    return total


def dense_bias(
    mask: Mask, batch: int, heads: int, queries: int, keys: int, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """The mask as the additive tensor of eager attention, [batch, 1 or heads, Nq, Nk]: lowest value of `dtype` where hidden. O(Nq Nk)."""
    rows, cols = Span(0, queries), Span(0, keys)
    seen = visible(mask, heads, queries, keys, rows, cols, device)
    bias = additive(mask, queries, keys, rows, cols, dtype, device)
    zero = torch.zeros((), dtype=dtype, device=device)
    bias = torch.where(seen, zero if bias is None else bias, torch.finfo(dtype).min)
    return bias.expand(batch, -1, -1, -1)


def visible_count(mask: Mask, batch: int, heads: int, queries: int, keys: int, device: torch.device | str) -> Tensor:
    """Number of visible keys of every row, int64 [B or 1, H or 1, Nq]; closed form for plain masks, else row blocks of bounded memory."""
    plain = mask.query_documents is None and not mask.hidden and mask.block_keep is None and mask.dense_bias is None
    if plain and mask.prefix_length is None:
        pos = torch.arange(queries, device=device)[None, None, :] + mask.resolved_offset(queries, keys)
        left = _per_batch(mask.left, device)
        low, high = left, keys - _per_batch(mask.right, device)
        if mask.is_causal:
            high = torch.minimum(high, pos + 1)
        elif mask.window is not None:
            high = torch.minimum(high, pos + mask.window)
        if mask.head_windows is not None and mask.head_sinks is not None:
            low = torch.maximum(low, pos - mask.head_windows.to(device).view(1, -1, 1) + 1)
            sinks = torch.minimum(torch.minimum(left + mask.head_sinks.to(device).view(1, -1, 1), low), high) - left
            return (high - low).clamp(min=0) + sinks.clamp(min=0)
        if mask.window is not None:
            low = torch.maximum(low, pos - mask.window + 1)
        return (high - low).clamp(min=0).expand(-1, -1, queries)
    whole = Span(0, keys)
    blocks = _row_spans(batch * heads, queries, keys)
    return torch.cat([visible(mask, heads, queries, keys, s, whole, device).sum(-1) for s in blocks], dim=-1)


def visible_rows(
    mask: Mask, rows: Tensor, batch: int, heads: int, queries: int, keys: int, device: torch.device | str
) -> Tensor:
    """Number of rows of each subset that see a key, int64 [B or 1, H or 1, S, Nk]; rows bool [B or 1, S, Nq]. Row blocks of bounded memory."""
    whole = Span(0, keys)
    total = torch.zeros((), dtype=torch.int64, device=device)
    for span in _row_spans(batch * heads, queries, keys):
        seen = visible(mask, heads, queries, keys, span, whole, device)
        # A block holds fewer than 2**24 rows, so float32 counts them exactly.
        total = total + (rows[:, None, :, span.start : span.stop].float() @ seen.float()).long()
    return total


def _row_spans(maps: int, queries: int, keys: int) -> list[Span]:
    step = max(1, 2**24 // max(keys * maps, 1))
    return [Span(r, min(r + step, queries)) for r in range(0, queries, step)]


def row_bounds(mask: Mask, queries: int, keys: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """For plain and sink-window masks: the interval [low, high) of each row before sinks, prefix, padding, documents, edges and blocks.

    Returns two int64 tensors [Nq]; low uses the widest head window.
    """
    pos = torch.arange(queries, device=device) + mask.resolved_offset(queries, keys)
    zero = torch.zeros_like(pos)
    high = pos + 1 if mask.is_causal else pos + mask.window if mask.window is not None else zero + keys
    widest = int(mask.head_windows.max()) if mask.head_windows is not None else mask.window
    low = zero if widest is None else pos - widest + 1
    return low.clamp(0, keys), high.clamp(0, keys)


def hide_bits(
    mask: Mask, heads: int, queries: int, keys: int, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The cut edges as bit words, int32 [B or 1, Nq], [B or 1, Nk] and [H]: (i, j) is cut in head h if all three words share a bit."""
    if not mask.hidden:
        return None
    row_words = torch.zeros(1, queries, dtype=torch.int32, device=device)
    key_words = torch.zeros(1, keys, dtype=torch.int32, device=device)
    head_words = torch.zeros(heads, dtype=torch.int32, device=device)
    for bit, r in enumerate(mask.hidden):
        row_words = row_words | (r.rows.to(torch.int32) << bit)
        key_words = key_words | (r.keys.to(torch.int32) << bit)
        index = slice(None) if r.heads is None else list(r.heads)
        head_words[index] |= 1 << bit
    return row_words, key_words, head_words


def _per_batch(x: Tensor | None, device: torch.device | str) -> Tensor:
    return torch.zeros(1, 1, 1, dtype=torch.int64, device=device) if x is None else x.to(torch.int64)[:, None, None]
