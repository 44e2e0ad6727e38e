"""`PatternAtlas`: all heads at once, placed by how they attend: clusters named by rule, and every head's small map or profile."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from interp.capture.run import Run
from interp.results import Result
from interp.widgets.colours import sequential
from interp.widgets.views.base import View
from interp.widgets.views.canvas import INK, LOCK, PAPER, SCALE, SOFT, Canvas, figure
from interp.widgets.views.head_words import words_of
from interp.widgets.views.pattern_atlas_source import FAINT, SIDE, Patterns, patterns_of, serve
from interp.widgets.views.selection import Selection

FIELD: Final = (440, 320)
"""Width and height of the picture's field of heads."""
TILE: Final = SIDE // SCALE
"""A small map in the picture, in page pixels: one pixel of the picture per pixel of the map."""
NAMED: Final = 50
"""Characters of a line of a cluster's name in the picture."""

DARKEST: Final = 80
"""Colour of the table that the first cluster has: darker ones would not stand clear of a dark page."""


class PatternAtlas(View):
    """A field of heads, the nearer the more alike, and below it every head's small map (where a run was given) or profile of features.

    Hover previews a head in both, a click locks it, Esc clears; a click on a cluster's name keeps that cluster and fades the others.

    Args:
        given: of `interp.heads.embedding`; a report or features (embedded here, some seconds); a run of one text; or `Patterns`.
        run: a run of one text by the same model, for small maps beside a result.
        title: one line above the field.
        link: the bus that this view shares with others.

    Raises:
        OptionError: nothing to embed, or a run of another model.
        CaptureError: a run without queries and keys.
    """

    NAME = "PatternAtlas"
    MODULES = ("views/pattern_atlas",)
    STYLES = ("head_grid", "pattern_atlas")
    serve = staticmethod(serve)

    def __init__(
        self,
        given: Result | Run | Patterns,
        *,
        run: Run | None = None,
        title: str = "Heads that attend alike",
        link: Selection | None = None,
    ) -> None:
        source = given if isinstance(given, Patterns) else patterns_of(given, run=run)
        super().__init__(source, title=title, payload=_payload(source), link=link)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """Places, profiles, and the small maps of every layer."""
        yield from ({"op": "places"}, {"op": "profile"})
        if self.source.maps is not None:
            yield from ({"op": "maps", "layer": int(layer)} for layer in np.unique(self.source.layer))

    def data(self) -> pd.DataFrame:
        """One row per head: place, cluster, its name, silhouette, labels, and the profile of features."""
        return self.source.frame

    def picture(self) -> Image.Image:
        """The field by t-SNE, heads drawn as the number of their cluster; below it the small maps, where there are any."""
        return _picture(self.source, self.title, self.selected)


def _payload(source: Patterns) -> dict[str, Any]:
    maps = source.maps
    sizes = np.bincount(source.cluster, minlength=len(source.names))
    return {
        "clusters": [{"name": name, "size": int(n)} for name, n in zip(source.names, sizes, strict=True)],
        "features": [words_of(name)[0] for name in source.features],
        "layers": [int(x) for x in np.unique(source.layer)],
        "heads": int(source.head.max()) + 1,
        "side": SIDE,
        "faint": FAINT,
        "maps": None if maps is None else {"tokens": maps.tokens, "of": maps.of},
        "embedded": source.embedded,
        "silhouette": float(source.silhouette.mean()),
        "control": source.control,
    }


def _cluster_colour(cluster: int, clusters: int) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in sequential()[round(DARKEST + cluster * (255 - DARKEST) / max(1, clusters - 1))])
    return r, g, b


def _picture(source: Patterns, title: str, locked: tuple[int, int] | None) -> Image.Image:
    layers, heads = np.unique(source.layer), int(source.head.max()) + 1
    tiles = heads * (TILE + 1) + 30 if source.maps is not None else 0
    wide = max(14 + FIELD[0] + 380, 40 + len(layers) * (TILE + 1))
    canvas = Canvas(wide, 56 + FIELD[1] + tiles + 54)
    canvas.text(14, 10, title, size=14)
    said = f"t-SNE of {source.embedded}; mean silhouette {figure(float(source.silhouette.mean()), 2)}, control {figure(source.control, 2)}"
    canvas.text(14, 30, said, size=11, colour=SOFT)
    canvas.outline(14, 50, *FIELD, SOFT, thick=1)
    x, y = _spread_out(source.places["tsne"])
    for n, c in enumerate(source.cluster):
        here = (float(24 + x[n] * (FIELD[0] - 20)), float(60 + (1 - y[n]) * (FIELD[1] - 20)))
        colour = _cluster_colour(int(c), len(source.names))
        canvas.box(here[0] - 5, here[1] - 5, 10, 10, colour)
        canvas.text(*here, str(c), size=8, colour=INK if sum(colour) > 380 else PAPER, anchor="mm")
        if (source.layer[n], source.head[n]) == locked:
            canvas.outline(here[0] - 7, here[1] - 7, 14, 14, LOCK)
    left, top = 14 + FIELD[0] + 14, 54
    for c, name in enumerate(source.names):
        canvas.box(left, top, 12, 12, _cluster_colour(c, len(source.names)))
        for line in textwrap.wrap(f"{c} ({(source.cluster == c).sum()}): {name}", NAMED):
            canvas.text(left + 20, top - 1, line, size=11, colour=INK)
            top += 15
        top += 5
    if source.maps is not None:
        _tiles(canvas, source, source.maps.codes, layers, 50 + FIELD[1] + 14)
    small = "Distances between t-SNE's islands mean nothing. Small maps are means of exact cells. Attention weight is not causal effect."
    canvas.paragraph(14, 50 + FIELD[1] + tiles + 14, small, columns=wide // 6)
    return canvas.image


def _tiles(canvas: Canvas, source: Patterns, codes: NDArray[np.uint8], layers: NDArray[np.int64], top: int) -> None:
    table = np.vstack([np.array(PAPER, np.uint8)[None], sequential()[1:]])
    for n, (layer, head) in enumerate(zip(source.layer, source.head, strict=True)):
        x = 34 + int(np.searchsorted(layers, layer)) * (TILE + 1)
        canvas.pixels(x, top + int(head) * (TILE + 1), table[codes[n]])


def _spread_out(xy: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates as shares of their range."""
    low, high = xy.min(0), xy.max(0)
    part = (xy.astype(np.float64) - low) / np.where(high > low, high - low, 1.0)
    return part[:, 0], part[:, 1]
