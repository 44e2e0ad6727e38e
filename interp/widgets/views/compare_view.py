"""`CompareView`: what an edit, a calibration or another run changed: the signed change of every head, metrics beside their controls, the recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from interp.maps.attention_map import AttentionMap
from interp.results import Result
from interp.widgets.diverging import diverging, signed_index
from interp.widgets.payload import base64_of
from interp.widgets.views.attention_map import AttentionMapView
from interp.widgets.views.base import View
from interp.widgets.views.canvas import INK, LOCK, SOFT, Canvas, figure
from interp.widgets.views.compare_source import Comparison, Effect, serve
from interp.widgets.views.comparisons import comparison, difference
from interp.widgets.views.protocol import readable
from interp.widgets.views.selection import Selection

DRAWN = 16
"""Most metrics in a picture."""
NAMED = 11
"""Characters of a side's name in a picture."""


class CompareView(View):
    """Before and after: a map of every head's change with a fixed neutral zero, and a table of metrics with intervals and controls.

    Hover previews a head, a click locks it, Esc clears. The recipe that made the result can be copied as JSON.

    Args:
        before: a result that states a change (`text_effects`, `calibrate`, a patching result ...), or a `Comparison`; with `after`, the first of
            two runs, scans, results or tables of heads.
        after: what to compare it with.
        title: one line above.
        link: the bus that this view shares with others.

    Raises:
        OptionError: the two have nothing in common, or there is nothing to show.
    """

    NAME = "CompareView"
    MODULES = ("views/copy", "views/signed_grid", "views/compare_view")
    STYLES = ("head_grid", "compare_view")
    serve = staticmethod(serve)

    def __init__(
        self, before: object, after: object = None, *, title: str = "Before and after", link: Selection | None = None
    ) -> None:
        source = compared(before, after)
        super().__init__(source, title=title, payload=compare_payload(source), link=link)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """The metrics, and every number of heads."""
        return compare_requests(self.source)

    def data(self) -> pd.DataFrame:
        """One row per metric (layer and head -1), then one per head and number: before, after, change, interval, sd, control."""
        return self.source.frame

    def picture(self) -> Image.Image:
        """The map of the first number, if there are heads, and the first metrics."""
        return compare_picture(self.source, self.title, self.selected)


def compare(before: object, after: object, **options: Any) -> View:
    """Open two things of one kind side by side: two attention maps in one viewport (A, B and their difference), anything else in a CompareView.

    Args:
        before, after: two maps of the same shape, runs, scans, tables of heads, or results.
        options: title and link, as the view takes them.

    Raises:
        OptionError: they cannot be compared.
    """
    if isinstance(before, AttentionMap) and isinstance(after, AttentionMap):
        return AttentionMapView(before, other=after, **options)
    return CompareView(before, after, **options)


def compared(before: object, after: object = None) -> Comparison:
    """The comparison that one result states, or that two things make."""
    if after is not None:
        return difference(before, after)
    if isinstance(before, Comparison):
        return before
    return comparison(before) if isinstance(before, Result) else difference(before, after)


def compare_payload(source: Comparison) -> dict[str, Any]:
    """What the page needs from the start."""
    heads = source.heads
    columns = () if heads is None else heads.columns.values()
    return {
        "layers": [] if heads is None else list(heads.layers),
        "heads": 0 if heads is None else heads.heads,
        "group": 1 if heads is None else heads.group,
        "numbers": [
            {"name": c.name, "title": readable(c.title), "unit": c.unit, "sides": c.name in source.sides}
            for c in columns
        ],
        "control": readable(source.control),
        "interval": source.interval,
        "note": readable(source.note),
        "ends": [readable(word) for word in source.ends],
        "recipe": source.recipe,
        "diverging": base64_of(diverging()),
    }


def compare_requests(source: Comparison) -> Iterable[Mapping[str, Any]]:
    """Everything that the page asks for."""
    yield {"op": "effects"}
    yield from ({"op": "heads", "name": name} for name in source.names)


# ------------------------------------------------------------------ the picture
def compare_picture(source: Comparison, title: str, locked: tuple[int, int] | None = None) -> Image.Image:
    """A comparison drawn without a browser: the first number of heads, and the first metrics."""
    effects, heads = source.effects[:DRAWN], source.heads
    depth = 0 if heads is None else len(heads.layers)
    cell = min(26, max(6, 640 // depth)) if depth else 0
    width = max(46 + depth * (cell + 1) + 14, 760 if effects else 420)
    map_height = 0 if heads is None else 28 + heads.heads * (cell + 1) + 62
    canvas = Canvas(width, 40 + map_height + (26 + 20 * len(effects) if effects else 0) + 34)
    canvas.text(14, 10, title, size=14)
    if heads is not None:
        _draw_map(canvas, source, cell, locked)
    top = 40 + map_height
    if effects:
        _draw_effects(canvas, effects, top, source)
        top += 26 + 20 * len(effects)
    canvas.paragraph(
        14,
        top + 6,
        f"{source.note} Blue is less, orange is more, grey is no change. Attention weight is not causal effect.".lstrip(),
        columns=width // 6,
    )
    return canvas.image


def _draw_map(canvas: Canvas, source: Comparison, cell: int, locked: tuple[int, int] | None) -> None:
    heads, name = source.heads, source.names[0]
    if heads is None:
        return
    column, limit = source.column(name), source.limit(name)
    canvas.text(14, 34, f"change of {column.title}, layer by head", size=11, colour=SOFT)
    left, top = 46, 56
    for (x, head), index in np.ndenumerate(signed_index(column.values, limit)):
        at = (left + x * (cell + 1), top + head * (cell + 1))
        if index < 0:
            canvas.hatch(*at, cell, cell)
        else:
            r, g, b = (int(v) for v in diverging()[index])
            canvas.box(*at, cell, cell, (r, g, b))
        if (heads.layers[x], head) == locked:
            canvas.outline(*at, cell, cell, LOCK)
    for head in range(0, heads.heads, max(1, 14 // (cell + 1))):
        canvas.text(left - 8, top + head * (cell + 1) + cell / 2, str(head), size=9, colour=SOFT, anchor="rm")
    foot = top + heads.heads * (cell + 1)
    for x in range(0, len(heads.layers), max(1, 22 // (cell + 1))):
        canvas.text(left + x * (cell + 1) + cell / 2, foot + 3, str(heads.layers[x]), size=9, colour=SOFT, anchor="ma")
    canvas.signed_bar(left, foot + 20, 200, limit)
    canvas.text(left + 214, foot + 18, column.unit, size=10, colour=SOFT)


def _draw_effects(canvas: Canvas, effects: tuple[Effect, ...], top: int, source: Comparison) -> None:
    places = (330, 400, 462, 630, 746)
    ends = (word if len(word) <= NAMED else f"{word[: NAMED - 1]}…" for word in source.ends)
    for x, words in zip(places, (*ends, "change", source.interval, "control ± sd"), strict=True):
        canvas.text(x, top, words, size=10, colour=SOFT, anchor="ra")
    for n, e in enumerate(effects):
        y = top + 20 + 20 * n
        between = "" if np.isnan(e.low) else f"{figure(e.low)} to {figure(e.high)}"
        spread = "" if np.isnan(e.control_sd) else f" ± {figure(e.control_sd, 2)}"
        canvas.text(14, y, e.name[:48], size=11, colour=INK)
        said = (figure(e.before), figure(e.after), figure(e.change), between, f"{figure(e.control)}{spread}")
        for x, words in zip(places, said, strict=True):
            canvas.text(x, y, words, size=11, colour=INK, anchor="ra")
