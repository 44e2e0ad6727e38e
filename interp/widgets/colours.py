"""The sequential colour map of every picture: dark blue (low) to golden yellow (high), one table for Python and the browser.

Lightness rises evenly in OKLab (Ottosson 2020) and the hue moves along blue and yellow, so order is read by everyone, colour-blind or in
print; red against green is never used. The ends keep clear of white paper and of a dark page, where "no value" is hatched background.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

STEPS = 256
LOW = (0.30, -0.010, -0.105)
HIGH = (0.89, -0.012, 0.152)
GREEN_BULGE = 0.050
"""How far the middle leans from grey to sage, so that it does not read as 'no value'."""


@cache
def sequential() -> NDArray[np.uint8]:
    """The 256 colours as sRGB bytes, low to high, uint8 [256, 3]; read-only."""
    t = np.linspace(0.0, 1.0, STEPS)[:, None]
    lab = (1 - t) * np.array(LOW) + t * np.array(HIGH)
    lab[:, 1] -= GREEN_BULGE * np.sin(np.pi * t[:, 0])
    table = np.round(255 * _srgb(lab)).astype(np.uint8)
    table.flags.writeable = False
    return table


def index_of(values: NDArray[np.floating], low: float, high: float, *, log: bool) -> NDArray[np.int64]:
    """The colour index (0 to 255) of each value on a linear or logarithmic range, clipped to it; -1 where the value is NaN.

    A range of no width maps every value to the lowest colour.
    """
    x = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.log(x / low) / np.log(high / low) if log else (x - low) / (high - low)
    part = np.nan_to_num(np.clip(part, 0.0, 1.0)) if high > low else np.zeros_like(x)
    return np.where(defined, np.floor(part * (STEPS - 1) + 0.5).astype(np.int64), -1)


def colourscale(stops: int = 17) -> list[list[float | str]]:
    """The table as a plotly colour scale of evenly spaced stops."""
    at = np.linspace(0, STEPS - 1, stops).round().astype(int)
    return [[float(i) / (STEPS - 1), "rgb({}, {}, {})".format(*sequential()[i])] for i in at]


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab to sRGB in [0, 1], clipped to the gamut; [n, 3] both."""
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.707614701],
        ]
    )
    linear = ((lab @ to_lms.T) ** 3) @ to_rgb.T
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
