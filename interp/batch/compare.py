"""`compare`: two scans (of two models, checkpoints or settings) head by head: differences, changes of rank, and intervals for both.

    difference = mean_B - mean_A of each statistic and head; rank 1 is the largest mean; rank change = rank_B - rank_A

Intervals come from `draws` redrawn pairs of means, as quantiles, in the best way that the two folders allow:

- "paired bootstrap over shards": both measured the same token ids shard by shard; the same shards are redrawn in both, so what the texts have in
  common cancels. This is the one to want: same text, same --context, same --shard.
- "bootstrap over shards": the texts differ, and each scan's shards are redrawn on their own.
- "normal, from the spread of rows": a scan has fewer than `SHARDS` shards here (or keeps them elsewhere). Means are drawn with the standard
  error std / sqrt(count), as if rows were independent; rows of one text are not, so these intervals are too narrow.

Each interval is for its own row alone: of many heads, some lie apart by chance. Memory: two float64 numbers per shard, statistic and head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.batch.parts import read_shard
from interp.batch.result import PARTS, ScanResult, open_scan
from interp.errors import OptionError
from interp.results import Result

SHARDS: Final = 8
"""Shards from which a bootstrap over them is worth something."""
KEYS: Final = ["statistic", "layer", "head"]

Method = Literal["paired bootstrap over shards", "bootstrap over shards", "normal, from the spread of rows"]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """One scan: its table by (statistic, layer, head), and the counts and sums [shard, row] of its shards, None where they are not here."""

    table: pd.DataFrame
    ids: tuple[str, ...]
    counts: Numbers | None
    sums: Numbers | None

    def redrawn(self, weights: Numbers) -> Numbers:
        """Means [draw, row] where each shard counts as often as it was drawn [draw, shard]."""
        if self.counts is None or self.sums is None:
            raise ValueError("this side has no shards")
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ self.sums) / (weights @ self.counts)

    def normal(self, draws: int, generator: np.random.Generator) -> Numbers:
        """Means [draw, row] with the standard error of independent rows."""
        error = (self.table["std"] / np.sqrt(self.table["count"].clip(lower=1))).fillna(0.0).to_numpy()
        return self.table["value"].to_numpy() + error * generator.standard_normal((draws, len(self.table)))


def compare(
    a: str | Path | ScanResult,
    b: str | Path | ScanResult,
    *,
    statistics: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Compare two finished scans of models with the same layers and heads.

    Args:
        a: folder of the scan that is compared with, or the scan.
        b: the other one.
        statistics: which ones, None for all that both have.
        confidence: of the intervals.
        draws: redrawn pairs of means.
        seed: of the draws.

    Returns:
        One row per (statistic, layer, head): a, b (means), score (difference), spread (its standard deviation over the draws), low, high (its
        interval), rank_a, rank_b, rank_change, rank_low, rank_high (its interval); control is empty. Arrays: the difference map
        [layer, head] of each statistic. The manifest says the method, and in which settings the two differ.

    Raises:
        OptionError: they share no statistic, define one differently, or have other layers or heads; an impossible number.
        OutputError, CorruptFileError: as `open_scan`.
    """
    if not 0.0 < confidence < 1.0 or draws < 2:
        raise OptionError(f"confidence must lie between 0 and 1 and draws be at least 2; got {confidence} and {draws}")
    scans = [x if isinstance(x, ScanResult) else open_scan(x) for x in (a, b)]
    names = _common(scans[0], scans[1], statistics)
    left, right = (_side(scan, names) for scan in scans)
    if not left.table.index.equals(right.table.index):
        raise OptionError(
            f"the two scans measured other layers or heads ({_shape(left.table)} and {_shape(right.table)}); compare models of one shape"
        )
    generator = np.random.default_rng(seed)
    method, drawn_a, drawn_b = _draws(left, right, draws, generator)
    table = _table(left.table, right.table, drawn_a, drawn_b, confidence)
    manifest = {
        "model": scans[1].manifest["model"],
        "compared": [{"folder": s.folder.name, "model": s.manifest["model"], "key": s.manifest["key"]} for s in scans],
        "differences": _differences(scans[0].manifest["plan"], scans[1].manifest["plan"]),
        "settings": {"statistics": list(names), "confidence": confidence, "draws": draws, "method": method},
        "shards": [len(side.ids) for side in (left, right)],
        "seed": seed,
        "versions": scans[1].manifest["versions"],
    }
    arrays = {
        name: rows.pivot(index="layer", columns="head", values="score").to_numpy()
        for name, rows in table.groupby("statistic")
    }
    return Result(kind="batch.compare", table=table, manifest=manifest, arrays={str(n): x for n, x in arrays.items()})


def _common(a: ScanResult, b: ScanResult, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The statistics to compare, in A's order."""
    shared = [name for name in a.statistics if name in b.statistics]
    missing = [name for name in wanted or () if name not in shared]
    if missing or not shared:
        raise OptionError(
            f"the scans do not share {', '.join(missing) or 'any statistic'}; they share: {', '.join(shared) or 'none'}"
        )
    names = tuple(name for name in shared if wanted is None or name in wanted)
    facts = [scan.manifest["statistics"] for scan in (a, b)]
    other = [n for n in names if any(facts[0][n].get(k) != facts[1][n].get(k) for k in ("formula", "undefined"))]
    if other:
        raise OptionError(f"the two scans define {', '.join(other)} differently; scan again with one version of interp")
    return names


def _side(scan: ScanResult, names: Sequence[str]) -> _Side:
    frame = scan.frame
    table: Any = frame[frame["statistic"].isin(names)].set_index(KEYS).sort_index()
    ids, counts, sums = [], [], []
    for path in sorted((scan.folder / PARTS).glob("[0-9]*.parquet")):
        shard = read_shard(path)
        index = pd.MultiIndex.from_product([names, shard.layers, table.index.levels[2]], names=KEYS)
        parts = [shard.summaries[name] for name in names]
        flat = pd.DataFrame(
            {
                "count": np.concatenate([s.count.reshape(-1) for s in parts]),
                "sum": np.concatenate([(s.count * s.mean).reshape(-1) for s in parts]),
            },
            index=index,
        ).reindex(table.index)
        ids.append(shard.ids_sha256)
        counts.append(flat["count"].to_numpy(np.float64))
        sums.append(flat["sum"].to_numpy(np.float64))
    if len(ids) != scan.manifest.get("shards"):
        return _Side(table=table, ids=(), counts=None, sums=None)
    return _Side(table=table, ids=tuple(ids), counts=np.stack(counts), sums=np.stack(sums))


def _draws(a: _Side, b: _Side, draws: int, generator: np.random.Generator) -> tuple[Method, Numbers, Numbers]:
    """How the means of both sides were drawn again, and those means [draw, row]."""
    if min(len(a.ids), len(b.ids)) < SHARDS:
        return "normal, from the spread of rows", a.normal(draws, generator), b.normal(draws, generator)
    weights = _weights(len(a.ids), draws, generator)
    if a.ids == b.ids:
        return "paired bootstrap over shards", a.redrawn(weights), b.redrawn(weights)
    return "bootstrap over shards", a.redrawn(weights), b.redrawn(_weights(len(b.ids), draws, generator))


def _weights(shards: int, draws: int, generator: np.random.Generator) -> Numbers:
    """How often each shard is drawn [draw, shard], as many draws as there are shards."""
    return generator.multinomial(shards, np.full(shards, 1.0 / shards), size=draws).astype(np.float64)


def _table(a: pd.DataFrame, b: pd.DataFrame, drawn_a: Numbers, drawn_b: Numbers, confidence: float) -> pd.DataFrame:
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    means = [side["value"].to_numpy() for side in (a, b)]
    gaps = drawn_b - drawn_a
    statistic = a.index.get_level_values("statistic")
    ranks = [_ranks(x[None], statistic)[0] for x in means]
    changes = _ranks(drawn_b, statistic) - _ranks(drawn_a, statistic)
    columns: Mapping[str, Any] = {
        "a": means[0],
        "b": means[1],
        "score": means[1] - means[0],
        "spread": gaps.std(0, ddof=1),
        "control": np.nan,
        **dict(zip(("low", "high"), _quantiles(gaps, ends), strict=True)),
        "rank_a": ranks[0],
        "rank_b": ranks[1],
        "rank_change": ranks[1] - ranks[0],
        **dict(zip(("rank_low", "rank_high"), _quantiles(changes, ends), strict=True)),
    }
    return pd.DataFrame(columns, index=a.index).reset_index()


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


def _shape(table: pd.DataFrame) -> str:
    layers, heads = (table.index.get_level_values(name).nunique() for name in ("layer", "head"))
    return f"{layers} layers of {heads} heads"


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings in which two plans differ: name -> both values."""
    names = [*a, *(name for name in b if name not in a)]
    found = {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}
    return json.loads(json.dumps(found))
