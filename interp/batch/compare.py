"""`compare`: two scans (of two models, checkpoints or settings) head by head: differences, changes of rank, and intervals for both.

Intervals come from means that are drawn again (`interp.batch.differences`), in the best way that the two folders allow:

- "paired bootstrap over shards": both measured the same token ids shard by shard; the same shards are redrawn in both, so what the texts have in
  common cancels. This is the one to want: same text, same --context, same --per-shard.
- "bootstrap over shards": the texts differ, and each scan's shards are redrawn on their own.
- "normal, from the spread of rows": a scan has fewer than 8 shards here (or keeps them elsewhere). Means are drawn with the standard
  error std / sqrt(count), as if rows were independent; rows of one text are not, so these intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.batch.differences import (
    KEYS,
    How,
    Side,
    changed_settings,
    check_draws,
    difference_maps,
    difference_table,
    drawn_again,
)
from interp.batch.parts import read_shard
from interp.batch.result import PARTS, ScanResult, open_scan
from interp.errors import OptionError
from interp.results import Result

OVER: Final[Mapping[How, str]] = {
    "paired bootstrap": "paired bootstrap over shards",
    "bootstrap": "bootstrap over shards",
    "normal": "normal, from the spread of rows",
}
"""How intervals were made, in words."""


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
    check_draws(confidence, draws)
    scans = [x if isinstance(x, ScanResult) else open_scan(x) for x in (a, b)]
    names = _common(scans[0], scans[1], statistics)
    left, right = (_side(scan, names) for scan in scans)
    if not left.values.index.equals(right.values.index):
        raise OptionError(
            f"the two scans measured other layers or heads ({_shape(left.values)} and {_shape(right.values)}); compare models of one shape"
        )
    how, *drawn = drawn_again(left, right, draws, np.random.default_rng(seed))
    table = difference_table(left, right, (drawn[0], drawn[1]), confidence)
    manifest = {
        "model": scans[1].manifest["model"],
        "compared": [{"folder": s.folder.name, "model": s.manifest["model"], "key": s.manifest["key"]} for s in scans],
        "differences": changed_settings(scans[0].manifest["plan"], scans[1].manifest["plan"]),
        "settings": {"statistics": list(names), "confidence": confidence, "draws": draws, "method": OVER[how]},
        "shards": [len(side.ids) for side in (left, right)],
        "seed": seed,
        "versions": scans[1].manifest["versions"],
    }
    return Result(kind="batch.compare", table=table, manifest=manifest, arrays=difference_maps(table))


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


def _side(scan: ScanResult, names: Sequence[str]) -> Side:
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
    # As if rows were independent.
    errors = (table["std"] / np.sqrt(table["count"].clip(lower=1))).to_numpy()
    if len(ids) != scan.manifest.get("shards"):
        return Side(values=table["value"], errors=errors)
    return Side(values=table["value"], errors=errors, ids=tuple(ids), counts=np.stack(counts), sums=np.stack(sums))


def _shape(values: pd.Series) -> str:
    layers, heads = (values.index.get_level_values(name).nunique() for name in ("layer", "head"))
    return f"{layers} layers of {heads} heads"
