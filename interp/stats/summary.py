"""`Summary`: the mergeable form of a statistic's values, one per (layer, head): count, mean, variance, extremes, histogram.

Merging is exact for counts, extremes and histograms, and follows Chan, Golub and LeVeque (1979) for mean and variance in float64.
Shards are folded in plan order, so the same shards give the same bits whatever order they finished in. Quantiles are read from the
histogram: exact to one bin (1/512 of a linear scale, 5.6 % of a logarithmic one, 7.4 % of a signed one), and clipped to the extremes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.errors import ShapeError
from interp.stats.declaration import Scale

BINS = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Summaries over any leading axes (layer, head): every field but `histogram` (one more axis of 512 bins) has that shape."""

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    histogram: NDArray[np.int64]

    @staticmethod
    def of(values: NDArray[np.floating], scale: Scale) -> Summary:
        """Summarise the last axis of `values`; NaN marks undefined values, which are left out."""
        x = values.astype(np.float64)
        defined = ~np.isnan(x)
        count = defined.sum(-1)
        safe = np.maximum(count, 1)
        mean = np.where(defined, x, 0.0).sum(-1) / safe
        m2 = np.square(np.where(defined, x - mean[..., None], 0.0)).sum(-1)
        return Summary(
            count=count,
            mean=mean,
            m2=m2,
            minimum=np.where(defined, x, np.inf).min(-1, initial=np.inf),
            maximum=np.where(defined, x, -np.inf).max(-1, initial=-np.inf),
            histogram=_histogram(x, defined, scale),
        )

    def merge(self, other: Summary) -> Summary:
        """The summary of both sets of values; order matters only in the last bits of mean and variance."""
        if self.count.shape != other.count.shape:
            raise ShapeError(
                f"summaries of different shapes cannot merge: {self.count.shape} and {other.count.shape}; merge equal layers and heads"
            )
        count = self.count + other.count
        safe = np.maximum(count, 1)
        delta = other.mean - self.mean
        return Summary(
            count=count,
            mean=np.where(
                other.count == 0,
                self.mean,
                np.where(self.count == 0, other.mean, self.mean + delta * other.count / safe),
            ),
            m2=self.m2 + other.m2 + delta**2 * self.count * other.count / safe,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            histogram=self.histogram + other.histogram,
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Sample standard deviation (ddof 1); NaN below two values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 1, np.sqrt(self.m2 / (self.count - 1)), np.nan)

    def quantile(self, share: float, scale: Scale) -> NDArray[np.float64]:
        """The value below which `share` of the values lie, to one bin; NaN where there are none."""
        edges = bin_edges(scale)
        below = np.cumsum(self.histogram, axis=-1)
        target = share * self.count[..., None]
        index = np.minimum((below < target).sum(-1), BINS - 1)
        inside = np.take_along_axis(self.histogram, index[..., None], -1)[..., 0]
        before = np.take_along_axis(below, index[..., None], -1)[..., 0] - inside
        part = (target[..., 0] - before) / np.maximum(inside, 1)
        value = edges[index] + np.clip(part, 0, 1) * (edges[index + 1] - edges[index])
        return np.where(self.count > 0, np.clip(value, self.minimum, self.maximum), np.nan)


def bin_edges(scale: Scale) -> NDArray[np.float64]:
    """The 513 bin edges of a scale; values outside fall into the first and last bin."""
    if scale.kind == "log":
        return np.geomspace(scale.low, scale.high, BINS + 1)
    if scale.kind == "signed":
        above = np.geomspace(scale.low, scale.high, BINS // 2)
        return np.concatenate([-above[::-1], [0.0], above])
    return np.linspace(scale.low, scale.high, BINS + 1)


def _histogram(x: NDArray[np.float64], defined: NDArray[np.bool_], scale: Scale) -> NDArray[np.int64]:
    place = np.clip(np.searchsorted(bin_edges(scale), x, side="right") - 1, 0, BINS - 1)
    flat = place.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    kept = defined.reshape(flat.shape)
    counts = np.zeros((len(flat), BINS), dtype=np.int64)
    row = np.broadcast_to(np.arange(len(flat))[:, None], flat.shape)
    np.add.at(counts, (row[kept], flat[kept]), 1)
    return counts.reshape(*x.shape[:-1], BINS)
