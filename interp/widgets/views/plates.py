"""Parts of pictures that several views draw without a browser: a small map of heads, and lines or bars over one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.widgets.colours import index_of, sequential
from interp.widgets.views.canvas import HATCH, LOCK, SOFT, Canvas, Colour, figure

PLATE: tuple[int, int] = (360, 170)
"""Width and height of the area of lines, in page pixels, without its labels."""


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
) -> int:
    """Curves over one axis, with a title, two labels at the ends of each axis and a key. Returns the y below it.

    Args:
        canvas: to draw on.
        at: upper left corner.
        lines: name -> values over x (NaN parts the line) and colour.
        x: places, growing.
        title: above.
        range_y: ends of the vertical axis.
        names: of the first and the last place.
        limit: a horizontal line, and its name.
    """
    left, top = at[0] + 40, at[1] + 20
    width, height = PLATE
    canvas.text(at[0], at[1], title, size=11)
    low, high = range_y
    places = np.asarray(x, np.float64)
    span = places[-1] - places[0] if len(places) > 1 and places[-1] > places[0] else 1.0

    def point(px: float, py: float) -> tuple[float, float]:
        share = min(max((py - low) / (high - low if high > low else 1.0), 0.0), 1.0)
        return left + width * (px - places[0]) / span, top + height * (1 - share)

    for value in (low, high):
        y = point(places[0], value)[1]
        canvas.line(left, y, left + width, y, HATCH)
        canvas.text(left - 6, y, figure(value), size=9, colour=SOFT, anchor="rm")
    if limit is not None and low <= limit[0] <= high:
        y = point(places[0], limit[0])[1]
        canvas.line(left, y, left + width, y, LOCK)
        canvas.text(left + width, y - 13, limit[1], size=9, colour=LOCK, anchor="ra")
    for n, (name, (values, colour)) in enumerate(lines.items()):
        points = [point(a, b) if np.isfinite(b) else None for a, b in zip(places, values, strict=True)]
        for start, stop in pairwise(points):
            if start is not None and stop is not None:
                canvas.line(*start, *stop, colour)
        for p in points if len(points) < 40 else ():
            if p is not None:
                canvas.box(p[0] - 1.5, p[1] - 1.5, 3, 3, colour)
        canvas.box(left + n % 3 * 120, top + height + 22 + n // 3 * 14, 12, 3, colour)
        canvas.text(left + n % 3 * 120 + 16, top + height + 16 + n // 3 * 14, name[:17], size=9, colour=SOFT)
    for name, px, anchor in ((names[0], left, "la"), (names[-1], left + width, "ra")):
        canvas.text(px, top + height + 3, name, size=9, colour=SOFT, anchor=anchor)
    return top + height + 34 + (len(lines) - 1) // 3 * 14


def ramp_colours(n: int) -> list[Colour]:
    """So many colours of the shared ramp, far enough apart to be told; its pale end is left out."""
    rows = sequential()[np.linspace(0, 200, max(n, 1)).round().astype(int)]
    return [(int(r), int(g), int(b)) for r, g, b in rows]
