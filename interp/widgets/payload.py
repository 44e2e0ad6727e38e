"""What the report's page is given: the scan's table, thumbnails and manifest as plain JSON values.

Numbers travel as little-endian float32 in base64, a column of equal numbers as that one number; weights as 16-bit codes on a logarithmic
scale (0 is hidden, 1 is `FLOOR` or less, 65535 is 1), which is 0.03 % a step, so that three digits can be read.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import InputDataError
from interp.maps.thumbnail import Thumbnail
from interp.stats.catalogue import find
from interp.widgets.colours import sequential
from interp.widgets.facts import facts, notes, title

COLUMNS = ("mean", "std", "count", "min", "q05", "q25", "q50", "q75", "q95", "max")
FLOOR = 1e-9
OVER = {"query": "queries", "key": "keys", "prompt": "texts"}
WIDE = 20.0
"""A statistic on a logarithmic scale gets logarithmic colours where its largest mean is this many times its smallest."""
ALIKE = 1e-5
"""Relative difference below which means of all heads are called alike: float32 sums of the same thing differ by less."""
FIRST = "normalised_entropy"
FIRST_MAP = "induction_mass"


def report_data(frame: pd.DataFrame, manifest: Mapping[str, Any], thumbnails: Sequence[Thumbnail]) -> dict[str, Any]:
    """Everything the page shows.

    Args:
        frame: one row per (layer, head, statistic) with value (the mean) or mean, std, count, min, max and q05 to q95.
        manifest: of the scan; shown as it is, and the head of the page is taken from it.
        thumbnails: attention maps of heads that the frame holds.

    Raises:
        InputDataError: a column is missing, or a head occurs twice for a statistic.
    """
    table = frame.rename(columns={"value": "mean"})
    missing = [name for name in ("layer", "head", "statistic", *COLUMNS) if name not in table.columns]
    if missing or table.empty:
        what = f"the columns {', '.join(missing)} are missing" if missing else "it has no rows"
        raise InputDataError(f"the table of statistics cannot be shown: {what}; it must be the stats.parquet of a scan")
    if table[["layer", "head", "statistic"]].duplicated().any():
        raise InputDataError("the table of statistics holds a head twice for one statistic; it must be of one scan")
    layers, heads = (sorted(int(x) for x in table[name].unique()) for name in ("layer", "head"))
    index = pd.MultiIndex.from_product([layers, heads], names=["layer", "head"])
    names = list(dict.fromkeys(table["statistic"]))
    by_head = {name: rows.set_index(["layer", "head"]).reindex(index) for name, rows in table.groupby("statistic")}
    place = {head: i for i, head in enumerate(index)}
    return {
        "title_text": title(manifest),
        "facts": facts(manifest, layers=len(layers), heads=len(heads)),
        "notes": notes(manifest),
        "layers": layers,
        "heads": heads,
        "first": names.index(FIRST) if FIRST in names else 0,
        "statistics": [_statistic(name, by_head[name], manifest) for name in names],
        "floor": FLOOR,
        "first_map": FIRST_MAP,
        "maps": [
            encode_map(t, place[t.layer, t.head], f"highest {find([t.statistic])[0].title}")
            for t in thumbnails
            if (t.layer, t.head) in place
        ],
        "colours": base64_of(sequential()),
        "manifest": dict(manifest),
    }


def encode_weights(weights: NDArray[np.floating]) -> NDArray[np.uint16]:
    """16-bit codes of weights in [0, 1]: 0 for 0, else 1 to 65535 evenly in the logarithm from `FLOOR` to 1."""
    w = np.asarray(weights, dtype=np.float64)
    part = 1 - np.log(np.clip(w, FLOOR, 1.0)) / np.log(FLOOR)
    return np.where(w > 0, 1 + np.round(65534 * part), 0).astype("<u2")


def _statistic(name: str, rows: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any]:
    words = _definition(name, manifest)
    means = rows["mean"].to_numpy(np.float64)
    # The range is that of the float32 numbers which the page colours.
    known = means[~np.isnan(means)].astype(np.float32).astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    if low is not None and high is not None and high - low <= ALIKE * max(abs(low), abs(high)):
        high = low
    log = words["log"] and low is not None and high is not None and low > 0 and high > WIDE * low
    return (
        words
        | {"name": name, "low": low, "high": high, "log": log}
        | {c: column(rows[c].to_numpy(np.float64)) for c in COLUMNS}
    )


def _definition(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a statistic: by the manifest where it holds the declaration, else by this version's catalogue."""
    declared = manifest.get("statistics", {}).get(name) or dataclasses.asdict(find([name])[0])
    words = {key: str(declared[key]) for key in ("title", "unit", "formula", "undefined", "cost", "citation", "merge")}
    return words | {"over": OVER[declared["axis"]], "log": declared["scale"]["kind"] == "log"}


def column(x: NDArray[np.float64]) -> float | int | str | list[float | int | None] | None:
    """One number where all are equal, else base64 of float32; whole numbers too large for float32 as a list."""
    if np.isnan(x).all():
        return None
    if (x == x[0]).all():
        return int(x[0]) if x[0] == int(x[0]) else float(x[0])
    if np.nanmax(np.abs(x)) > 2**24 and (np.nan_to_num(x) == np.floor(np.nan_to_num(x))).all():
        return [None if np.isnan(v) else int(v) for v in x]
    return base64_of(x.astype("<f4"))


def encode_map(thumbnail: Thumbnail, head_index: int, why: str) -> dict[str, Any]:
    """A picture as the page draws it.

    Args:
        thumbnail: the picture.
        head_index: place of its head among the page's heads.
        why: it is there, in words.
    """
    height, width = thumbnail.weights.shape
    return {
        "head_index": head_index,
        "statistic": thumbnail.statistic,
        "why": why,
        "rows": list(thumbnail.rows),
        "cols": list(thumbnail.cols),
        "pool": thumbnail.pool,
        "height": height,
        "width": width,
        "high": float(thumbnail.weights.max()),
        "codes": base64_of(encode_weights(thumbnail.weights)),
        "row_tokens": thumbnail.row_tokens,
        "col_tokens": thumbnail.col_tokens,
    }


def base64_of(array: NDArray[Any]) -> str:
    """The bytes of an array as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
