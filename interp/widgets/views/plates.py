"""Parts of pictures that several views draw without a browser: a small map of heads, and lines or bars over one axis."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from interp.widgets.colours import index_of, sequential
from interp.widgets.views.canvas import HATCH, LOCK, PAPER, SOFT, Canvas, Colour, figure

Spot = tuple[float | int, float | int]
PLATE: tuple[int, int] = (360, 170)
"""Width and height of the area of lines, in page pixels, without its labels."""
DASH: Final = 4
"""Page pixels of a dash, and of the gap behind it."""


def draw_heads(
    canvas: Canvas,
    at: tuple[int, int],
    values: NDArray[np.floating],
    layers: Sequence[int],
    *,
    low: float,
    high: float,
    locked: tuple[int, int] | None,
) -> int:
    """A map of layers (left to right) x heads (downwards) with its colour bar. Returns the y below it.

    Args:
        canvas: to draw on.
        at: upper left corner.
        values: [layer, head], NaN is hatched.
        layers: the model's own numbers.
        low, high: ends of the colours.
        locked: (layer, head) to frame.
    """
    left, top = at[0] + 26, at[1]
    depth, heads = values.shape
    cell = max(6, min(20, 360 // depth, 300 // heads))
    for (x, head), index in np.ndenumerate(index_of(values.astype(np.float64), low, high, log=False)):
        corner = (left + x * (cell + 1), top + head * (cell + 1))
        if index < 0:
            canvas.hatch(*corner, cell, cell)
        else:
            r, g, b = (int(v) for v in sequential()[index])
            canvas.box(*corner, cell, cell, (r, g, b))
        if (layers[x], head) == locked:
            canvas.outline(*corner, cell, cell, LOCK)
    for head in range(0, heads, max(1, 14 // (cell + 1))):
        canvas.text(left - 6, top + head * (cell + 1) + cell / 2, str(head), size=9, colour=SOFT, anchor="rm")
    foot = top + heads * (cell + 1)
    for x in range(0, depth, max(1, 22 // (cell + 1))):
        canvas.text(left + x * (cell + 1) + cell / 2, foot + 3, str(layers[x]), size=9, colour=SOFT, anchor="ma")
    canvas.bar(left, foot + 22, 180, (figure(low), figure((low + high) / 2), figure(high)))
    return foot + 48


def draw_lines(
    canvas: Canvas,
    at: tuple[int, int],
    lines: Mapping[str, tuple[NDArray[np.floating], Colour]],
    x: Sequence[int] | NDArray[Any],
    *,
    title: str,
    range_y: tuple[float, float],
    names: Sequence[str],
    limit: tuple[float, str] | None = None,
    log: bool = False,
    joined: bool = True,
    ends: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]] | None = None,
    dashed: Collection[str] = (),
) -> int:
    """Curves over one axis, with a title, labels of places, two labels at the ends of the vertical axis, and a key. Returns the y below it.

    Args:
        canvas: to draw on.
        at: upper left corner.
        lines: name -> values over x (NaN parts the line) and colour.
        x: places, growing.
        title: above.
        range_y: ends of the vertical axis.
        names: of the first and the last place, or of every place (those that have room are written).
        limit: a horizontal line, and its name.
        log: whether the vertical axis is logarithmic.
        joined: whether neighbouring places are joined; else points stand alone, and side by side in bands where every place has a name.
        ends: name -> low and high ends of the intervals of that line.
        dashed: names of the lines that are broken, and whose points are hollow.
    """
    left, top = at[0] + 40, at[1] + 20
    width, height = PLATE
    canvas.text(at[0], at[1], title, size=11)
    low, high = np.log(range_y) if log else range_y
    places = np.asarray(x, np.float64)
    banded = not joined and len(names) == len(places)
    band = width / len(places)
    span = places[-1] - places[0] if len(places) > 1 and places[-1] > places[0] else 1.0
    longest = max(map(len, lines), default=0)
    abreast = next((n for n in (3, 2) if longest <= 51 // n), 1)

    def across(px: float, n: int = 0) -> float:
        if not banded:
            return left + width * (px - places[0]) / span
        aside = (n + 0.5) / len(lines) - 0.5
        return left + band * (int(np.searchsorted(places, px)) + 0.5 + 0.7 * aside)

    def up(py: float) -> float:
        share = ((np.log(py) if py > 0 else low) if log else py) - low
        return top + height * (1 - min(max(share / (high - low if high > low else 1.0), 0.0), 1.0))

    for value in range_y:
        canvas.line(left, up(value), left + width, up(value), HATCH)
        canvas.text(left - 6, up(value), figure(value), size=9, colour=SOFT, anchor="rm")
    if limit is not None and range_y[0] <= limit[0] <= range_y[1]:
        y = up(limit[0])
        canvas.line(left, y, left + width, y, LOCK)
        canvas.text(left + width, y - 13, limit[1], size=9, colour=LOCK, anchor="ra")
    for n, (name, (values, colour)) in enumerate(lines.items()):
        points = [(across(a, n), up(b)) if np.isfinite(b) else None for a, b in zip(places, values, strict=True)]
        for start, stop in pairwise(points) if joined else ():
            if start is not None and stop is not None:
                _draw_stroke(canvas, start, stop, colour, dashed=name in dashed)
        for i, p in enumerate(points if len(points) < 40 else ()):
            if p is not None and ends is not None and name in ends:
                canvas.line(p[0], up(ends[name][0][i]), p[0], up(ends[name][1][i]), colour)
            if p is not None:
                _draw_point(canvas, *p, colour, hollow=name in dashed)
        x0, y0 = left + n % abreast * (width // abreast), top + height + 16 + n // abreast * 14
        if joined:
            _draw_stroke(canvas, (x0, y0 + 7), (x0 + 12, y0 + 7), colour, dashed=name in dashed)
        _draw_point(canvas, x0 + 6, y0 + 7, colour, hollow=name in dashed)
        canvas.text(x0 + 16, y0, name[: 51 // abreast], size=9, colour=SOFT)
    if not banded and len(names) == 2:
        for name, px, anchor in ((names[0], left, "la"), (names[1], left + width, "ra")):
            canvas.text(px, top + height + 3, name, size=9, colour=SOFT, anchor=anchor)
    else:
        middles = [left + band * (i + 0.5) if banded else across(p) for i, p in enumerate(places)]
        _draw_places(canvas, names, middles, top + height + 3)
    return top + height + 34 + (len(lines) - 1) // abreast * 14


def ramp_colours(n: int) -> list[Colour]:
    """So many colours of the shared ramp, far enough apart to be told; its pale end is left out."""
    rows = sequential()[np.linspace(0, 200, max(n, 1)).round().astype(int)]
    return [(int(r), int(g), int(b)) for r, g, b in rows]


def _draw_stroke(canvas: Canvas, start: Spot, stop: Spot, colour: Colour, *, dashed: bool) -> None:
    """A straight line, or dashes of four pixels."""
    if not dashed:
        canvas.line(*start, *stop, colour)
        return
    (x0, y0), (x1, y1) = start, stop
    count = max(1, round(np.hypot(x1 - x0, y1 - y0) / DASH))
    for n in range(0, count, 2):
        a, b = n / count, min(1.0, (n + 1) / count)
        canvas.line(x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0), colour)


def _draw_point(canvas: Canvas, x: float | int, y: float | int, colour: Colour, *, hollow: bool) -> None:
    canvas.box(x - 2, y - 2, 4, 4, colour)
    if hollow:
        canvas.box(x - 1, y - 1, 2, 2, PAPER)


def _draw_places(canvas: Canvas, names: Sequence[str], at: Sequence[float], y: float | int) -> None:
    """Write the names of places below their axis, those that have room."""
    free = -np.inf
    for name, x in zip(names, at, strict=True):
        half = 2.8 * len(name)
        if x - half >= free:
            canvas.text(x, y, name, size=9, colour=SOFT, anchor="ma")
            free = x + half + 4
