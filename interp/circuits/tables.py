"""The table of cells that every circuit tool returns, from effects by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.circuits.cells import Cell
from interp.models.hooked import HookedModel
from interp.results import Result

Samples = NDArray[np.float64]


def cell_table(cells: Sequence[Cell], samples: Samples, control: Samples | None = None) -> pd.DataFrame:
    """One row per cell: site, position, layer, head, score (mean over prompts), spread (their standard deviation), control.

    Args:
        cells: of the rows.
        samples: effects [prompt, cell].
        control: the same of the control; NaN is left out of its mean.
    """
    known = np.ones_like(samples) if control is None else ~np.isnan(control)
    with np.errstate(invalid="ignore"):
        beside = np.full(len(cells), np.nan) if control is None else np.where(known, control, 0).sum(0) / known.sum(0)
    return pd.DataFrame(
        {
            "layer": [cell.layer for cell in cells],
            "head": [cell.head for cell in cells],
            "score": samples.mean(0),
            "spread": samples.std(0, ddof=1) if len(samples) > 1 else np.full(len(cells), np.nan),
            "control": beside,
            "site": [cell.kind for cell in cells],
            "position": [cell.label for cell in cells],
        }
    )


def circuit_result(
    kind: str,
    model: HookedModel,
    table: pd.DataFrame,
    arrays: Mapping[str, NDArray[Any]],
    *,
    source: str,
    settings: Mapping[str, Any],
    seed: int | None = None,
) -> Result:
    """The result of one tool, with its manifest."""
    manifest = {**model.manifest(), "method": kind, "source": source, "settings": dict(settings), "seed": seed}
    return Result(kind=f"circuits.{kind}", table=table, manifest=manifest, arrays=arrays)
