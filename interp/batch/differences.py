"""Differences of two sides head by head, changes of rank, and intervals for both, from repeats of the measurement.

A side has a value for each row (statistic, layer, head), and repeats of it: shards of a scan, samples of an analysis. Means are drawn again as often
as asked, in the best way that both sides allow:

- "paired bootstrap": the repeats are the same on both sides; the same ones are redrawn in both, so what they have in common cancels.
- "bootstrap": each side's repeats are redrawn on their own.
- "normal": a side has fewer than `ENOUGH` repeats; means are drawn with their standard errors, heads apart.

    difference = value_B - value_A; rank 1 is the largest value; rank change = rank_B - rank_A

Each interval is for its own row alone: of many heads, some lie apart by chance. Memory: two float64 numbers per repeat and row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError

ENOUGH: Final = 8
"""Repeats from which a bootstrap over them is worth something."""
KEYS: Final = ["statistic", "layer", "head"]

How = Literal["paired bootstrap", "bootstrap", "normal"]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        values: [row], indexed by `KEYS`.
        errors: standard errors [row]; NaN where there is none, which draws the value as it is.
        ids: of the repeats, equal on both sides if they are the same; empty if there are none here.
        counts: of each repeat [repeat, row].
        sums: of each repeat [repeat, row].
    """

    values: pd.Series
    errors: Numbers
    ids: tuple[str, ...] = ()
    counts: Numbers | None = None
    sums: Numbers | None = None

    def redrawn(self, weights: Numbers) -> Numbers:
        """Means [draw, row] where each repeat counts as often as it was drawn [draw, repeat]."""
        if self.counts is None or self.sums is None:
            raise ValueError("this side has no repeats")
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ self.sums) / (weights @ self.counts)

    def normal(self, draws: int, generator: np.random.Generator) -> Numbers:
        """Means [draw, row] with the standard errors."""
        return self.values.to_numpy() + np.nan_to_num(self.errors) * generator.standard_normal(
            (draws, len(self.values))
        )


def check_draws(confidence: float, draws: int) -> None:
    """Refuse impossible numbers. Raises OptionError."""
    if not 0.0 < confidence < 1.0 or draws < 2:
        raise OptionError(f"confidence must lie between 0 and 1 and draws be at least 2; got {confidence} and {draws}")


def drawn_again(a: Side, b: Side, draws: int, generator: np.random.Generator) -> tuple[How, Numbers, Numbers]:
    """How the means of both sides were drawn again, and those means [draw, row]."""
    if min(len(a.ids), len(b.ids)) < ENOUGH:
        return "normal", a.normal(draws, generator), b.normal(draws, generator)
    weights = _weights(len(a.ids), draws, generator)
    if a.ids == b.ids:
        return "paired bootstrap", a.redrawn(weights), b.redrawn(weights)
    return "bootstrap", a.redrawn(weights), b.redrawn(_weights(len(b.ids), draws, generator))


def difference_table(a: Side, b: Side, drawn: tuple[Numbers, Numbers] | None, confidence: float) -> pd.DataFrame:
    """One row per row of the sides: a, b, score (B - A), spread, control (NaN), low, high, rank_a, rank_b, rank_change, rank_low, rank_high.

    Args:
        a: the side that is compared with.
        b: the other, with the same rows.
        drawn: means [draw, row] of both, drawn again; without them spread and intervals are NaN.
        confidence: of the intervals.
    """
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    means = [side.values.to_numpy() for side in (a, b)]
    statistic = a.values.index.get_level_values("statistic")
    ranks = [_ranks(x[None], statistic)[0] for x in means]
    none = np.full(len(means[0]), np.nan)
    spread, interval, rank_interval = none, [none, none], [none, none]
    if drawn is not None:
        gaps = drawn[1] - drawn[0]
        spread, interval = gaps.std(0, ddof=1), _quantiles(gaps, ends)
        rank_interval = _quantiles(_ranks(drawn[1], statistic) - _ranks(drawn[0], statistic), ends)
    columns: Mapping[str, Any] = {
        "a": means[0],
        "b": means[1],
        "score": means[1] - means[0],
        "spread": spread,
        "control": np.nan,
        **dict(zip(("low", "high"), interval, strict=True)),
        "rank_a": ranks[0],
        "rank_b": ranks[1],
        "rank_change": ranks[1] - ranks[0],
        **dict(zip(("rank_low", "rank_high"), rank_interval, strict=True)),
    }
    return pd.DataFrame(columns, index=a.values.index).reset_index()


def difference_maps(table: pd.DataFrame) -> dict[str, Numbers]:
    """Statistic -> its differences [layer, head]."""
    return {
        str(name): rows.pivot(index="layer", columns="head", values="score").to_numpy()
        for name, rows in table.groupby("statistic")
    }


def changed_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings in which two records differ: name -> both values."""
    names = [*a, *(name for name in b if name not in a)]
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}


def _weights(repeats: int, draws: int, generator: np.random.Generator) -> Numbers:
    """How often each repeat is drawn [draw, repeat], as many draws as there are repeats."""
    return generator.multinomial(repeats, np.full(repeats, 1.0 / repeats), size=draws).astype(np.float64)


def _ranks(values: Numbers, statistic: pd.Index) -> Numbers:
    """Ranks [draw, row] among the heads of each statistic: 1 for the largest, ties their mean, NaN for undefined values."""
    ranks = np.full(values.shape, np.nan)
    for name in statistic.unique():
        rows = np.flatnonzero(statistic == name)
        ranks[:, rows] = pd.DataFrame(values[:, rows]).rank(axis=1, ascending=False).to_numpy()
    return ranks


def _quantiles(drawn: Numbers, ends: tuple[float, float]) -> Numbers:
    """Quantiles [end, row]; NaN where a head's mean is undefined in any draw."""
    return np.quantile(drawn, ends, axis=0)
