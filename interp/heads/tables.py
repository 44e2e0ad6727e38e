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
    """One row per head: score (mean over samples, NaN left out), spread (standard deviation, n - 1), control, and more columns.

    Args:
        samples: scores [sample, layer, head].
        control: [layer, head].
        extra: further columns by name, [layer, head].
    """
    _, layers, heads = samples.shape
    columns = {
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        "score": np.nanmean(samples, axis=0).reshape(-1),
        "spread": np.nanstd(samples, axis=0, ddof=1).reshape(-1),
        "control": np.asarray(control).reshape(-1),
    }
    return pd.DataFrame(columns | {name: np.asarray(x).reshape(-1) for name, x in (extra or {}).items()})


def named(what: str, given: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        OptionError: with the known ones listed.
    """
    if given not in known:
        raise OptionError(f"{what} must be one of {', '.join(known)}; got {given!r}")
