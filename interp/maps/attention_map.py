"""`AttentionMap`: one head's attention map, lazy and exact: every number is exp(s_ij - lse_i), computed when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import view as open_view
from interp.errors import ShapeError, TooLargeError
from interp.maps.source import MapSource
from interp_kernels import ColumnCollect, columns, tile

DENSE_LIMIT = 4096 * 4096
"""Cells that `dense` and slicing give without `force`: 64 MiB of float32."""


class AttentionMap:
    """The attention map of one head on one text, [query, key], without the N x N tensor.

    Slicing gives exact weights: ``amap[i0:i1, j0:j1]``, ``amap[i]``, ``amap[i, j]``. Hidden entries are 0. Each row sums to 1
    (less a learned sink's share, where the model has one).
    """

    def __init__(
        self,
        source: MapSource,
        *,
        layer: int,
        head: int,
        row_tokens: Sequence[str] | None = None,
        col_tokens: Sequence[str] | None = None,
    ) -> None:
        self.source = source
        self.layer = layer
        self.head = head
        self.row_tokens = list(row_tokens) if row_tokens is not None else None
        self.col_tokens = list(col_tokens) if col_tokens is not None else None

    @property
    def shape(self) -> tuple[int, int]:
        """(queries, keys)."""
        return self.source.q.shape[2], self.source.k.shape[2]

    def __repr__(self) -> str:
        """Layer, head and shape."""
        return f"AttentionMap(layer={self.layer}, head={self.head}, shape={self.shape})"

    def __getitem__(self, index: int | slice | tuple[int | slice, int | slice]) -> Tensor:
        """Exact weights of a rectangle, as float32 [rows, keys]; an integer drops its axis, as in torch."""
        pair = index if isinstance(index, tuple) else (index, slice(None))
        if len(pair) != 2:
            raise ShapeError(
                f"an attention map has 2 axes [query, key], got {len(pair)} indices; write amap[i0:i1, j0:j1]"
            )
        (rows, row_pick), (cols, col_pick) = (_span(x, n) for x, n in zip(pair, self.shape, strict=True))
        if rows[0] >= rows[1] or cols[0] >= cols[1]:
            return torch.zeros(max(rows[1] - rows[0], 0), max(cols[1] - cols[0], 0))[row_pick, col_pick]
        self._refuse_large((rows[1] - rows[0]) * (cols[1] - cols[0]))
        return self._cells(rows, cols)[row_pick, col_pick]

    def row(self, i: int) -> Float[Tensor, " key"]:
        """Row i: where query i looks; float32 [keys]."""
        return self[i, :]

    def top(self, i: int, k: int) -> list[tuple[int, float]]:
        """The k keys of row i with the largest weight, largest first, ties to the lowest key: (key, weight) pairs.

        Keys of weight 0 are left out (hidden ones are of no interest), so a row that sees fewer keys gives fewer pairs.
        """
        weights = self.row(i)
        order = torch.argsort(weights, descending=True, stable=True)[: max(k, 0)]
        return [(int(j), float(weights[j])) for j in order if weights[j] > 0]

    def received(self) -> Float[Tensor, " key"]:
        """What each key receives, summed over all rows; float32 [keys]. One sweep, O(N) memory."""
        s = self.source
        swept = columns(
            s.q,
            s.k,
            s.lse,
            mask=s.mask,
            scale=s.scale,
            softcap=s.softcap,
            edit=s.edit,
            collect=ColumnCollect(received=True),
        )
        return swept.stats["received"][0, 0, 0].float()

    def blocks(
        self, size: int
    ) -> tuple[
        Float[Tensor, " key"], Float[Tensor, "blocks_down blocks_across"], Float[Tensor, "blocks_down blocks_across"]
    ]:
        """What each key receives, and the sum and the largest weight of every block of size x size cells; one sweep, float32."""
        s = self.source
        collect = ColumnCollect(received=True, block=size)
        swept = columns(
            s.q, s.k, s.lse, mask=s.mask, scale=s.scale, softcap=s.softcap, edit=s.edit, collect=collect
        ).stats
        return swept["received"][0, 0, 0].float(), swept["block_sum"][0, 0].float(), swept["block_max"][0, 0].float()

    def tile(
        self,
        rows: tuple[int, int],
        cols: tuple[int, int],
        size: int | tuple[int, int] = 256,
        pool: Literal["mean", "max"] = "mean",
    ) -> Float[Tensor, "height width"]:
        """A rectangle pooled to at most `size` pixels a side: exact cells where they fit, mean or max of exact cells beyond.

        Raises:
            ValueError: empty or out-of-range rectangle.
        """
        s = self.source
        return tile(
            s.q, s.k, s.lse, rows, cols, size, pool, mask=s.mask, scale=s.scale, softcap=s.softcap, edit=s.edit
        )[0, 0].float()

    def dense(self, *, force: bool = False) -> Float[Tensor, "query key"]:
        """The whole map. Refuses more than `DENSE_LIMIT` cells unless forced: at 32,768 tokens one head takes 4 GiB.

        Raises:
            TooLargeError: over the limit and not forced.
        """
        queries, keys = self.shape
        if not force:
            self._refuse_large(queries * keys)
        return self._cells((0, queries), (0, keys))

    def view(self, **options: object) -> Any:
        """Zoom into it in a notebook: the whole map down to single exact cells, at any length."""
        return open_view("map", self, **options)

    def _cells(self, rows: tuple[int, int], cols: tuple[int, int]) -> Tensor:
        return self.tile(rows, cols, (rows[1] - rows[0], cols[1] - cols[0]), "mean")

    def _refuse_large(self, cells: int) -> None:
        if cells > DENSE_LIMIT:
            raise TooLargeError(
                f"this part of the map has {cells:,} cells ({cells * 4 / 2**30:.1f} GiB), over the limit of {DENSE_LIMIT:,}; "
                "ask for a smaller rectangle, use tile(rows, cols, size) for a picture, or dense(force=True)"
            )


def _span(index: int | slice, n: int) -> tuple[tuple[int, int], int | slice]:
    """The half-open range to compute, and what to pick of it."""
    if isinstance(index, slice):
        start, stop, step = index.indices(n)
        if step < 1:
            raise ShapeError(f"an attention map is sliced with a positive step, got {step}")
        return (start, stop), slice(None, None, step)
    if not -n <= index < n:
        raise ShapeError(f"index {index} is outside an axis of {n}")
    at = index % n
    return (at, at + 1), 0
