"""`Mask`: which keys a query may see, said by structure and never by an Nq x Nk tensor (except `dense`, which is slow and says so).

A row i has the position ``pos = i + offset``. Key j is visible to row i of head h in batch item b if and only if all hold:

1. upper edge: ``j < pos + 1`` (causal), ``j < pos + window`` (full with a window) or always (full); or ``j < left + prefix``;
2. lower edge: ``j > pos - window_h``, or ``j < left + sinks_h`` (window_h from `sink_window` where given, else `window`, else no edge);
3. padding: ``left <= j < Nk - right``;
4. documents: the ids of row and key are equal;
5. edges: no `hide` rectangle of this head holds (i, j);
6. blocks: ``keep[h, i // size, j // size]``;
7. the dense mask, where there is one, holds True or a finite additive value above half of its dtype's lowest.

`alibi` and a floating `dense` mask add to the logits of visible keys. A row that sees nothing gives out 0, lse -inf, entropy 0
(with a learned sink logit: lse that logit, all mass on the sink).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

MAX_HIDDEN_RECTANGLES = 31


@dataclass(frozen=True, kw_only=True, eq=False)
class Hidden:
    """One rectangle of cut edges: the product of a row set, a key set and a head set (`Mask.hide`)."""

    rows: Tensor
    keys: Tensor
    heads: tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """Structural attention mask; build it with `Mask.causal`, `Mask.full` or `Mask.dense` and refine it with the methods.

    Every method returns a new mask. Sizes are checked against a call by `check`.
    """

    is_causal: bool
    offset: int | None = None
    window: int | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    query_documents: Tensor | None = None
    key_documents: Tensor | None = None
    prefix_length: Tensor | None = None
    hidden: tuple[Hidden, ...] = ()
    head_sinks: Tensor | None = None
    head_windows: Tensor | None = None
    block_keep: Tensor | None = None
    block_size: tuple[int, int] | None = None
    alibi_slopes: Tensor | None = None
    dense_bias: Tensor | None = None

    # ------------------------------------------------------------------ construction
    @staticmethod
    def causal(offset: int | None = None, window: int | None = None) -> Mask:
        """Keys up to the row's own position; `offset` None means Nk - Nq, so that the last row sees the last key (decode).

        Args:
            offset: position of row 0 on the key axis.
            window: number of visible keys that end with the row's own (Mistral's sliding window); None for all.
        """
        return Mask(is_causal=True, offset=offset, window=_positive("window", window))

    @staticmethod
    def full(window: int | None = None, offset: int = 0) -> Mask:
        """All keys, or, with a window w, the keys with ``abs(i + offset - j) < w`` (bidirectional)."""
        return Mask(is_causal=False, offset=offset, window=_positive("window", window))

    @staticmethod
    def dense(bias: Tensor) -> Mask:
        """A model's own mask or position bias, [B or 1, H or 1, Nq, Nk], bool (True = visible) or additive float. Slow: O(Nq Nk)."""
        return Mask.full().biased(bias)

    def biased(self, bias: Tensor) -> Mask:
        """Add a dense mask (bool) or bias (float), [B or 1, H or 1, Nq, Nk], to this mask. Slow: O(Nq Nk)."""
        if bias.ndim != 4:
            raise ValueError(f"bias: wanted 4 axes [batch, head, query, key], got shape {tuple(bias.shape)}")
        if self.dense_bias is not None:
            bias = _as_additive(self.dense_bias) + _as_additive(bias)
        return replace(self, dense_bias=bias)

    def padded(self, left: Tensor | None = None, right: Tensor | None = None) -> Mask:
        """Hide the first `left[b]` and the last `right[b]` keys of each batch item (int tensors [B])."""
        return replace(self, left=_int_vector("left", left), right=_int_vector("right", right))

    def documents(self, ids: Tensor, key_ids: Tensor | None = None) -> Mask:
        """Rows see only keys of their own document. `ids` [N] or [B, N] int; `key_ids` where the axes differ (decode)."""
        key_ids = ids if key_ids is None else key_ids
        return replace(self, query_documents=_with_batch(ids, 2), key_documents=_with_batch(key_ids, 2))

    def prefix(self, n: int | Tensor) -> Mask:
        """The first n keys after the left padding are visible to every row (prefix language models); n int or int tensor [B]."""
        return replace(self, prefix_length=torch.as_tensor(n).reshape(-1))

    def hide(self, rows: Tensor, keys: Tensor, heads: Sequence[int] | None = None) -> Mask:
        """Cut the edges rows x keys (bool, [Nq] or [B, Nq] and [Nk] or [B, Nk]) in the given heads (None: all heads)."""
        if rows.dtype != torch.bool or keys.dtype != torch.bool:
            raise ValueError(f"hide: wanted bool membership tensors, got {rows.dtype} rows and {keys.dtype} keys")
        if len(self.hidden) == MAX_HIDDEN_RECTANGLES:
            raise ValueError(
                f"hide: at most {MAX_HIDDEN_RECTANGLES} rectangles fit one mask; join rectangles that share rows or keys"
            )
        chosen = None if heads is None else tuple(int(h) for h in heads)
        return replace(
            self, hidden=(*self.hidden, Hidden(rows=_with_batch(rows, 2), keys=_with_batch(keys, 2), heads=chosen))
        )

    def sink_window(self, sinks: int | Tensor, window: int | Tensor) -> Mask:
        """Per head: the first `sinks[h]` keys and the last `window[h]` keys (StreamingLLM); ints or int tensors [H].

        A head that shall see everything gets a window of at least Nk.
        """
        sinks, window = torch.as_tensor(sinks).reshape(-1), torch.as_tensor(window).reshape(-1)
        if bool((sinks < 0).any()) or bool((window < 1).any()):
            raise ValueError("sink_window: wanted sinks >= 0 and window >= 1 for every head")
        n = max(len(sinks), len(window))
        return replace(self, head_sinks=sinks.expand(n), head_windows=window.expand(n))

    def blocks(self, keep: Tensor, size: int | tuple[int, int]) -> Mask:
        """Keep only the blocks where `keep` is True: bool [H or 1, nq, nk] or [B or 1, H or 1, nq, nk], block (rows, keys) `size`."""
        if keep.dtype != torch.bool or keep.ndim not in (3, 4):
            raise ValueError(f"blocks: wanted a bool tensor with 3 or 4 axes, got {keep.dtype} {tuple(keep.shape)}")
        pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        return replace(self, block_keep=_with_batch(keep, 4), block_size=pair)

    def alibi(self, slopes: Tensor) -> Mask:
        """Add ``-slopes[h] * abs(i + offset - j)`` to the logits (ALiBi; Press et al. 2022); slopes [H]."""
        return replace(self, alibi_slopes=slopes.reshape(-1))

    # ------------------------------------------------------------------ use
    @property
    def is_dense(self) -> bool:
        """Whether an Nq x Nk tensor is part of this mask."""
        return self.dense_bias is not None

    @property
    def is_positional(self) -> bool:
        """Whether visibility depends on i - j alone: no padding, documents, prefix, edges, sinks, blocks or dense part."""
        others = (self.left, self.right, self.query_documents, self.prefix_length, self.head_sinks, self.block_keep)
        return all(x is None for x in (*others, self.dense_bias)) and not self.hidden

    def resolved_offset(self, queries: int, keys: int) -> int:
        """Position of row 0 on the key axis."""
        if self.offset is not None:
            return self.offset
        return keys - queries if self.is_causal else 0

    def to(self, device: torch.device | str) -> Mask:
        """The same mask with its tensors on `device`."""
        moved = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        hidden = tuple(Hidden(rows=r.rows.to(device), keys=r.keys.to(device), heads=r.heads) for r in self.hidden)
        return replace(self, hidden=hidden, **moved)

    def select(self, batch: int, head: int) -> Mask:
        """The mask of one batch item and one head, as a mask for B = H = 1."""
        return self.narrow(slice(batch, batch + 1), slice(head, head + 1))

    def narrow(self, batch: slice, heads: slice) -> Mask:
        """The mask of a range of batch items and of heads (slices with start and stop)."""

        def one_batch(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[batch] if x.shape[0] > 1 else x

        def one_head(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[heads] if x.shape[0] > 1 else x

        def both(x: Tensor | None) -> Tensor | None:
            x = one_batch(x)
            return None if x is None else x[:, heads] if x.shape[1] > 1 else x

        inside = range(heads.start, heads.stop)
        hidden = tuple(
            Hidden(
                rows=one_batch(r.rows),  # pyright: ignore[reportArgumentType] (never None)
                keys=one_batch(r.keys),  # pyright: ignore[reportArgumentType]
                heads=None if r.heads is None else tuple(h - heads.start for h in r.heads if h in inside),
            )
            for r in self.hidden
            if r.heads is None or any(h in inside for h in r.heads)
        )
        return replace(
            self,
            hidden=hidden,
            **{name: one_batch(getattr(self, name)) for name in _BATCH_FIELDS},
            **{name: one_head(getattr(self, name)) for name in _HEAD_FIELDS},
            **{name: both(getattr(self, name)) for name in _BATCH_HEAD_FIELDS},
        )

    def sees(self, batch: int, i: Tensor, j: Tensor, queries: int, keys: int) -> Tensor:
        """Whether row i[e] sees key j[e] in one batch item, by position, window, padding and documents only: bool [E].

        For checks of a translation; sinks, edges, blocks and dense masks differ by head and are not looked at.
        """
        pos = i + self.resolved_offset(queries, keys)
        left = 0 if self.left is None else int(self.left[batch])
        right = 0 if self.right is None else int(self.right[batch])
        seen = (j >= left) & (j < keys - right)
        if self.is_causal:
            seen = seen & (j <= pos)
        if self.window is not None:
            seen = seen & (j > pos - self.window) & (j < pos + self.window)
        if self.query_documents is not None and self.key_documents is not None:
            item = min(batch, self.query_documents.shape[0] - 1), min(batch, self.key_documents.shape[0] - 1)
            seen = seen & (self.query_documents[item[0], i] == self.key_documents[item[1], j])
        return seen

    def crop(self, queries: int, keys: int, *, of: tuple[int, int]) -> Mask:
        """The mask of the first `queries` rows and `keys` keys of a call with `of` = (Nq, Nk) rows and keys; every row keeps its position."""

        def cut(x: Tensor | None, n: int) -> Tensor | None:
            return None if x is None else x[:, :n]

        blocks = self.block_keep
        if blocks is not None and self.block_size is not None:
            blocks = blocks[:, :, : -(-queries // self.block_size[0]), : -(-keys // self.block_size[1])]
        return replace(
            self,
            offset=self.resolved_offset(*of),
            right=None if self.right is None else (self.right - (of[1] - keys)).clamp(min=0),
            query_documents=cut(self.query_documents, queries),
            key_documents=cut(self.key_documents, keys),
            hidden=tuple(Hidden(rows=r.rows[:, :queries], keys=r.keys[:, :keys], heads=r.heads) for r in self.hidden),
            block_keep=blocks,
            dense_bias=None if self.dense_bias is None else self.dense_bias[:, :, :queries, :keys],
        )

    def check(self, batch: int, heads: int, queries: int, keys: int) -> None:
        """Raise ValueError, naming every mismatch at once, if this mask cannot serve a call of these sizes."""
        wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
            ("padded(left)", self.left, (batch,)),
            ("padded(right)", self.right, (batch,)),
            ("prefix", self.prefix_length, (batch,)),
            ("documents(ids)", self.query_documents, (batch, queries)),
            ("documents(key_ids)", self.key_documents, (batch, keys)),
            ("sink_window(sinks)", self.head_sinks, (heads,)),
            ("sink_window(window)", self.head_windows, (heads,)),
            ("alibi", self.alibi_slopes, (heads,)),
            ("dense bias", self.dense_bias, (batch, heads, queries, keys)),
        ]
        if self.block_keep is not None and self.block_size is not None:
            bq, bk = self.block_size
            wanted.append(("blocks", self.block_keep, (batch, heads, -(-queries // bq), -(-keys // bk))))
        for r in self.hidden:
            wanted += [("hide(rows)", r.rows, (batch, queries)), ("hide(keys)", r.keys, (batch, keys))]
        # Leading batch and head axes broadcast from 1; the query, key and block axes must match.
        bad = [
            f"{name}: wanted {size}, got {tuple(x.shape)}"
            for name, x, size in wanted
            if x is not None and not _fits(x, size, loose=_LOOSE_AXES.get(name, 1))
        ]
        bad += [
            f"hide(heads): wanted heads below {heads}, got {r.heads}"
            for r in self.hidden
            if r.heads is not None and any(not 0 <= h < heads for h in r.heads)
        ]
        if bad:
            raise ValueError("mask does not fit the call: " + "; ".join(bad))


_BATCH_FIELDS = ("left", "right", "prefix_length", "query_documents", "key_documents")
_HEAD_FIELDS = ("head_sinks", "head_windows", "alibi_slopes")
_BATCH_HEAD_FIELDS = ("block_keep", "dense_bias")
_LOOSE_AXES = {"dense bias": 2, "blocks": 2}


def _fits(x: Tensor, size: tuple[int, ...], loose: int) -> bool:
    return x.ndim == len(size) and all(
        have == want or (axis < loose and have == 1)
        for axis, (have, want) in enumerate(zip(x.shape, size, strict=True))
    )


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ValueError(f"{name}: wanted at least 1 or None, got {value}")
    return value


def _int_vector(name: str, x: Tensor | None) -> Tensor | None:
    if x is not None and (x.ndim != 1 or x.is_floating_point() or x.dtype == torch.bool):
        raise ValueError(f"{name}: wanted an integer tensor [batch], got {x.dtype} {tuple(x.shape)}")
    return x


def _with_batch(x: Tensor, ndim: int) -> Tensor:
    return x if x.ndim == ndim else x.unsqueeze(0)


def _as_additive(x: Tensor) -> Tensor:
    return x if x.dtype != torch.bool else torch.zeros(x.shape, device=x.device).masked_fill(~x, float("-inf"))
