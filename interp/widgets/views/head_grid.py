"""`HeadGrid`: one number of every head, layer by head: find a head, compare statistics, pick several, and open them in linked views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from interp.errors import OptionError
from interp.widgets.colours import index_of, sequential
from interp.widgets.views.base import View
from interp.widgets.views.canvas import HATCH, INK, LOCK, SOFT, Canvas, figure
from interp.widgets.views.head_table import HeadTable, head_table, serve
from interp.widgets.views.selection import Selection


class HeadGrid(View):
    """Layers from left to right, heads from top to bottom, one statistic in colours.

    Hover previews a head, a click locks it, Esc clears; Shift-click (or the key x) picks several. The statistic, the order (position, value,
    cluster) and the legend stand above and below.

    Args:
        table: a table with a row per head (`run.frame`, a scan's frame, an analysis' table), or a `HeadTable`.
        statistic: which one to open on; None for the first.
        kv_heads: key heads of each layer, to bracket the query heads that share one.
        title: one line above the grid.
        link: the bus that this view shares with others.

    Raises:
        OptionError: the table holds no heads, or not that statistic.
    """

    NAME = "HeadGrid"
    MODULES = ("views/head_grid",)
    STYLES = ("head_grid",)
    serve = staticmethod(serve)

    def __init__(
        self,
        table: pd.DataFrame | HeadTable,
        *,
        statistic: str | None = None,
        kv_heads: int | None = None,
        title: str = "Heads",
        link: Selection | None = None,
    ) -> None:
        source = table if isinstance(table, HeadTable) else head_table(table, kv_heads=kv_heads)
        self.statistic = statistic or next(iter(source.columns))
        if self.statistic not in source.columns:
            raise OptionError(f"no statistic {statistic!r} here; there are: {', '.join(source.columns)}")
        super().__init__(source, title=title, payload=_payload(source, self.statistic), link=link)

    @property
    def picked(self) -> list[tuple[int, int]]:
        """The heads that were picked by hand, as (layer, head), in the order of picking."""
        return [(p[0], p[1]) for p in self.picks if len(p) == 2]

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """Every statistic, and the order of clusters."""
        yield from ({"op": "values", "statistic": name} for name in self.source.columns)
        yield {"op": "clusters"}

    def data(self) -> pd.DataFrame:
        """One row per (layer, head, statistic): value, spread, control."""
        return self.source.frame

    def picture(self) -> Image.Image:
        """The grid of the statistic that the view opened on, with its legend; locked and picked heads are framed."""
        return _picture(self.source, self.statistic, self.title, self.selected, self.picked)


def _payload(table: HeadTable, statistic: str) -> dict[str, Any]:
    words = [{"name": c.name, "title": c.title, "unit": c.unit, "formula": c.formula} for c in table.columns.values()]
    return {
        "layers": list(table.layers),
        "heads": table.heads,
        "group": table.group,
        "statistics": words,
        "first": list(table.columns).index(statistic),
    }


def _picture(
    table: HeadTable, statistic: str, title: str, locked: tuple[int, int] | None, picked: list[tuple[int, int]]
) -> Image.Image:
    column, depth = table.columns[statistic], len(table.layers)
    low, high, log = column.range
    cell = min(26, max(6, 720 // depth))
    left, top = 46, 52
    width = max(left + depth * (cell + 1) + 14, 420)
    canvas = Canvas(width, top + table.heads * (cell + 1) + 86)
    canvas.text(14, 10, title, size=14)
    canvas.text(14, 30, f"{column.title}{f': {column.formula}' if column.formula else ''}", size=11, colour=SOFT)
    indexes = index_of(column.values.astype(np.float64), low, high, log=log)
    for (x, head), index in np.ndenumerate(indexes):
        at = (left + x * (cell + 1), top + head * (cell + 1))
        if index < 0:
            canvas.hatch(*at, cell, cell)
        else:
            r, g, b = (int(v) for v in sequential()[index])
            canvas.box(*at, cell, cell, (r, g, b))
        place = (table.layers[x], head)
        if place == locked or place in picked:
            canvas.outline(*at, cell, cell, LOCK if place == locked else INK)
    for head in range(0, table.heads, max(1, 14 // (cell + 1))):
        canvas.text(left - 8, top + head * (cell + 1) + cell / 2, str(head), size=9, colour=SOFT, anchor="rm")
    for x in range(0, depth, max(1, 22 // (cell + 1))):
        canvas.text(
            left + x * (cell + 1) + cell / 2,
            top + table.heads * (cell + 1) + 3,
            str(table.layers[x]),
            size=9,
            colour=SOFT,
            anchor="ma",
        )
    if table.group > 1:
        for start in range(0, table.heads, table.group):
            y = top + start * (cell + 1)
            canvas.line(left - 4, y + 1, left - 4, y + table.group * (cell + 1) - 3, HATCH)
    foot = top + table.heads * (cell + 1) + 22
    middle = float(np.sqrt(low * high)) if log else (low + high) / 2
    canvas.bar(left, foot, 200, (figure(low), figure(middle), figure(high)))
    canvas.text(left + 214, foot - 2, column.unit + (", logarithmic colours" if log else ""), size=10, colour=SOFT)
    canvas.paragraph(
        14,
        foot + 32,
        "Every number is exact for the texts measured. Attention weight is not causal effect.",
        columns=width // 6,
    )
    return canvas.image
