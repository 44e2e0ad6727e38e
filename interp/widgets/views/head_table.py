"""`HeadTable`: numbers of every head, side by side: what HeadGrid shows, made from any table with a row per head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from interp.errors import OptionError
from interp.stats.catalogue import STATISTICS, find
from interp.widgets.payload import WIDE
from interp.widgets.views.protocol import Reply, answer, finite, one_of

COMPANIONS = ("spread", "control")
NOT_SCORES = ("layer", "head", "std", "count", "min", "max", "q05", "q25", "q50", "q75", "q95")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadColumn:
    """One number of every head.

    Attributes:
        name: of the statistic or column.
        title: as a reader is told it.
        unit: of the values, "" where there is none.
        formula: its definition in one line, "" where the table does not say.
        values: float32 [layer, head], NaN where undefined.
        spread: standard deviation over samples, of the same shape, NaN where unknown.
        control: the same number on the control, of the same shape, NaN where there is none.
    """

    name: str
    title: str
    unit: str = ""
    formula: str = ""
    values: NDArray[np.float32]
    spread: NDArray[np.float32]
    control: NDArray[np.float32]

    @property
    def range(self) -> tuple[float, float, bool]:
        """Lowest and highest defined value, and whether colours follow the logarithm; (nan, nan, False) where nothing is defined."""
        known = self.values[np.isfinite(self.values)]
        if not len(known):
            return float("nan"), float("nan"), False
        low, high = float(known.min()), float(known.max())
        return low, high, self.name in STATISTICS and find([self.name])[0].scale.kind == "log" and 0 < low * WIDE < high


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTable:
    """Numbers of every head.

    Attributes:
        layers: the model's own numbers of the rows of each column's arrays.
        heads: query heads of each layer.
        group: query heads that read the same keys (grouped-query attention); 1 where each has its own or nobody knows.
        columns: the numbers, by name.
    """

    layers: tuple[int, ...]
    heads: int
    group: int
    columns: Mapping[str, HeadColumn]

    def __post_init__(self) -> None:
        """Check the shapes."""
        if not self.columns or not self.layers:
            raise OptionError("there is nothing to show: the table has no numbers of heads")
        if self.group < 1 or self.heads % self.group:
            raise OptionError(
                f"{self.heads} heads do not fall into groups of {self.group}; give kv_heads as the model has them"
            )

    @property
    def frame(self) -> pd.DataFrame:
        """One row per (layer, head, statistic): value, spread, control."""
        layer, head = np.repeat(self.layers, self.heads), np.tile(np.arange(self.heads), len(self.layers))
        parts = [
            pd.DataFrame(
                {"layer": layer, "head": head, "statistic": c.name, "value": c.values.ravel()}
                | {"spread": c.spread.ravel(), "control": c.control.ravel()}
            )
            for c in self.columns.values()
        ]
        return pd.concat(parts, ignore_index=True)

    def cluster_order(self) -> NDArray[np.int64]:
        """Heads in an order in which similar ones are neighbours: leaves of Ward's tree over the standardised columns, undefined as the mean."""
        x = np.stack([c.values.ravel() for c in self.columns.values()], axis=1).astype(np.float64)
        x = np.where(np.isfinite(x), x, np.nan)[:, np.isfinite(x).any(0)]
        spread = np.nanstd(x, axis=0)
        z = np.nan_to_num((x - np.nanmean(x, axis=0)) / np.where(spread > 0, spread, 1.0))
        return leaves_list(linkage(z, "ward")).astype(np.int64) if z.size and len(z) > 1 else np.arange(len(z))


def head_table(frame: pd.DataFrame, *, kv_heads: int | None = None) -> HeadTable:
    """Read a table with a row per head.

    Args:
        frame: `run.frame`, a scan's `frame` (columns layer, head, statistic, value), or an analysis' `table` (columns layer, head, score,
            spread, control and more; every other column of numbers is shown too, with X_spread and X_control as its companions).
        kv_heads: key heads of each layer, to bracket the query heads that share one; None where it is not known.

    Raises:
        OptionError: no columns layer and head, no numbers, or several rows for one head and statistic.
    """
    missing = [c for c in ("layer", "head") if c not in frame.columns]
    if missing:
        raise OptionError(f"a table of heads needs the columns layer and head; {', '.join(missing)} are missing")
    table: Any = frame
    layers, heads = tuple(sorted(int(x) for x in table["layer"].unique())), int(table["head"].max()) + 1
    index = pd.MultiIndex.from_product([layers, range(heads)], names=["layer", "head"])

    def grid(rows: pd.DataFrame, column: str) -> NDArray[np.float32]:
        if column not in rows.columns:
            return np.full((len(layers), heads), np.nan, np.float32)
        values = rows.set_index(["layer", "head"])[column].reindex(index)
        return values.to_numpy(np.float32).reshape(len(layers), heads)

    columns = {}
    for name, rows, value, companions in _parts(frame):
        if rows[["layer", "head"]].duplicated().any():
            raise OptionError(
                f"{name} has several rows for one head; take one text or one setting first, or average them"
            )
        words = _words(name)
        spread, control = (grid(rows, c) for c in companions)
        columns[name] = HeadColumn(name=name, **words, values=grid(rows, value), spread=spread, control=control)
    group = heads // kv_heads if kv_heads else 1
    return HeadTable(layers=layers, heads=heads, group=group, columns=columns)


def _parts(frame: Any) -> Iterator[tuple[str, pd.DataFrame, str, tuple[str, str]]]:
    """What the columns of a grid are: name, rows, column of the values, columns of spread and control."""
    if "statistic" in frame.columns:
        for name in frame["statistic"].unique():
            yield str(name), frame[frame["statistic"] == name], "value", ("std", "control")
        return
    numbers = [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]) and c not in NOT_SCORES]
    companions = {f"{c}_{end}" for c in numbers for end in COMPANIONS} | set(COMPANIONS)
    keys = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])]
    split = [c for c in keys if frame[["layer", "head"]].duplicated().any() and frame[c].nunique() > 1]
    groups = frame.groupby(split, sort=False) if split else [((), frame)]
    for values, rows in groups:
        said = ", ".join(str(v) for v in (values if isinstance(values, tuple) else (values,)))
        for c in numbers:
            if c not in companions:
                names = COMPANIONS if c == "score" else (f"{c}_spread", f"{c}_control")
                yield f"{said}: {c}" if said else c, rows, c, (names[0], names[1])


def _words(name: str) -> dict[str, str]:
    if name not in STATISTICS:
        return {"title": name.replace("_", " ")}
    declared = find([name])[0]
    return {"title": declared.title, "unit": declared.unit, "formula": declared.formula}


def _values(table: HeadTable, message: Mapping[str, Any]) -> Reply:
    column = table.columns[one_of(message, "statistic", list(table.columns))]
    low, high, log = column.range
    arrays = (column.values, column.spread, column.control)
    said = {"low": finite(low), "high": finite(high), "log": log}
    return said, [np.ascontiguousarray(a, "<f4").tobytes() for a in arrays]


def _clusters(table: HeadTable, message: Mapping[str, Any]) -> Reply:
    return {}, [table.cluster_order().astype("<f4").tobytes()]


OPERATIONS = {"values": _values, "clusters": _clusters}


def serve(source: HeadTable, message: object) -> Reply:
    """Answer HeadGrid's page: `values` of a statistic (values, spread, control as float32 [layer, head]), or the order of `clusters`."""
    return answer(OPERATIONS, source, message)
