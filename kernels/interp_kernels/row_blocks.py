"""Row blocks: the logits of a few rows at a time against the keys they can see, in buffers of bounded size.

What every `portable` kernel is built on. A problem is cut into slabs (ranges of batch items and key heads), a slab into
blocks of rows. A block's columns are the hull of what its rows see, so that causal and windowed masks cost what they
show; columns that every row sees need no mask. Nothing of size Nq x Nk is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span, additive, row_bounds, visible

# Logits held at once. On a CPU a block and its copies shall stay in the caches; a GPU wants few launches.
ENTRIES_PER_THREAD = 2**20
MAX_ENTRIES_CPU = 2**22
ENTRIES_DEVICE = 2**24
# Fewer rows than this make the matrix products slow; a slab is split into fewer heads before its blocks become thinner.
GOOD_ROWS = 64
_NONE = float("-inf")


@dataclass(frozen=True)
class Block:
    """Rows, the columns that hold all they see, and the spans of columns that may hold hidden entries."""

    rows: Span
    cols: Span
    edges: tuple[Span, ...]


@dataclass(frozen=True)
class Logits:
    """The final logits of a block, and what they were made of.

    Attributes:
        s: [b, h, rows, cols], -inf where hidden; lives in a buffer that the next block overwrites.
        hidden: (columns of the block, mask that broadcasts to s[..., columns]) for every edge.
        capped: soft-capped q.k before bias and edit, where stages are kept and there is a soft-cap.
        unscaled: logits before `Edit.logit_scale`, 0 where hidden, where stages are kept and there is one.
    """

    s: Tensor
    hidden: tuple[tuple[slice, Tensor], ...]
    capped: Tensor | None
    unscaled: Tensor | None

    def fill_hidden(self, x: Tensor, value: float) -> Tensor:
        """Set the hidden entries of a tensor shaped like s, in place."""
        for where, mask in self.hidden:
            x[..., where].masked_fill_(mask, value)
        return x


def block_entries(device: torch.device) -> int:
    """How many logits a block may hold on a device."""
    if device.type != "cpu":
        return ENTRIES_DEVICE
    return min(MAX_ENTRIES_CPU, ENTRIES_PER_THREAD * torch.get_num_threads())


class Slab:
    """A range of batch items and key heads of a problem, ready for row blocks: q (scaled) and k contiguous in the working dtype.

    Attributes:
        problem: the narrowed problem.
        batch, key_heads, heads: the ranges, to index results and inputs with.
        q: [b, hkv, g, Nq, D], already times scale (and over the soft-cap).
        k: [b * hkv, Nk, D].
    """

    def __init__(self, problem: Problem, batch: slice, key_heads: slice, *, keep_stages: bool = False) -> None:
        g = problem.group
        self.batch, self.key_heads = batch, key_heads
        self.heads = slice(key_heads.start * g, key_heads.stop * g)
        self.problem = p = _narrowed(problem, batch, key_heads, self.heads)
        self.keep_stages = keep_stages
        self.dtype = p.work_dtype
        factor = p.scale if p.softcap is None else p.scale / p.softcap
        self.q = (p.q.to(self.dtype) * factor).view(p.batch, p.key_heads, g, p.queries, -1)
        self.k = p.k.to(self.dtype).reshape(p.batch * p.key_heads, p.keys, -1).contiguous()
        self._key_bias_hides = (
            p.edit is not None and p.edit.key_bias is not None and bool(p.edit.key_bias.isneginf().any())
        )
        self._buffers: dict[str, Tensor] = {}
        self._edges: dict[tuple[int, int, int], Tensor] = {}
        self._by_position = not self._key_bias_hides and p.mask.is_positional

    @property
    def shape(self) -> tuple[int, int]:
        """(b, h)."""
        return self.problem.batch, self.problem.heads

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Uninitialised memory of that shape, the same for the same name in every block."""
        size = torch.Size(shape).numel()
        held = self._buffers.get(name)
        if held is None or held.numel() < size:
            held = self._buffers[name] = torch.empty(size, dtype=self.dtype, device=self.k.device)
        return held[:size].view(shape)

    def grouped(self, x: Tensor) -> Tensor:
        """[b, h, rows, n] as [b * hkv, g * rows, n], for products with k or v."""
        return x.reshape(self.k.shape[0], -1, x.shape[-1])

    def rows_of_q(self, rows: Span) -> Tensor:
        """The scaled q of some rows, [b * hkv, g * rows, D]."""
        return self.grouped(self.q[:, :, :, rows.start : rows.stop])

    def blocks(self) -> Iterator[Block]:
        """The row blocks, top to bottom."""
        p = self.problem
        step = max(1, block_entries(self.k.device) // max(1, p.batch * p.heads * p.keys))
        bounds = _Bounds(p, everything_may_hide=self._key_bias_hides)
        for start in range(0, p.queries, step):
            yield bounds.block(Span(start, min(start + step, p.queries)))

    def logits(self, block: Block) -> Logits:
        """The final logits of a block: the same steps as `interp_kernels.scores.block_scores`, in place."""
        p, edit = self.problem, self.problem.edit
        rows, cols = block.rows, block.cols
        r, n = rows.stop - rows.start, cols.stop - cols.start
        q = self.rows_of_q(rows)
        s = self.buffer("s", *q.shape[:2], n)
        torch.bmm(q, self.k[:, cols.start : cols.stop].mT, out=s)
        s = s.view(p.batch, p.heads, r, n)
        if p.softcap is not None:
            s.tanh_().mul_(p.softcap)
        capped = s.clone() if self.keep_stages and p.softcap is not None else None
        bias = additive(p.mask, p.queries, p.keys, rows, cols, self.dtype, s.device)
        if bias is not None:
            s += bias
        hidden = self._hidden(block)
        unscaled = None
        if edit is not None and edit.logit_scale is not None:
            if self.keep_stages:
                unscaled = s.clone()
                for where, mask in hidden:
                    unscaled[..., where].masked_fill_(mask, 0.0)
            s *= part_of_rows(edit.logit_scale, rows).to(self.dtype)[..., None]
        if edit is not None and edit.key_bias is not None:
            s += edit.key_bias[:, :, None, cols.start : cols.stop].to(self.dtype)
        for where, mask in hidden:
            s[..., where].masked_fill_(mask, _NONE)
        return Logits(s=s, hidden=hidden, capped=capped, unscaled=unscaled)

    def factors(self, block: Block) -> Tensor | None:
        """`Edit.factors` entry by entry, [b, h, rows, cols] in the working dtype, or None."""
        edit = self.problem.edit
        if edit is None or edit.sets is None or edit.factors is None:
            return None
        sets = edit.sets[..., block.cols.start : block.cols.stop]
        last = sets.shape[2]
        number = torch.where(sets.any(2), sets.to(torch.uint8).argmax(2), last)
        shape = (*self.shape, block.rows.stop - block.rows.start)
        table = part_of_rows(edit.factors, block.rows).to(self.dtype).expand(*shape, last + 1)
        return table.gather(-1, number[:, :, None].expand(*shape, number.shape[-1]))

    def _hidden(self, block: Block) -> tuple[tuple[slice, Tensor], ...]:
        first = block.cols.start
        return tuple((slice(e.start - first, e.stop - first), self._hidden_at(block.rows, e)) for e in block.edges)

    def _hidden_at(self, rows: Span, edge: Span) -> Tensor:
        # Along a diagonal a mask by position alone repeats itself: one block's edge serves the next.
        key = (rows.start - edge.start, rows.stop - rows.start, edge.stop - edge.start)
        if self._by_position and key in self._edges:
            return self._edges[key]
        p = self.problem
        mask = ~visible(p.mask, p.heads, p.queries, p.keys, rows, edge, self.k.device)
        if self._key_bias_hides and p.edit is not None and p.edit.key_bias is not None:
            mask = mask | p.edit.key_bias[:, :, None, edge.start : edge.stop].isneginf()
        if self._by_position:
            self._edges[key] = mask
        return mask


def slabs(problem: Problem, *, keep_stages: bool = False) -> Iterator[Slab]:
    """Cut a problem into slabs whose blocks hold at least `GOOD_ROWS` rows, where the sizes allow it."""
    p = problem
    room = block_entries(p.q.device) // max(1, min(GOOD_ROWS, p.queries) * p.group * p.keys)
    key_heads = max(1, min(p.key_heads, room))
    items = max(1, min(p.batch, room // p.key_heads))
    for b in range(0, p.batch, items):
        for h in range(0, p.key_heads, key_heads):
            batch, heads = slice(b, min(b + items, p.batch)), slice(h, min(h + key_heads, p.key_heads))
            yield Slab(p, batch, heads, keep_stages=keep_stages)


def part_of_rows(x: Tensor, rows: Span) -> Tensor:
    """x [.., .., Nq or 1, ...] at some rows; an axis of size 1 stays."""
    return x[:, :, rows.start : rows.stop] if x.shape[2] > 1 else x


def part_of_batch(x: Tensor, batch: slice) -> Tensor:
    """x [B or 1, ...] at some batch items; an axis of size 1 stays."""
    return x[batch] if x.shape[0] > 1 else x


def _narrowed(problem: Problem, batch: slice, key_heads: slice, heads: slice) -> Problem:
    p = problem
    return replace(
        p,
        q=p.q[batch, heads],
        k=p.k[batch, key_heads],
        mask=p.mask.narrow(batch, heads),
        sink_logits=None if p.sink_logits is None else p.sink_logits[heads],
        edit=None if p.edit is None else p.edit.narrow(batch, heads),
    )


class _Bounds:
    """Which columns the rows of a block can see at all, and which of them all of these rows and heads see for sure."""

    def __init__(self, problem: Problem, *, everything_may_hide: bool) -> None:
        mask, self.queries, self.keys = problem.mask, problem.queries, problem.keys
        low, high = row_bounds(mask, self.queries, self.keys, problem.q.device)
        self.low: list[int] = low.tolist()  # pyright: ignore[reportUnknownMemberType]
        self.high: list[int] = high.tolist()  # pyright: ignore[reportUnknownMemberType]
        self.left = (0, 0) if mask.left is None else (int(mask.left.min()), int(mask.left.max()))
        self.right = (0, 0) if mask.right is None else (int(mask.right.min()), int(mask.right.max()))
        self.prefix = 0
        if mask.prefix_length is not None:
            self.prefix = int((mask.prefix_length + (0 if mask.left is None else mask.left)).max())
        self.sinks = mask.head_sinks is not None and bool((mask.head_sinks > 0).any())
        # Heads with a narrower window than the widest see less than `low` says.
        self.narrower = 0 if mask.head_windows is None else int(mask.head_windows.max() - mask.head_windows.min())
        self.scattered = everything_may_hide or bool(
            mask.query_documents is not None or mask.hidden or mask.block_keep is not None or mask.is_dense
        )

    def block(self, rows: Span) -> Block:
        first, last = rows.start, rows.stop - 1
        start = max(0 if self.sinks else self.low[first], self.left[0])
        stop = min(max(self.high[last], self.prefix), self.keys - self.right[0])
        # Rows that see nothing get one column, which the mask hides: every block has the same shape of results.
        start = min(max(start, 0), self.keys - 1)
        cols = Span(start, max(stop, start + 1))
        low = self.low[last] + self.narrower
        inner = Span(max(low, self.left[1], cols.start), min(self.high[first], self.keys - self.right[1], cols.stop))
        if self.scattered or inner.start >= inner.stop:
            return Block(rows, cols, (cols,))
        edges = (Span(cols.start, inner.start), Span(inner.stop, cols.stop))
        return Block(rows, cols, tuple(e for e in edges if e.start < e.stop))
