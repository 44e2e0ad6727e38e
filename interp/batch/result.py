"""`ScanResult`: a finished scan's folder, opened; needs no model and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from interp.batch.files import read_json
from interp.display import view as open_view
from interp.errors import CorruptFileError, OptionError, OutputError

MANIFEST = "manifest.json"
STATS_FILE = "stats.parquet"
REPORT = "report.html"
PARTS = "parts"
PLAN = "plan.json"
MODELS_FILE = "models.json"
"""In a folder of several models' scans."""


def steps_folder(folder: Path, key: str) -> Path:
    """Where a part of a job that keeps its own finished steps (evaluations, a checkpoint) keeps them: one folder for each plan."""
    return folder / PARTS / f"steps-{key[:16]}"


class HeadValue(NamedTuple):
    """One head and its mean of a statistic."""

    layer: int
    head: int
    value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanResult:
    """A finished scan.

    Attributes:
        folder: where it lies.
        manifest: what was measured, on what, with what.
    """

    folder: Path
    manifest: dict[str, Any]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per (layer, head, statistic): value (the mean), std, count, min, max and the quantiles q05 to q95."""
        return read_table(self.folder).rename(columns={"mean": "value"})

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return tuple(self.frame["statistic"].unique())

    @property
    def report(self) -> Path:
        """The self-contained page about this scan."""
        return self.folder / REPORT

    def view(self, **options: object) -> Any:
        """A grid of all heads to explore in a notebook: every statistic of this scan."""
        return open_view("scan", self, **options)

    def top(self, statistic: str, k: int = 10) -> list[HeadValue]:
        """The k heads with the largest mean of a statistic, largest first, ties to the lower layer and head.

        Raises:
            OptionError: the scan did not measure it.
        """
        if statistic not in self.statistics:
            raise OptionError(f"this scan has no statistic {statistic!r}; it has: {', '.join(self.statistics)}")
        chosen = (self.frame["statistic"] == statistic) & self.frame["value"].notna()
        layers, heads, values = (self.frame.loc[chosen, name].to_numpy() for name in ("layer", "head", "value"))
        order = np.lexsort((heads, layers, -values))[:k]
        return [HeadValue(int(layers[i]), int(heads[i]), float(values[i])) for i in order]


def open_scan(folder: str | Path) -> ScanResult:
    """Open the folder of a finished scan.

    Raises:
        OutputError: there is none.
        CorruptFileError: its manifest is damaged.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.exists():
        begun = (folder / PARTS).is_dir()
        hint = (
            "the scan in it is not finished: run the same `interp scan` again"
            if begun
            else "scan into it first: `interp scan ... --out`"
        )
        raise OutputError(f"{folder} holds no finished scan ({MANIFEST} is missing); {hint}")
    return ScanResult(folder=folder, manifest=read_json(path))


def model_labels(folder: Path) -> list[str]:
    """The labels of the models in a folder of several models' scans, in their order.

    Raises:
        CorruptFileError: the list of them is damaged.
    """
    try:
        return [str(model["label"]) for model in read_json(folder / MODELS_FILE)["models"]]
    except (KeyError, TypeError) as error:
        raise CorruptFileError(f"{MODELS_FILE} cannot be read ({error}); run the same command again") from error


def model_folder(folder: Path, label: str) -> Path:
    """Where the scan of one of several models lies."""
    return folder / f"model={label}"


def read_table(folder: Path) -> pd.DataFrame:
    """Read the table of a folder: columns layer, head, statistic, mean, std, count, min, max, q05 to q95.

    Raises:
        OutputError: there is none.
        CorruptFileError: it is damaged.
    """
    path = folder / STATS_FILE
    if not path.exists():
        raise OutputError(
            f"{folder} holds no {STATS_FILE}; it is not the folder of a finished scan (run `interp scan` with it as --out)"
        )
    try:
        return pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise CorruptFileError(
            f"{path} is damaged ({error}); delete it and run the scan again: it is made from the shards"
        ) from error
