"""`Curves`: charts of lines over steps, positions or models, with intervals and control lines: what CurvesView shows, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.widgets.views.entropy_source import thinned
from interp.widgets.views.protocol import Reply, answer, finite, one_of, readable

Numbers = NDArray[np.float64]
PLACES: Final = 600
"""Places of a chart that a page draws, evenly spaced where there are more."""
MARGIN: Final = 0.04
"""Room above and below the values, as a share of their range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One line of a chart.

    Attributes:
        name: as a reader is told it.
        values: [place], NaN where there is none.
        low, high: its interval, [place] each; None where there is none.
        shade: its place on the ramp of colours, 0 to 1; None for the colour of the text.
        dash: whether it is dashed.
        place: (layer, head) where it is about a head.
    """

    name: str
    values: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    shade: float | None = None
    dash: bool = False
    place: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """Lines over one axis.

    Attributes:
        title, x_title, y_title: in words.
        x: places, growing.
        lines: what is drawn and named.
        labels: words in place of the numbers of x; () for none.
        log: whether the vertical axis is logarithmic.
        joined: whether neighbouring places belong together; else values stand as points.
        limit: where a line is drawn across, and what it means.
        heads: every head over the places, float32 [layer, head, place], drawn when a head is chosen; None where the chart is not about heads.
        drawn: whether there is a chart at all, or only its table.
    """

    title: str
    x_title: str
    y_title: str
    x: Numbers
    lines: tuple[Line, ...]
    labels: tuple[str, ...] = ()
    log: bool = False
    joined: bool = True
    limit: tuple[float, str] | None = None
    heads: NDArray[np.float32] | None = None
    drawn: bool = True

    def __post_init__(self) -> None:
        """Check that all is of one length."""
        lengths = {len(a) for line in self.lines for a in (line.values, line.low, line.high) if a is not None}
        if not self.lines or lengths != {len(self.x)} or not len(self.x) or len(self.labels) not in (0, len(self.x)):
            raise OptionError(f"{self.title}: wanted at least one line, and {len(self.x)} values of each, at least one")

    @property
    def range(self) -> tuple[float, float]:
        """Ends of the vertical axis, with some room; positive ones where it is logarithmic."""
        arrays = [a for line in self.lines for a in (line.values, line.low, line.high) if a is not None]
        arrays += [] if self.heads is None else [self.heads.ravel().astype(float)]
        shown = np.concatenate([*arrays, [] if self.limit is None else [self.limit[0]]])
        known = shown[np.isfinite(shown) & ((shown > 0) | (not self.log))]
        if not len(known):
            return (1.0, 10.0) if self.log else (0.0, 1.0)
        if self.log:
            low, high = np.log([known.min(), known.max()])
            room = MARGIN * (high - low) or 0.1
            return float(np.exp(low - room)), float(np.exp(high + room))
        low, high = float(known.min()), float(known.max())
        room = MARGIN * (high - low) or 0.05 * abs(high) or 0.5
        # An axis that comes near zero begins there.
        return (0.0 if 0 <= low < 0.5 * high else low - room), high + room


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """What CurvesView shows.

    Attributes:
        panels: name -> charts that are shown together; with several, the reader chooses one.
        word: what the names of the panels are, such as "statistic".
        layers: the model's own numbers, of charts about heads.
        exact: what of it is exact, in a sentence.
        control: what the control lines are, in a sentence; "" where there are none.
    """

    panels: Mapping[str, tuple[Chart, ...]]
    word: str = "charts"
    layers: tuple[int, ...] = ()
    exact: str = "Every number is as it was measured."
    control: str = ""

    def __post_init__(self) -> None:
        """Check that there is something to show."""
        if not self.panels or not all(self.panels.values()):
            raise OptionError("there is nothing to draw: no charts")

    @property
    def frame(self) -> pd.DataFrame:
        """One row per panel, chart, line and place: value, low, high; layer and head are -1 where the line is about none."""
        rows = []
        for name, charts in self.panels.items():
            for chart in charts:
                labels = chart.labels or [""] * len(chart.x)
                for line in chart.lines:
                    layer, head = line.place or (-1, -1)
                    index = {"panel": name, "chart": chart.title, "line": line.name, "layer": layer, "head": head}
                    values = {"x": chart.x, "label": labels, "value": line.values}
                    ends = {"low": _or_nan(line.low, chart), "high": _or_nan(line.high, chart)}
                    rows.append(pd.DataFrame(values | ends).assign(**index))
        table: Any = pd.concat(rows, ignore_index=True)
        return table[["panel", "chart", "line", "layer", "head", "x", "label", "value", "low", "high"]]


def _or_nan(values: Numbers | None, chart: Chart) -> Numbers:
    return np.full(len(chart.x), np.nan) if values is None else values


def _words(chart: Chart, at: NDArray[np.int64]) -> dict[str, Any]:
    low, high = chart.range
    return {
        "title": readable(chart.title),
        "xTitle": readable(chart.x_title),
        "yTitle": readable(chart.y_title),
        "labels": [readable(chart.labels[i]) for i in at] if chart.labels else [],
        "lines": [
            {"name": readable(n.name), "shade": n.shade, "dash": n.dash, "interval": n.low is not None}
            | {"layer": None if n.place is None else n.place[0], "head": None if n.place is None else n.place[1]}
            for n in chart.lines
        ],
        "y": [finite(low), finite(high)],
        "log": chart.log,
        "joined": chart.joined,
        "limit": None if chart.limit is None else [chart.limit[0], readable(chart.limit[1])],
        "heads": None if chart.heads is None else chart.heads.shape[1],
        "drawn": chart.drawn,
        "of": len(chart.x),
    }


def _panel(source: Curves, message: Mapping[str, Any]) -> Reply:
    charts = source.panels[one_of(message, "panel", list(source.panels))]
    said, buffers = [], []
    for chart in charts:
        at = thinned(len(chart.x), PLACES)
        said.append(_words(chart, at))
        arrays = [chart.x[at]]
        for side in ("values", "low", "high"):
            arrays.append(np.stack([_side(line, side, chart)[at] for line in chart.lines]))
        arrays.append(np.empty(0) if chart.heads is None else chart.heads[..., at].astype(np.float64))
        buffers += [np.ascontiguousarray(a, "<f4").tobytes() for a in arrays]
    return {"charts": said}, buffers


def _side(line: Line, side: str, chart: Chart) -> Numbers:
    return {"values": line.values, "low": _or_nan(line.low, chart), "high": _or_nan(line.high, chart)}[side]


OPERATIONS: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Reply]]] = {"panel": _panel}


def serve(source: Curves, message: object) -> Reply:
    """Answer CurvesView's page: `panel` {panel} is the charts of one panel, and of each chart x, values, low and high [line, place] and heads."""
    return answer(OPERATIONS, source, message)
