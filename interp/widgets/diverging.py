"""The diverging colour map of differences: blue (less) to orange (more), a fixed grey at zero; one table for Python and the browser.

Blue against orange is told apart by every common kind of colour blindness. The ends are equally far from zero on every scale, so that a
colour's side is its sign and its strength its size.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

ZERO = 127
"""Index of the colour of zero, in the middle of 255."""
LESS = np.array((38, 78, 168))
NOTHING = np.array((213, 213, 213))
MORE = np.array((214, 104, 16))


@cache
def diverging() -> NDArray[np.uint8]:
    """The 255 colours as sRGB bytes, most negative to most positive, uint8 [255, 3]; read-only."""
    share = np.linspace(0.0, 1.0, ZERO + 1)[:, None]
    less, more = (NOTHING + share * (end - NOTHING) for end in (LESS, MORE))
    table = np.round(np.concatenate([less[:0:-1], more])).astype(np.uint8)
    table.flags.writeable = False
    return table


def signed_index(values: NDArray[np.floating], limit: float) -> NDArray[np.int64]:
    """The colour index (0 to 254) of each value on the range from -limit to limit, clipped to it; -1 where the value is NaN.

    A limit of 0 maps every value to the colour of zero.
    """
    x = np.asarray(values, dtype=np.float64)
    part = np.clip(np.nan_to_num(x) / limit, -1.0, 1.0) if limit > 0 else np.zeros_like(x)
    return np.where(np.isnan(x), -1, np.floor(part * ZERO + 0.5).astype(np.int64) + ZERO)


def signed_scale(stops: int = 17) -> list[list[float | str]]:
    """The table as a plotly colour scale of evenly spaced stops, for a range that is even about zero."""
    at = np.linspace(0, 2 * ZERO, stops).round().astype(int)
    return [[float(i) / (2 * ZERO), "rgb({}, {}, {})".format(*diverging()[i])] for i in at]
