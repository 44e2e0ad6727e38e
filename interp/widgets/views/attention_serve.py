"""What AttentionMap's page asks: batches of tiles, single exact weights, token names, marginals, exact rectangles."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.maps.attention_map import AttentionMap
from interp.widgets.views.map_source import MODES, MapTiles, Mode, encode, encode_difference
from interp.widgets.views.protocol import Reply, answer, finite, one_of, readable, whole

BATCH: Final = 32
"""Tiles that one request may ask for."""
BUDGET: Final = 60
"""Milliseconds after which a batch stops: the page asks again for the rest, so that one slow level does not hold up everything."""
NAMES: Final = 1024
"""Token names that one request may ask for."""
CELLS: Final = 512 * 512
"""Cells of a rectangle that one request may ask for."""
FINE: Final = 4096
"""Queries up to which the largest weight is given for every row; beyond, for blocks of 16 rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictured:
    """What is shown: a map, and another one to compare it with.

    Attributes:
        a: tiles of the map.
        b: tiles of the other map, of the same shape, or None.
    """

    a: MapTiles
    b: MapTiles | None = None

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.b is not None and self.b.shape != self.a.shape:
            raise OptionError(
                f"two maps are compared cell by cell: they must have one shape, got {self.a.shape} and {self.b.shape}"
            )

    @property
    def which(self) -> tuple[str, ...]:
        """What can be asked for: the map, the other, their difference."""
        return ("a",) if self.b is None else ("a", "b", "difference")

    def weight(self, q: int, k: int) -> tuple[float, float | None]:
        """The exact weight of a cell, and that of the other map."""
        return float(self.a.amap[q, k]), None if self.b is None else float(self.b.amap[q, k])


def tile_codes(source: Pictured, which: str, level: int, y: int, x: int, mode: Mode) -> bytes:
    """One tile as codes (see `map_source.encode`, `encode_difference`)."""
    if which == "difference" and source.b is not None:
        return encode_difference(source.a.tile(level, y, x, mode), source.b.tile(level, y, x, mode))
    chosen = source.b if which == "b" and source.b is not None else source.a
    return encode(chosen.tile(level, y, x, mode))


def _tiles(source: Pictured, message: Mapping[str, Any]) -> Reply:
    wanted = message.get("t")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= BATCH:
        raise OptionError(f"t must be a list of 1 to {BATCH} tiles [level, y, x]")
    if not all(isinstance(t, list) and len(t) == 3 and all(type(x) is int for x in t) for t in wanted):
        raise OptionError("a tile is [level, y, x], three whole numbers")
    mode, which = cast(Mode, one_of(message, "mode", MODES)), one_of(message, "which", source.which)
    begin, buffers = time.monotonic(), []
    for level, y, x in wanted:
        buffers.append(tile_codes(source, which, level, y, x, mode))
        if 1000 * (time.monotonic() - begin) > BUDGET:
            break
    return {}, buffers


def _value(source: Pictured, message: Mapping[str, Any]) -> Reply:
    q, k = (whole(message, name, 0, n) for name, n in zip("qk", source.a.shape, strict=True))
    weight, other = source.weight(q, k)
    row = source.a.row(q).astype(np.float64)
    seen = row[row > 0]
    said = {"weight": weight, "entropy": float(-(seen * np.log(seen)).sum()), "rank": int((row > row[k]).sum()) + 1}
    return said | {"other": other, "top": int(row.argmax()), "peak": finite(row.max())}, []


def _tokens(source: Pictured, message: Mapping[str, Any]) -> Reply:
    axis = one_of(message, "axis", ("q", "k"))
    names, n = _names(source.a.amap, axis), source.a.shape[axis == "k"]
    start = whole(message, "start", 0, n)
    stop = min(n, start + NAMES)
    return {"tokens": None if names is None else [readable(t) for t in names[start:stop]]}, []


def _marginals(source: Pictured, message: Mapping[str, Any]) -> Reply:
    (n, _), tiles = source.a.shape, source.a
    if n <= FINE:
        peaks, step = tiles.amap.tile((0, n), (0, source.a.shape[1]), (n, 1), "max")[:, 0].cpu().numpy(), 1
    else:
        peaks, step = tiles.rows_peak(), 16
    return {"step": step}, [np.ascontiguousarray(x, "<f4").tobytes() for x in (peaks, tiles.sweep().received)]


def _cells(source: Pictured, message: Mapping[str, Any]) -> Reply:
    n, m = source.a.shape
    q0, k0 = whole(message, "q0", 0, n), whole(message, "k0", 0, m)
    q1, k1 = whole(message, "q1", q0 + 1, n + 1), whole(message, "k1", k0 + 1, m + 1)
    if (q1 - q0) * (k1 - k0) > CELLS:
        raise OptionError(
            f"a rectangle of {(q1 - q0) * (k1 - k0):,} cells is too large for the page (up to {CELLS:,}); in Python view.cells() gives any"
        )
    maps = [m.amap for m in (source.a, source.b) if m is not None]
    return {}, [cells(a, (q0, q1), (k0, k1)).astype("<f4").tobytes() for a in maps]


def cells(amap: AttentionMap, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.float32]:
    """Exact weights of a rectangle, float32 [rows, keys]."""
    with torch.inference_mode():
        return amap[rows[0] : rows[1], cols[0] : cols[1]].cpu().numpy()


def _names(amap: AttentionMap, axis: str) -> list[str] | None:
    return amap.row_tokens if axis == "q" else amap.col_tokens


OPERATIONS: Final = {"tiles": _tiles, "value": _value, "tokens": _tokens, "marginals": _marginals, "cells": _cells}


def serve(source: Pictured, message: object) -> Reply:
    """Answer AttentionMap's page.

    `tiles` {t: [[level, y, x], ...], mode, which}: codes of as many of them as fit the time, in order. `value` {q, k}: the exact weight, the
    row's entropy in nats, the key's rank in the row. `tokens` {axis, start}: names. `marginals`: largest weight of (blocks of) rows, mass
    received by each key. `cells` {q0, q1, k0, k1}: exact weights, float32.
    """
    return answer(OPERATIONS, source, message)
