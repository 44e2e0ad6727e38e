"""`Explored`: a run ready to be walked through: the grid of its heads, the map and the tokens of one head, and that head's page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from interp.capture.run import Run
from interp.errors import OptionError
from interp.interventions.where import Head
from interp.widgets.views.attention_serve import Pictured
from interp.widgets.views.attention_serve import serve as serve_map
from interp.widgets.views.head_table import HeadColumn, HeadTable
from interp.widgets.views.head_table import serve as serve_grid
from interp.widgets.views.intervene_source import Bench
from interp.widgets.views.intervene_source import serve as serve_bench
from interp.widgets.views.map_source import MapTiles
from interp.widgets.views.protocol import Reply, answer, finite, readable, whole
from interp.widgets.views.sae_source import FeatureTable
from interp.widgets.views.sae_source import serve as serve_features
from interp.widgets.views.token_source import TokenSource
from interp.widgets.views.token_source import serve as serve_tokens

REMEMBERED: Final = 8
"""Heads whose sweep over the map is kept."""
BINS: Final = 128
"""Points of the entropy by position."""
SINKS: Final = 5
FEATURES: Final = 8
"""Keys that receive most, and features of a head, that its page lists."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explored:
    """What is walked through.

    Attributes:
        run: of one text.
        table: the numbers of its heads.
        tokens: its text and maps, None where queries and keys were not kept.
        features: of an autoencoder, None without.
        bench: where edits are tried, None without a model.
        first: the head on show while none is locked.
    """

    run: Run
    table: HeadTable
    tokens: TokenSource | None
    features: FeatureTable | None
    bench: Bench | None
    first: Head
    _tiles: OrderedDict[Head, MapTiles] = field(default_factory=OrderedDict)

    def head_of(self, selected: Head | None) -> Head:
        """The head on show: the selected one if the run has it, else the first."""
        return selected if selected is not None and self._has(*selected) else self.first

    def pictured(self, layer: int, head: int) -> Pictured:
        """The map of one head; the sweeps of the last few are kept. Raises OptionError and CaptureError where there is none."""
        if (layer, head) not in self._tiles:
            self._tiles[layer, head] = MapTiles(self.run.attention[layer, head])
            if len(self._tiles) > REMEMBERED:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end((layer, head))
        return Pictured(a=self._tiles[layer, head], b=None)

    def page(self, layer: int, head: int) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
        """Everything known about one head: plain values, and the arrays position and entropy (nats) of `BINS` means over rows at most.

        Values: scores (a row per number of the grid: title, unit, value, spread, control, rank, of), sinks (keys that receive most: position,
        token, mean weight over the rows that see it), features (of the autoencoder, mostly this head's).
        """
        at = self.table.layers.index(layer)
        said = {
            "scores": [_score(column, at, head) for column in self.table.columns.values()],
            "sinks": self._sinks(layer, head) if self.tokens is not None else [],
            "features": [] if self.features is None else _mostly(self.features, layer, head),
        }
        entropy = self.run.stats.get("entropy")
        rows = (
            np.zeros(0, np.float32)
            if entropy is None
            else entropy[self.run.layers.index(layer), head].float().cpu().numpy()
        )
        return said, list(_binned(rows))

    def _has(self, layer: int, head: int) -> bool:
        return layer in self.run.layers and 0 <= head < self.run.heads

    def _sinks(self, layer: int, head: int) -> list[dict[str, Any]]:
        tiles = self.pictured(layer, head).a
        received, (queries, keys) = tiles.sweep().received, tiles.shape
        # Under a causal mask key j is seen by the rows from j on.
        causal = self.run.record(layer).mask.is_causal and queries == keys
        seen = queries - np.arange(keys) if causal else np.full(keys, queries)
        share = received / np.maximum(seen, 1)
        # The last keys are seen by so few rows that their share says nothing.
        share[max(1, keys - max(8, keys // 20)) :] = 0.0
        tokens = tiles.amap.col_tokens
        return [
            {"position": int(j), "token": readable(tokens[j]) if tokens is not None else "", "share": float(share[j])}
            for j in np.argsort(-share, kind="stable")[:SINKS]
            if share[j] > 0
        ]


def _score(column: HeadColumn, at: int, head: int) -> dict[str, Any]:
    value, known = column.values[at, head], column.values[np.isfinite(column.values)]
    rank = None if np.isnan(value) else int((known > value).sum()) + 1
    numbers = {"value": value, "spread": column.spread[at, head], "control": column.control[at, head]}
    words = {"title": readable(column.title), "unit": column.unit, "rank": rank, "of": len(known)}
    return words | {name: finite(float(x)) for name, x in numbers.items()}


def _mostly(features: FeatureTable, layer: int, head: int) -> list[dict[str, Any]]:
    """The features that are mostly this head's, in the order of the index."""
    rows = [row for row in features.index if row.get("head") == head and row.get("layer", layer) == layer]
    names = ("feature", "head_share", "family", "tokens")
    return [
        {n: row[n] if n != "tokens" else [readable(t) for t in row[n]] for n in names if n in row}
        for row in rows[:FEATURES]
    ]


def _binned(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Position and mean of at most `BINS` equal ranges of rows; undefined rows are left out."""
    if not len(rows):
        return rows, rows
    edges = np.unique(np.linspace(0, len(rows), min(BINS, len(rows)) + 1).astype(int))
    sums = np.add.reduceat(np.nan_to_num(rows, nan=0.0), edges[:-1])
    counts = np.add.reduceat(np.isfinite(rows).astype(np.float32), edges[:-1])
    with np.errstate(invalid="ignore"):
        return ((edges[:-1] + edges[1:] - 1) / 2).astype(np.float32), (sums / counts).astype(np.float32)


# ------------------------------------------------------------------ the page's requests
def _place(source: Explored, message: Mapping[str, Any]) -> Head:
    layer, head = whole(message, "layer", 0, max(source.run.layers) + 1), whole(message, "head", 0, source.run.heads)
    if layer not in source.run.layers:
        raise OptionError(f"layer {layer} was not captured; layers are {', '.join(map(str, source.run.layers))}")
    return layer, head


def _passed(reply: Reply) -> Reply:
    """The answer of a part as that of the whole."""
    said, buffers = reply
    if "error" in said:
        raise OptionError(said["error"])
    return {name: value for name, value in said.items() if name not in ("id", "k")}, buffers


def _grid(source: Explored, message: Mapping[str, Any]) -> Reply:
    return _passed(serve_grid(source.table, message.get("message")))


def _tokens(source: Explored, message: Mapping[str, Any]) -> Reply:
    if source.tokens is None:
        raise OptionError('there are no maps: run again with keep="qk"')
    return _passed(serve_tokens(source.tokens, message.get("message")))


def _map(source: Explored, message: Mapping[str, Any]) -> Reply:
    return _passed(serve_map(source.pictured(*_place(source, message)), message.get("message")))


def _head(source: Explored, message: Mapping[str, Any]) -> Reply:
    said, arrays = source.page(*_place(source, message))
    return said, [np.ascontiguousarray(a, "<f4").tobytes() for a in arrays]


def _features(source: Explored, message: Mapping[str, Any]) -> Reply:
    if source.features is None:
        raise OptionError("there are no features here; give features=")
    return _passed(serve_features(source.features, message.get("message")))


def _bench(source: Explored, message: Mapping[str, Any]) -> Reply:
    if source.bench is None:
        raise OptionError("there is no model here; give model=")
    return _passed(serve_bench(source.bench, message.get("message")))


OPERATIONS: Final = {
    "grid": _grid,
    "tokens": _tokens,
    "map": _map,
    "head": _head,
    "features": _features,
    "bench": _bench,
}


def serve(source: Explored, message: object) -> Reply:
    """Answer Explore's page.

    `grid`, `tokens`, `features`, `bench` {message} and `map` {layer, head, message} pass a message on to that part; `head` {layer,
    head} is the page of a head, with position and entropy as float32.
    """
    return answer(OPERATIONS, source, message)
