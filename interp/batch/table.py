"""Writing `stats.parquet`: one row per (layer, head, statistic) with mean, spread and quantiles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.batch.files import write_file
from interp.batch.result import STATS_FILE
from interp.stats.declaration import Scale
from interp.stats.summary import Summary

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
NUMBERS = ("mean", "std", "count", "min", "max", *QUANTILES)


def write_table(
    folder: Path,
    summaries: Mapping[str, Summary],
    *,
    scales: Mapping[str, Scale],
    layers: Sequence[int],
    plan: Mapping[str, Any],
    key: str,
) -> None:
    """Write the table of a folder, whole or not at all.

    Args:
        folder: where `stats.parquet` goes.
        summaries: statistic name -> summaries [layer, head].
        scales: statistic name -> scale of its histogram.
        layers: labels of the layer axis.
        plan: the plan's record, kept in the file's metadata with its `key`.

    The file holds no time and no path: the same numbers give the same bytes.
    """
    parts = [_rows(name, summary, scales[name], layers) for name, summary in summaries.items()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    metadata = {
        "interp.schema": str(plan["schema"]),
        "interp.key": key,
        "interp.plan": json.dumps(plan, sort_keys=True),
    }
    arrays = [pa.array(values, pa.string() if name == "statistic" else None) for name, values in columns.items()]
    table = pa.Table.from_arrays(arrays, names=list(columns)).replace_schema_metadata(metadata)
    write_file(folder / STATS_FILE, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _rows(name: str, summary: Summary, scale: Scale, layers: Sequence[int]) -> dict[str, np.ndarray]:
    depth, heads = summary.count.shape
    defined = summary.count > 0
    numbers = {
        "mean": np.where(defined, summary.mean, np.nan),
        "std": summary.std,
        "count": summary.count,
        "min": np.where(defined, summary.minimum, np.nan),
        "max": np.where(defined, summary.maximum, np.nan),
        **{column: summary.quantile(share, scale) for column, share in QUANTILES.items()},
    }
    return {
        "layer": np.repeat(np.array(layers, dtype=np.int32), heads),
        "head": np.tile(np.arange(heads, dtype=np.int32), depth),
        "statistic": np.full(depth * heads, name, dtype=object),
        **{column: values.reshape(-1) for column, values in numbers.items()},
    }
