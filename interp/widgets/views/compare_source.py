"""`Comparison`: what changed: metrics before and after, beside controls; and the change of every head. What CompareView shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.widgets.views.head_table import HeadColumn, HeadTable
from interp.widgets.views.protocol import Reply, answer, finite, one_of, readable

Grid = NDArray[np.float32]
ROWS: Final = 1000
"""Most rows of metrics that a page shows."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One metric.

    Attributes:
        name: what was measured.
        before, after: its value without and with the change, NaN where the result does not say.
        change: the difference, or the effect that the result states.
        low, high: interval of `change`, NaN where there is none.
        sd: standard deviation of `change` over samples, NaN where unknown.
        control: the same change under the control, NaN where there is none.
        control_sd: standard deviation of the control over draws, NaN where unknown.
    """

    name: str
    before: float = math.nan
    after: float = math.nan
    change: float
    low: float = math.nan
    high: float = math.nan
    sd: float = math.nan
    control: float = math.nan
    control_sd: float = math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What changed.

    Attributes:
        effects: metrics.
        heads: the change of every head, several numbers by name; None where the result has none.
        sides: name of a number -> (before, after), float32 [layer, head]; only of those that have both.
        ranges: name of a number -> (low, high) ends of the interval of each head's change; only of those that have one.
        ends: what the two sides are called.
        note: what else a reader should know, in a sentence.
        control: what the control is, in a few words.
        interval: what the interval is.
        recipe: JSON that says how it was made.
    """

    effects: tuple[Effect, ...] = ()
    heads: HeadTable | None = None
    sides: Mapping[str, tuple[Grid, Grid]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[Grid, Grid]] = field(default_factory=dict)
    ends: tuple[str, str] = ("before", "after")
    note: str = ""
    control: str = ""
    interval: str = ""
    recipe: str = "{}"

    def __post_init__(self) -> None:
        """Check that there is something to show."""
        if not self.effects and self.heads is None:
            raise OptionError("there is nothing to compare: the result has neither metrics nor heads")

    @property
    def names(self) -> list[str]:
        """The numbers of heads."""
        return [] if self.heads is None else list(self.heads.columns)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per metric, then one per head and number: name, layer, head (-1 for metrics), before, after, change and what goes with it."""
        rows = [{"name": e.name, "layer": -1, "head": -1, **_numbers(e)} for e in self.effects]
        for name in self.names:
            rows += self._head_rows(name)
        return pd.DataFrame(rows)

    def limit(self, name: str) -> float:
        """The largest size of any head's change, 0 where there is none: both ends of the colours."""
        change = self.column(name).values
        known = change[np.isfinite(change)]
        return float(np.abs(known).max()) if len(known) else 0.0

    def column(self, name: str) -> HeadColumn:
        """The changes of one number."""
        if self.heads is None:
            raise OptionError("this comparison has no heads")
        return self.heads.columns[name]

    def grids(self, name: str) -> tuple[Grid, ...]:
        """Change, before, after, spread, control, low, high of one number, each float32 [layer, head]; NaN where unknown."""
        column = self.column(name)
        none = np.full_like(column.values, np.nan)
        sides, ends = self.sides.get(name, (none, none)), self.ranges.get(name, (none, none))
        return column.values, *sides, column.spread, column.control, *ends

    def _head_rows(self, name: str) -> list[dict[str, Any]]:
        layers = () if self.heads is None else self.heads.layers
        change, before, after, spread, control, low, high = self.grids(name)
        return [
            {"name": name, "layer": layers[i], "head": h, "before": before[i, h], "after": after[i, h]}
            | {"change": float(x), "low": low[i, h], "high": high[i, h], "sd": spread[i, h], "control": control[i, h]}
            for (i, h), x in np.ndenumerate(change)
        ]


def _numbers(effect: Effect) -> dict[str, float]:
    return {name: x for name, x in vars(effect).items() if name != "name"}


def _effects(source: Comparison, message: Mapping[str, Any]) -> Reply:
    rows = [{"name": readable(e.name)} | {n: finite(x) for n, x in _numbers(e).items()} for e in source.effects[:ROWS]]
    return {"rows": rows, "of": len(source.effects)}, []


def _heads(source: Comparison, message: Mapping[str, Any]) -> Reply:
    name = one_of(message, "name", source.names)
    buffers = [np.ascontiguousarray(grid, "<f4").tobytes() for grid in source.grids(name)]
    return {"limit": source.limit(name)}, buffers


OPERATIONS: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Reply]]] = MappingProxyType(
    {"effects": _effects, "heads": _heads}
)


def serve(source: Comparison, message: object) -> Reply:
    """Answer CompareView's page: `effects`, rows of metrics; `heads`, the grids of one number as float32 [layer, head]."""
    return answer(OPERATIONS, source, message)
