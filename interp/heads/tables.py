"""The table of heads that every analysis returns, from scores by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError


def head_table(
    samples: NDArray[np.floating],
    *,
    control: NDArray[np.floating],
    extra: Mapping[str, NDArray[np.generic]] | None = None,
) -> pd.DataFrame:
    """One row per head: score (mean over samples, NaN left out), spread (their standard deviation, n - 1), control, and more columns.

    A spread of fewer than two samples, and a score of none, are NaN.

    Args:
        samples: scores [sample, layer, head].
        control: [layer, head].
        extra: further columns by name, [layer, head].
    """
    _, layers, heads = samples.shape
    mean = mean_of(samples)
    defined = ~np.isnan(samples)
    count = defined.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.square(np.where(defined, samples - mean, 0.0)).sum(0) / (count - 1))
    columns = {
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        "score": mean.reshape(-1),
        "spread": np.where(count > 1, spread, np.nan).reshape(-1),
        "control": np.asarray(control).reshape(-1),
    }
    return pd.DataFrame(columns | {name: np.asarray(x).reshape(-1) for name, x in (extra or {}).items()})


def mean_of(samples: Sequence[NDArray[np.floating]] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean over the first axis with NaN left out, NaN where nothing is."""
    values = np.asarray(samples, dtype=np.float64)
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(0) / defined.sum(0)


def named(what: str, given: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        OptionError: with the known ones listed.
    """
    if given not in known:
        raise OptionError(f"{what} must be one of {', '.join(known)}; got {given!r}")
