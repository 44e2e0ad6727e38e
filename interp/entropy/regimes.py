"""Entropy regimes and entropic overload (Jha & Reagen 2025, "Entropy-Guided Attention", arXiv 2501.03489).

The paper sorts heads by their mean entropy into quarters of the largest one observed, [0, max/4) ... [3 max/4, max]. Entropic overload is a
large share of heads in the top quarter, mostly of early layers; collapse is near-zero entropy, mostly of deep layers. It gives no
threshold for "large", so neither does this module: shares are reported, alarms are `interp.entropy.detector`'s.

`regimes` takes any entropy. The paper's nats with `top=None` grow with the context and depend on the most diffuse head; entropies
normalised per visible keys with `top=1.0` do neither, and compare across lengths and models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError, ShapeError

QUARTERS = ("low", "medium_low", "medium_high", "high")
UNDEFINED = -1


def regimes(entropy: NDArray[Any], *, top: float | None = None) -> NDArray[np.int64]:
    """Quarter of every head, 0 (lowest) to 3 (highest, the overloaded), in the shape of `entropy`; -1 where the entropy is NaN.

    Args:
        entropy: mean entropy of each head, at least 0.
        top: upper end of the last quarter; None takes the largest entropy there is.

    Raises:
        OptionError: `top` is not above 0, or no entropy is (then there are no quarters to sort into).
    """
    highest = float(np.nanmax(entropy, initial=0.0)) if top is None else top
    if not highest > 0:
        raise OptionError(
            f"regimes: the top of the range must be above 0, got {highest}; give top=, such as 1.0 or log n"
        )
    quarter = np.clip(np.floor(4 * np.nan_to_num(entropy) / highest), 0, 3).astype(np.int64)
    return np.where(np.isnan(entropy), UNDEFINED, quarter)


def regime_shares(entropy: NDArray[Any], *, top: float | None = None) -> pd.DataFrame:
    """Share of each layer's heads in each quarter: columns layer, low, medium_low, medium_high, high; the last is the overloaded share.

    Args:
        entropy: [layer, head].
        top: as in `regimes`.

    Raises:
        ShapeError: not [layer, head].
    """
    if entropy.ndim != 2:
        raise ShapeError(f"regime_shares: wanted entropies [layer, head], got shape {entropy.shape}")
    found = regimes(entropy, top=top)
    defined = (found != UNDEFINED).sum(1)
    shares = {name: (found == n).sum(1) / np.where(defined > 0, defined, np.nan) for n, name in enumerate(QUARTERS)}
    return pd.DataFrame({"layer": np.arange(len(entropy))} | shares)
