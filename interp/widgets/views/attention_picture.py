"""The picture of a whole attention map, drawn without a browser."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from interp.widgets.colours import sequential
from interp.widgets.views.canvas import LOCK, SCALE, SOFT, Canvas, figure
from interp.widgets.views.map_source import TILE, MapTiles

SIDE: Final = 420
"""Page pixels of the longer side of a map."""


def lowest_shown(keys: int) -> float:
    """The weight at the low end of the colours: a power of ten at or below what each of the keys gets if all get the same."""
    return float(10.0 ** -min(7, max(2, np.ceil(np.log10(keys)))))


def whole_map(tiles: MapTiles, pixels: int) -> tuple[NDArray[np.float32], int]:
    """The whole map as masses, at the finest level that has at most so many pixels a side (or the coarsest), and that level."""
    level = next((n for n in range(tiles.levels) if max(tiles.shape) >> n <= pixels), tiles.levels)
    across = range(-(-tiles.shape[1] // (TILE << level)))
    rows = [
        np.concatenate([tiles.tile(level, y, x, "mass") for x in across], axis=1)
        for y in range(-(-tiles.shape[0] // (TILE << level)))
    ]
    return np.concatenate(rows), level


def map_picture(tiles: MapTiles, title: str, region: tuple[tuple[int, int], tuple[int, int]] | None) -> Image.Image:
    """Draw the whole map as masses of its pixels, with axes and scale; `region` (rows, keys) is framed."""
    weights, level = whole_map(tiles, SIDE * SCALE)
    low = lowest_shown(tiles.shape[1])
    grow = SIDE * SCALE / max(weights.shape)
    height, width = (max(1, round(n * grow)) for n in weights.shape)
    at = [
        np.minimum((np.arange(size) / grow).astype(int), n - 1)
        for size, n in zip((height, width), weights.shape, strict=True)
    ]
    shown = weights[np.ix_(*at)]
    with np.errstate(divide="ignore"):
        part = np.clip(1 - np.log(shown) / np.log(low), 0, 1)
    rgb = sequential()[np.floor(255 * part + 0.5).astype(int)]
    left, top = 58, 56
    canvas = Canvas(left + max(width // SCALE, 360) + 20, top + height // SCALE + 96)
    canvas.text(14, 10, title, size=14)
    cells = 1 << level
    said = "each pixel is one exact weight" if level == 0 else f"a pixel is the mass of {cells} x {cells} exact weights"
    canvas.text(
        14, 31, f"{tiles.shape[0]:,} queries (down) x {tiles.shape[1]:,} keys (across); {said}", size=10, colour=SOFT
    )
    canvas.hatch(left, top, width // SCALE, height // SCALE)
    under = np.asarray(canvas.image)[top * SCALE : top * SCALE + height, left * SCALE : left * SCALE + width]
    under = np.pad(under, [(0, height - under.shape[0]), (0, width - under.shape[1]), (0, 0)], mode="edge")
    canvas.pixels(left, top, np.where(shown[..., None] > 0, rgb, under).astype(np.uint8))
    for share in (0, 0.25, 0.5, 0.75, 1):
        y, x = top + share * height / SCALE, left + share * width / SCALE
        canvas.text(left - 6, y, f"{share * tiles.shape[0]:,.0f}", size=9, colour=SOFT, anchor="rm")
        canvas.text(x, top + height / SCALE + 4, f"{share * tiles.shape[1]:,.0f}", size=9, colour=SOFT, anchor="ma")
    if region is not None:
        (q0, q1), (k0, k1) = region
        scale = grow / SCALE / (1 << level)
        canvas.outline(left + k0 * scale, top + q0 * scale, max(6, (k1 - k0) * scale), max(6, (q1 - q0) * scale), LOCK)
    foot = top + height // SCALE + 28
    canvas.bar(left, foot, 200, (figure(low), figure(low**0.5), "1"))
    canvas.text(left + 214, foot - 2, "share of the row, logarithmic colours", size=10, colour=SOFT)
    canvas.paragraph(14, foot + 32, "Hatched: hidden. Attention weight is not causal effect.", columns=90)
    return canvas.image
