"""How much two tasks share their circuits: the overlap of their k most important heads (circuit component reuse, Merullo et al. 2024).

    overlap = |A and B| / k,  A and B the heads with the largest |score| of two results        (arXiv 2310.08744, "in-circuit overlap")

Important heads sit in the same few layers whatever the task, so chance is judged twice: against random heads (k / heads on average), and, as
`control`, against random sets with as many heads in each layer as A and B have there. The interval resamples the prompts of both results,
so it says how far the two top-k sets themselves are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.results import Result

SOURCE = "circuit component reuse; Merullo et al. 2024 (arXiv 2310.08744)"
KS = (5, 10, 20)


def overlap(
    a: Result, b: Result, k: Sequence[int] = KS, *, draws: int = 1000, seed: int = 0, position: str | None = None
) -> Result:
    """Overlap of the top k heads of two tasks, one row per k.

    Args:
        a, b: results of the same tool (`activation_patching`, `attribution_patching`, `path_patching`, `direct_logit_attribution`) on the
            same model and two tasks; their rows of site "z" are taken.
        k: sizes of the circuits.
        draws: random sets, and resamples of the prompts.
        seed: of both.
        position: of the rows, where a result has several.

    Returns:
        Result "circuits.overlap", one row per k, layer and head -1: score, the overlap; low and high, its 95 % interval over prompts (NaN
        with a single prompt); control and spread, mean and standard deviation of random sets of the same layers; chance, k / heads; p, the share of
        such sets that overlap at least as much (one added to both counts); shared, the heads in both.

    Raises:
        OptionError: results of two tools, models or sets of heads; k out of range; several positions and none named.
    """
    if a.kind != b.kind or a.manifest.get("model") != b.manifest.get("model"):
        raise OptionError(f"overlap compares one tool on one model: got {a.kind} and {b.kind}, or two models")
    (heads, first), (others, second) = (_samples(x, position) for x in (a, b))
    if heads != others:
        raise OptionError(f"the results hold other heads ({len(heads)} and {len(others)}); measure the same ones")
    if not k or not all(1 <= size <= len(heads) for size in k) or draws < 2:
        raise OptionError(f"wanted 1 <= k <= {len(heads)} and draws >= 2; got {list(k)} and {draws}")
    layers = np.array([layer for layer, _ in heads])
    rows = []
    for size in k:
        random = np.random.default_rng([seed, size])
        one, two = _top(first.mean(0), size), _top(second.mean(0), size)
        shared = sorted(set(one) & set(two))
        chance = [len(set(_like(one, layers, random)) & set(_like(two, layers, random))) / size for _ in range(draws)]
        score = len(shared) / size
        low, high = _interval(first, second, size, draws, random)
        rows.append(
            {
                "layer": -1,
                "head": -1,
                "score": score,
                "spread": float(np.std(chance, ddof=1)),
                "control": float(np.mean(chance)),
                "k": size,
                "low": low,
                "high": high,
                "chance": size / len(heads),
                "p": (1 + sum(x >= score for x in chance)) / (1 + draws),
                "shared": " ".join(f"{heads[n][0]}.{heads[n][1]}" for n in shared),
            }
        )
    manifest = {
        "model": a.manifest.get("model"),
        "method": "overlap",
        "source": SOURCE,
        "of": a.kind,
        "settings": {"k": list(k), "draws": draws, "position": position},
        "tasks": [dict(x.manifest.get("settings", {})) for x in (a, b)],
        "seed": seed,
    }
    return Result(kind="circuits.overlap", table=pd.DataFrame(rows), manifest=manifest)


def _samples(result: Result, position: str | None) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """The heads of a result and their effects [prompt, head]."""
    table = result.table
    if "samples" not in result.arrays or "site" not in table.columns:
        raise OptionError(f"a {result.kind} result has no effects of heads by prompt; give results of a patching tool")
    mine = table["site"] == "z"
    if position is not None:
        mine &= table["position"] == position
    if table.loc[mine, "position"].nunique() != 1:
        known = ", ".join(table.loc[table["site"] == "z", "position"].unique())
        raise OptionError(f"position: name the one to compare; there are: {known or 'none, without site z'}")
    heads = [(int(x), int(y)) for x, y in zip(table.loc[mine, "layer"], table.loc[mine, "head"], strict=True)]
    return heads, np.asarray(result.arrays["samples"], dtype=np.float64)[:, mine.to_numpy()]


def _top(score: NDArray[np.float64], k: int) -> list[int]:
    """Numbers of the k largest by size, ties to the lowest."""
    return np.argsort(-np.abs(score), kind="stable")[:k].tolist()


def _like(chosen: Sequence[int], layers: NDArray[np.integer], random: np.random.Generator) -> list[int]:
    """A random set with as many heads in each layer."""
    found: list[int] = []
    for layer, count in zip(*np.unique(layers[list(chosen)], return_counts=True), strict=True):
        found += random.choice(np.flatnonzero(layers == layer), size=int(count), replace=False).tolist()
    return found


def _interval(
    first: NDArray[np.float64], second: NDArray[np.float64], k: int, draws: int, random: np.random.Generator
) -> tuple[float, float]:
    if len(first) < 2 or len(second) < 2:
        return np.nan, np.nan
    found = []
    for _ in range(draws):
        one, two = (x[random.integers(len(x), size=len(x))].mean(0) for x in (first, second))
        found.append(len(set(_top(one, k)) & set(_top(two, k))) / k)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
