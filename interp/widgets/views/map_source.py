"""`MapTiles`: an attention map as a pyramid of tiles: exact cells at level 0, peaks or masses of exact cells above.

A tile is 256 x 256 pixels; a pixel of level L covers 2^L x 2^L cells. Low levels are computed from (q, k, lse) when they are asked for; from
16 x 16 cells on they come from one sweep over the map (block sums and maxima, `interp_kernels.columns`), which is taken once, on first need.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from interp.errors import ShapeError
from interp.maps.attention_map import AttentionMap

TILE: Final = 256
SWEPT: Final = 4
"""The lowest level that is read from the sweep."""
FLOOR: Final = 1e-7
"""Weights at and below this share the lowest code; hidden cells have code 0."""
Mode = Literal["peak", "mass"]
MODES: Final = ("peak", "mass")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """What one pass over a map leaves: per key the mass received, and sums and maxima of blocks, by level from `SWEPT` up."""

    received: NDArray[np.float32]
    sums: list[NDArray[np.float32]]
    peaks: list[NDArray[np.float32]]


class MapTiles:
    """Tiles of one attention map.

    Attributes:
        amap: the map.
        shape: (queries, keys).
        levels: the level at which the whole map is one tile.
    """

    def __init__(self, amap: AttentionMap) -> None:
        self.amap = amap
        self.shape = amap.shape
        self.levels = max(0, (max(self.shape) - 1).bit_length() - (TILE - 1).bit_length())
        self._sweep: Sweep | None = None
        self._lock = threading.Lock()

    def sweep(self) -> Sweep:
        """The pass over the whole map, taken on the first call: about 1 s for 32,768 tokens on two processor cores."""
        with self._lock:
            if self._sweep is None:
                with torch.inference_mode():
                    received, sums, peaks = self.amap.blocks(1 << SWEPT)
                sums, peaks = [sums.cpu().numpy()], [peaks.cpu().numpy()]
                for _ in range(SWEPT, self.levels):
                    sums.append(_halved(sums[-1], np.add))
                    peaks.append(_halved(peaks[-1], np.maximum))
                self._sweep = Sweep(received=received.cpu().numpy(), sums=sums, peaks=peaks)
            return self._sweep

    def tile(self, level: int, y: int, x: int, mode: Mode) -> NDArray[np.float32]:
        """One tile, float32 [height, width], at most 256 a side (less at the map's edges).

        A pixel is the largest weight under it (peak), or the share of its rows' attention that goes to its keys (mass: the mean over its
        rows of the sum over its keys). Both lie in [0, 1]; 0 where every cell is hidden.

        Raises:
            ShapeError: the map has no such tile.
        """
        if not 0 <= level <= self.levels or min(y, x) < 0:
            raise ShapeError(f"there is no tile {(level, y, x)}: levels are 0 to {self.levels}")
        side = TILE << level
        rows, cols = ((at * side, min((at + 1) * side, n)) for at, n in zip((y, x), self.shape, strict=True))
        if rows[0] >= rows[1] or cols[0] >= cols[1]:
            raise ShapeError(f"tile {(level, y, x)} lies outside a map of {self.shape[0]} x {self.shape[1]}")
        if level < SWEPT:
            return self._computed(rows, cols, level, mode)
        sweep, here = self.sweep(), (slice(y * TILE, (y + 1) * TILE), slice(x * TILE, (x + 1) * TILE))
        if mode == "peak":
            return sweep.peaks[level - SWEPT][here]
        return sweep.sums[level - SWEPT][here] / _cells_under(rows, level)[:, None]

    def row(self, q: int) -> NDArray[np.float32]:
        """Weights of one query, float32 [keys]."""
        return self.amap.row(q).cpu().numpy()

    def rows_peak(self) -> NDArray[np.float32]:
        """Largest weight in each block of 16 rows, from the sweep."""
        return self.sweep().peaks[0].max(1)

    def _computed(self, rows: tuple[int, int], cols: tuple[int, int], level: int, mode: Mode) -> NDArray[np.float32]:
        """Pool exact cells. The last pixel of a map's edge covers fewer cells, so it is computed apart: bins must not drift."""
        out = np.zeros((_pixels(rows, level), _pixels(cols, level)), np.float32)
        for r, at in _whole_and_rest(rows, level):
            for c, beside in _whole_and_rest(cols, level):
                size = (_pixels(r, level), _pixels(c, level))
                part = self.amap.tile(r, c, size, "max" if mode == "peak" else "mean").cpu().numpy()
                if mode == "mass":
                    part = part * _cells_under(c, level)[None]
                out[at : at + size[0], beside : beside + size[1]] = part
        return out


def encode(weights: NDArray[np.float32]) -> bytes:
    """A tile as 256 x 256 codes of a byte, rows first: 0 hidden, 1 to 255 evenly in the logarithm from `FLOOR` to 1; b"" if all is hidden."""
    if not weights.any():
        return b""
    with np.errstate(divide="ignore"):
        part = 1 - np.log(np.clip(weights, FLOOR, 1.0)) / np.log(FLOOR)
    return _padded(np.where(weights > 0, 1 + np.floor(254 * part + 0.5), 0), 0)


def encode_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> bytes:
    """The difference a - b as codes: 0 hidden in both, 128 no difference, up to 255 (a larger by 1) and down to 1, evenly in its logarithm."""
    d = a.astype(np.float64) - b
    part = 1 - np.log(np.clip(np.abs(d), FLOOR, 1.0)) / np.log(FLOOR)
    seen = (a > 0) | (b > 0)
    if not seen.any():
        return b""
    return _padded(np.where(seen, 128 + np.sign(d) * np.floor(127 * part + 0.5), 0), 0)


def _padded(codes: NDArray[np.floating], empty: int) -> bytes:
    whole = np.full((TILE, TILE), empty, np.uint8)
    whole[: codes.shape[0], : codes.shape[1]] = codes.astype(np.uint8)
    return whole.tobytes()


def _pixels(span: tuple[int, int], level: int) -> int:
    return -(-(span[1] - span[0]) >> level)


def _cells_under(span: tuple[int, int], level: int) -> NDArray[np.float32]:
    """Cells a side under each pixel of a span that starts at a pixel's edge."""
    starts = np.arange(_pixels(span, level)) << level
    return np.minimum(1 << level, span[1] - span[0] - starts).astype(np.float32)


def _whole_and_rest(span: tuple[int, int], level: int) -> list[tuple[tuple[int, int], int]]:
    """The part of a span that whole pixels cover and the part under its last pixel, each with the number of its first pixel."""
    cut = span[0] + ((span[1] - span[0]) >> level << level)
    parts = [((span[0], cut), 0), ((cut, span[1]), (cut - span[0]) >> level)]
    return [part for part in parts if part[0][0] < part[0][1]]


def _halved(x: NDArray[np.float32], join: np.ufunc) -> NDArray[np.float32]:
    even = np.pad(x, [(0, n % 2) for n in x.shape])
    return join(join(even[::2, ::2], even[1::2, ::2]), join(even[::2, 1::2], even[1::2, 1::2]))
