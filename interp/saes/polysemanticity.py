"""How many things a head does: the spread of what its top features write, per head, with intervals.

Kissane et al. 2024 read the 10 features with the largest weight share of every head of GPT-2 small and found more than 90 % of the heads
polysemantic. Read by a rule instead: with c_ij the cosine of two features' decoder slices of the head, over the k features with the largest share,

    m = mean of c_ij^2 over pairs of different features          directions = k / (1 + (k - 1) m)

which is the participation ratio of k unit vectors: 1 when all write the same direction (a head that does one thing), k when all are at right
angles; no more than d_head. Ten features are a thin sample, so the interval resamples the features (pairs of a feature with itself left out), and
larger k is an option. control: k features at random, of the same head's slices. A small number is a candidate for reading, no verdict; where
families are known, so is their mixture: the share of pairs of different family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.results import Result
from interp.saes.attribution import top_features, weight_share
from interp.saes.core import SAE, SMALLEST_NORM

KIND = "saes.polysemanticity"
TOP, DRAWS = 10, 500
LEVEL = (2.5, 97.5)
"""Percentiles of the interval."""


def polysemanticity(
    sae: SAE,
    heads: int,
    layer: int,
    *,
    k: int = TOP,
    alive: NDArray[np.bool_] | None = None,
    families: Mapping[int, str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Result:
    """Effective number of directions among the top features of every head.

    Args:
        sae: of z of one layer.
        heads: its query heads.
        layer: its number, for the table.
        k: features per head.
        alive: features that count, bool [d_sae]; None: all. Dead ones keep the directions that they began with.
        families: feature -> its family (`interp.saes.families`), for those that have one.
        draws: resamples, and draws of the control.
        seed: of both.

    Returns:
        Result "saes.polysemanticity", one row per head: score (directions, 1 to k), spread (standard deviation over resamples), control (mean
        over random features), low, high (95 % interval), control_low (2.5 % of the control), share (mean weight share of the k features), mixed
        (share of pairs of different family, NaN without), features (their numbers, most shared first, as text).

    Raises:
        OptionError: k below 3 or above the number of features that count; fewer than 2 draws.
    """
    there = np.ones(sae.config.d_sae, dtype=bool) if alive is None else np.asarray(alive, dtype=bool)
    counted = np.flatnonzero(there)
    if not 3 <= k <= len(counted) or draws < 2 or len(there) != sae.config.d_sae:
        raise OptionError(f"wanted 3 <= k <= {len(counted)} features that count and draws >= 2; got {k} and {draws}")
    share = weight_share(sae, heads).masked_fill(~torch.from_numpy(there)[:, None], torch.nan)
    rows: list[dict[str, Any]] = []
    for head in range(heads):
        random = np.random.default_rng([seed, head])
        best = top_features(share, head, k)
        chosen = np.array([i for i, _ in best])
        slices = sae.W_dec.detach().double().unflatten(-1, (heads, -1))[:, head]
        units = (slices / slices.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)).numpy()
        square = np.square(units[chosen] @ units[chosen].T)
        resampled = [_directions(square, random.integers(k, size=k), k) for _ in range(draws)]
        others = [random.choice(counted, k, replace=False) for _ in range(draws)]
        control = [_directions(np.square(units[x] @ units[x].T), np.arange(k), k) for x in others]
        low, high = np.percentile(resampled, LEVEL)
        rows.append(
            {
                "layer": layer,
                "head": head,
                "score": _directions(square, np.arange(k), k),
                "spread": float(np.std(resampled, ddof=1)),
                "control": float(np.mean(control)),
                "low": float(low),
                "high": float(high),
                "control_low": float(np.percentile(control, LEVEL[0])),
                "share": float(np.mean([s for _, s in best])),
                "mixed": _mixed([(families or {}).get(i) for i in chosen.tolist()]),
                "features": " ".join(map(str, chosen.tolist())),
            }
        )
    manifest = {
        "method": "polysemanticity",
        "source": "top features of every head; Kissane et al. 2024 (arXiv 2406.17759); participation ratio, this project's rule",
        "model": {"name": str(sae.config.metadata.get("model_name", "a model without a name"))},
        "settings": {"k": k, "heads": heads, "features": len(counted), "draws": draws},
        "seed": seed,
    }
    return Result(kind=KIND, table=pd.DataFrame(rows), manifest=manifest)


def _directions(square: NDArray[np.float64], at: NDArray[np.int64], k: int) -> float:
    """Participation ratio of k unit vectors with these squared cosines, over pairs of different vectors; k where all drawn are one."""
    different = at[:, None] != at[None]
    pairs = square[np.ix_(at, at)][different]
    return float(k / (1 + (k - 1) * pairs.mean())) if len(pairs) else float(k)


def _mixed(families: list[str | None]) -> float:
    """Share of pairs whose families differ, among the features that have one."""
    known = [f for f in families if f is not None]
    pairs = [(a, b) for n, a in enumerate(known) for b in known[:n]]
    return float(np.mean([a != b for a, b in pairs])) if pairs else float("nan")
