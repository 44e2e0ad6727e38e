"""`AttentionMapView`: one head's attention map, zoomed from the whole text down to single exact cells, at any length."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from interp.errors import CaptureError, OptionError
from interp.maps.attention_map import AttentionMap
from interp.widgets.diverging import diverging
from interp.widgets.payload import base64_of
from interp.widgets.views.attention_picture import map_picture
from interp.widgets.views.attention_serve import NAMES, Pictured, cells, serve
from interp.widgets.views.base import View
from interp.widgets.views.map_source import FLOOR, MODES, TILE, MapTiles
from interp.widgets.views.protocol import readable
from interp.widgets.views.selection import Selection

KEPT_TILES: Final = 64
"""A saved page holds every level that has at most so many tiles."""
REMEMBERED: Final = 4
"""Heads whose sweep is kept, when the view follows a selection."""


@runtime_checkable
class Maps(Protocol):
    """Maps by (layer, head): `run.attention`."""

    def __getitem__(self, index: tuple[int, int], /) -> AttentionMap:
        """The map of one head."""
        ...


class AttentionMapView(View):
    """A deep zoom into an attention map: peaks or masses of exact cells from afar, every single weight close by.

    Drag or use the arrows, wheel (when the map has the focus) or + and -; hover reads a weight, a click locks it, Esc clears; Shift-drag
    marks a rectangle, which `cells()` gives exactly.

    Args:
        amap: the map; with `maps`, the first one that is shown.
        other: a map of the same shape (another head, another run) to switch to and to subtract.
        maps: `run.attention`, to follow the selection on `link` from head to head.
        title: one line above; None for layer and head.
        link: the bus that this view shares with others.

    Raises:
        OptionError: two maps of different shapes.
    """

    NAME = "AttentionMap"
    MODULES = ("views/map_tiles", "views/map_axes", "views/attention_map")
    STYLES = ("attention_map",)
    serve = staticmethod(serve)

    def __init__(
        self,
        amap: AttentionMap,
        *,
        other: AttentionMap | None = None,
        maps: Maps | None = None,
        title: str | None = None,
        link: Selection | None = None,
    ) -> None:
        self._maps, self._fixed_title = maps, title
        self._tiles: dict[tuple[int, int], MapTiles] = {(amap.layer, amap.head): MapTiles(amap)}
        source = Pictured(a=self._tiles[amap.layer, amap.head], b=None if other is None else MapTiles(other))
        super().__init__(source, title=title or _title(amap, other), payload=map_payload(source), link=link)
        if maps is not None:
            self.observe(self._follow, "selection")
            self._follow({"new": self.selection})

    @property
    def region(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """The marked rectangle as (first query, one after the last), (first key, one after the last); None where there is none."""
        if not self.picks or len(self.picks[-1]) != 4:
            return None
        (n, m), (q0, q1, k0, k1) = self.source.a.shape, self.picks[-1]
        return ((q0, q1), (k0, k1)) if 0 <= q0 < q1 <= n and 0 <= k0 < k1 <= m else None

    def cells(self) -> NDArray[np.float32]:
        """Exact weights of the marked rectangle, float32 [rows, keys].

        Raises:
            OptionError: nothing is marked.
            TooLargeError: the rectangle has more cells than `interp.maps.DENSE_LIMIT`.
        """
        if self.region is None:
            raise OptionError("no rectangle is marked; Shift-drag over the map, or set view.picks = [[q0, q1, k0, k1]]")
        return cells(self.source.a.amap, *self.region)

    def data(self) -> pd.DataFrame:
        """The marked rectangle, else the locked query's row, as one row per visible cell; with neither, what each key receives."""
        amap, (n, m) = self.source.a.amap, self.source.a.shape
        q = self.selection["q"]
        region = self.region or (None if q is None or q >= n else ((q, q + 1), (0, m)))
        if region is None:
            keys = pd.DataFrame({"k": np.arange(m), "received": self.source.a.sweep().received})
            return keys if amap.col_tokens is None else keys.assign(token=[readable(t) for t in amap.col_tokens])
        weights = cells(amap, *region)
        rows, cols = np.nonzero(weights)
        frame = pd.DataFrame({"q": rows + region[0][0], "k": cols + region[1][0], "weight": weights[rows, cols]})
        for name, tokens in (("q", amap.row_tokens), ("k", amap.col_tokens)):
            if tokens is not None:
                frame[f"{name}_token"] = [readable(tokens[i]) for i in frame[name]]
        return frame

    def requests(self) -> Iterator[Mapping[str, Any]]:
        """Levels of up to 64 tiles, a marked rectangle (at most 512 x 512) down to its cells, marginals, token names of both."""
        source: Pictured = self.source
        for which, mode in itertools.product(source.which, MODES):
            for tile in kept_tiles(source.a, self.region):
                yield {"op": "tiles", "t": [list(tile)], "mode": mode, "which": which}
        yield {"op": "marginals"}
        spans = self.region or tuple((0, min(n, 2 * NAMES)) for n in source.a.shape)
        for axis, (start, stop) in zip("qk", spans, strict=True):
            for at in range(start // NAMES * NAMES, stop, NAMES):
                yield {"op": "tokens", "axis": axis, "start": at}

    def picture(self) -> Image.Image:
        """The whole map (mass), its scale and axes; the marked rectangle is framed."""
        return map_picture(self.source.a, self.title, self.region)

    def _follow(self, change: Mapping[str, Any]) -> None:
        layer, head = change["new"]["layer"], change["new"]["head"]
        now = self.source.a.amap
        if self._maps is None or layer is None or head is None or (layer, head) == (now.layer, now.head):
            return
        if (layer, head) not in self._tiles:
            try:
                self._tiles[layer, head] = MapTiles(self._maps[layer, head])
            except (
                CaptureError,
                OptionError,
            ):  # a head of the grid whose queries and keys were not kept: the old map stays
                return
            if len(self._tiles) > REMEMBERED:
                del self._tiles[next(iter(self._tiles))]
        b = self.source.b
        source = Pictured(a=self._tiles[layer, head], b=b)
        title = self._fixed_title or _title(source.a.amap, None if b is None else b.amap)
        self.show(source, title=title, payload=map_payload(source))


def map_payload(source: Pictured) -> dict[str, Any]:
    """What the page needs from the start."""
    amap, other = source.a.amap, source.b
    return {
        "layer": amap.layer,
        "head": amap.head,
        "queries": source.a.shape[0],
        "keys": source.a.shape[1],
        "levels": source.a.levels,
        "floor": FLOOR,
        "tokens": amap.col_tokens is not None and amap.row_tokens is not None,
        "which": list(source.which),
        "names": [_name(amap)] + ([] if other is None else [_name(other.amap)]),
        "diverging": base64_of(diverging()),
    }


def kept_tiles(
    tiles: MapTiles, region: tuple[tuple[int, int], tuple[int, int]] | None
) -> Iterable[tuple[int, int, int]]:
    """Tiles (level, y, x) of a saved page: whole levels while they are small, and those over the region on the levels below."""
    for level in range(tiles.levels + 1):
        side = TILE << level
        whole = tuple((0, n) for n in tiles.shape)
        down, across = (-(-n // side) for n in tiles.shape)
        spans = whole if down * across <= KEPT_TILES else region
        if spans is None or (spans is region and max(b - a for a, b in spans) > 2 * TILE):
            continue
        ranges = [range(a // side, (b - 1) // side + 1) for a, b in spans]
        yield from ((level, y, x) for y, x in itertools.product(*ranges))


def _name(amap: AttentionMap) -> str:
    return f"head {amap.layer}.{amap.head}"


def _title(amap: AttentionMap, other: AttentionMap | None) -> str:
    said = f"Attention of layer {amap.layer}, head {amap.head}"
    return said if other is None else f"{said}, and of layer {other.layer}, head {other.head}"
