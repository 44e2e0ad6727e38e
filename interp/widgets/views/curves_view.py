"""`CurvesView`: lines over steps, positions or models, with intervals, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd
from PIL import Image

from interp.batch.series import ModelsResult
from interp.errors import OptionError
from interp.results import Result
from interp.saes.evaluation import Evaluation
from interp.widgets.colours import sequential
from interp.widgets.views.base import View
from interp.widgets.views.canvas import INK, LOCK, SCALE, SOFT, Canvas, Colour, figure
from interp.widgets.views.curves_reading import of_evaluation, of_models, of_streaming
from interp.widgets.views.curves_source import Chart, Curves, Line, serve
from interp.widgets.views.plates import PLATE, draw_lines
from interp.widgets.views.selection import Selection

WIDE: Final = PLATE[0] + 70
"""Page pixels from one chart of a picture to the next."""
ROWS: Final = 20
"""Rows of a table in a picture."""


class CurvesView(View):
    """Charts that belong together, and a table of their numbers.

    Hover or the arrow keys read all lines at a place, a click keeps the place, Esc clears. A line that is about a head is drawn strong while
    the head is hovered or locked, here or in a linked view; in charts of heads any other chosen head gets a line of its own.

    Args:
        given: a result of `interp.sinks.streaming_loss`, an `Evaluation` of an autoencoder, scans of several models, or `Curves`.
        panel: which charts to open on; None for the first.
        title: one line above.
        link: the bus that this view shares with others.

    Raises:
        OptionError: something else, or no such panel.
    """

    NAME = "CurvesView"
    MODULES = ("views/curves", "views/curves_view")
    STYLES = ("curves", "curves_view")
    serve = staticmethod(serve)

    def __init__(
        self,
        given: Curves | Result | Evaluation | ModelsResult,
        *,
        panel: str | None = None,
        title: str = "Curves",
        link: Selection | None = None,
    ) -> None:
        source = _curves(given)
        self.panel = next(iter(source.panels)) if panel is None else panel
        if self.panel not in source.panels:
            raise OptionError(f"no {source.word} {panel!r} here; there are: {', '.join(source.panels)}")
        super().__init__(source, title=title, payload=_payload(source, self.panel), link=link)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """Every panel."""
        yield from ({"op": "panel", "panel": name} for name in self.source.panels)

    def data(self) -> pd.DataFrame:
        """One row per panel, chart, line and place: value, low, high."""
        return self.source.frame

    def picture(self) -> Image.Image:
        """The charts of the panel that the view opened on, with the locked head's line."""
        return _picture(self.source, self.panel, self.title, self.selected)


def _curves(given: Any) -> Curves:
    if isinstance(given, Curves):
        return given
    if isinstance(given, ModelsResult):
        return of_models(given)
    if isinstance(given, Evaluation):
        return of_evaluation(given)
    if isinstance(given, Result) and given.kind == "sinks.streaming":
        return of_streaming(given)
    kind = given.kind if isinstance(given, Result) else type(given).__name__
    raise OptionError(
        f"CurvesView draws streaming losses, evaluations of autoencoders and scans of several models; got {kind!r}"
    )


def _payload(source: Curves, panel: str) -> dict[str, Any]:
    return {
        "panels": list(source.panels),
        "word": source.word,
        "first": panel,
        "layers": list(source.layers),
        "exact": source.exact,
    }


# ------------------------------------------------------------------ the picture
def _picture(source: Curves, panel: str, title: str, locked: tuple[int, int] | None) -> Image.Image:
    charts = source.panels[panel]
    drawn, tables = [c for c in charts if c.drawn], [c for c in charts if not c.drawn]
    columns = min(2, max(1, len(drawn)))
    canvas = Canvas(28 + WIDE * columns, 2400)
    canvas.text(14, 10, title, size=14)
    top = 34
    if len(source.panels) > 1:
        canvas.text(14, 30, f"{source.word}: {panel}", size=11, colour=SOFT)
        top = 54
    for start in range(0, len(drawn), columns):
        foots = [
            _draw_chart(canvas, (14 + WIDE * n, top), chart, source, locked)
            for n, chart in enumerate(drawn[start : start + columns])
        ]
        top = max(foots) + 14
    for chart in tables:
        top = _draw_table(canvas, top, chart) + 10
    canvas.paragraph(14, top, f"{source.exact} Attention weight is not causal effect.", columns=70 * columns)
    foot = min((top + 48) * SCALE, canvas.image.height)
    return canvas.image.crop((0, 0, canvas.image.width, foot))


def _draw_chart(
    canvas: Canvas, at: tuple[int, int], chart: Chart, source: Curves, locked: tuple[int, int] | None
) -> int:
    lines = list(chart.lines)
    if locked is not None and chart.heads is not None and locked not in [n.place for n in lines]:
        layer, head = locked
        if layer in source.layers and head < chart.heads.shape[1]:
            values = chart.heads[source.layers.index(layer), head].astype(float)
            lines.append(Line(name=f"{layer}.{head}", values=values, place=locked))
    colours = [LOCK if n.place is not None and n.place == locked else _colour(n.shade) for n in lines]
    names = chart.labels or tuple(f"{chart.x_title} {figure(x)}" for x in (chart.x[0], chart.x[-1]))
    ends = {n.name: (n.low, n.high) for n in lines if n.low is not None and n.high is not None}
    return draw_lines(
        canvas,
        at,
        {n.name: (n.values, colour) for n, colour in zip(lines, colours, strict=True)},
        chart.x,
        title=f"{chart.title}{', logarithmic' if chart.log else ''}",
        range_y=chart.range,
        names=names,
        limit=chart.limit,
        log=chart.log,
        joined=chart.joined,
        ends=ends,
        dashed=[n.name for n in lines if n.dash],
    )


def _draw_table(canvas: Canvas, top: int, chart: Chart) -> int:
    canvas.text(14, top, chart.title, size=11)
    for n, line in enumerate(chart.lines):
        canvas.text(260 + 110 * n, top, line.name, size=10, colour=SOFT, anchor="ra")
    for row, label in enumerate(chart.labels[:ROWS]):
        y = top + 18 + 15 * row
        canvas.text(14, y, label[:28], size=10, colour=INK)
        for n, line in enumerate(chart.lines):
            canvas.text(260 + 110 * n, y, figure(line.values[row]), size=10, colour=INK, anchor="ra")
    left, foot = len(chart.labels) - ROWS, top + 18 + 15 * min(ROWS, len(chart.labels))
    if left > 0:
        canvas.text(14, foot, f"and {left} more, in the view", size=10, colour=SOFT)
    return foot + 15 * (left > 0)


def _colour(shade: float | None) -> Colour:
    """The colour of a line: the shared ramp without its pale end."""
    if shade is None:
        return INK
    r, g, b = (int(v) for v in sequential()[round(200 * shade)])
    return r, g, b
