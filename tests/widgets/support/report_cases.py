"""Small reports whose numbers and strings are known: for the tests of the page's data and of the page in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.maps.thumbnail import Thumbnail
from interp.stats.catalogue import find

LAYERS = (2, 3, 5, 7, 11, 13, 17)
HEADS = 5
STATISTICS = ("entropy", "effective_keys", "first_token_mass", "induction_mass", "sink_rate_0.3")
ROWS = 1009
NASTY = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "'; alert(4); '",
    "<!--<script>",
    "&lt;b&gt; \\u003c",
    "\u2028\u2029\u202etxt\u0000\ud800",
    "{{DATA}} {{SCRIPT}}",
    " the",
    "\n",
)


def values(statistic: str, shape: tuple[int, int] = (len(LAYERS), HEADS)) -> np.ndarray:
    """Means [layer, head] of a statistic, no two alike, one head undefined; those of effective_keys span three decades."""
    seed = STATISTICS.index(statistic)
    part = np.random.default_rng(seed).permutation(shape[0] * shape[1]).reshape(shape) / (shape[0] * shape[1] - 1)
    means = 10 ** (3 * part) if statistic == "effective_keys" else 0.125 + 0.75 * part
    means[3, 4] = np.nan
    return means


def frame(statistics: Sequence[str] = STATISTICS) -> pd.DataFrame:
    """A table as a scan writes it (the mean is called value)."""
    parts = []
    for name in statistics:
        mean = values(name).reshape(-1)
        columns = {
            "value": mean,
            "std": mean / 4,
            "count": np.where(np.isnan(mean), 0, ROWS),
            "min": mean / 8,
            "max": mean * 2,
        }
        quantiles = {"q05": mean / 4, "q25": mean / 2, "q50": mean * 0.9, "q75": mean * 1.2, "q95": mean * 1.5}
        index = {"layer": np.repeat(LAYERS, HEADS), "head": np.tile(np.arange(HEADS), len(LAYERS)), "statistic": name}
        parts.append(pd.DataFrame(index | columns | quantiles))
    return pd.concat(parts, ignore_index=True)


def manifest(model: str = "planted", **changed: Any) -> dict[str, Any]:
    """A manifest with what the page reads from it."""
    declared = {
        s.name: {
            "title": s.title,
            "formula": s.formula,
            "axis": s.axis,
            "unit": s.unit,
            "scale": {"low": s.scale.low, "high": s.scale.high, "kind": s.scale.kind},
            "undefined": s.undefined,
            "merge": s.merge,
            "cost": s.cost,
            "citation": s.citation,
        }
        for s in find(STATISTICS)
    }
    return {
        "kind": "scan",
        "plan": {"text": {"kind": "corpus", "name": "topics"}, "context": 512, "max_tokens": None},
        "model": {
            "name": model,
            "kind": "wrapped",
            "revision": None,
            "sha256": "ab" * 32,
            "layers": 19,
            "heads": HEADS,
        },
        "statistics": declared,
        "tokens": {"contexts": 3, "tokens": 1234, "distinct_tokens": 321, "dropped": {"tokens": 0, "shorter_than": 16}},
        "backends": ["cpu"],
        "dtype": "float32",
        "versions": {"interp": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "finished": "2026-01-02T03:04:05Z",
        **changed,
    }


def thumbnails(tokens: Sequence[str] = (" the", " cat", "\n", "sat", " on", " the", " mat")) -> list[Thumbnail]:
    """A whole map pooled by mean and by max, and an exact crop with tokens, of the head of layer 5, head 1."""
    n = len(tokens)
    chosen = {"layer": 5, "head": 1, "statistic": "induction_mass"}
    crop = np.tril(np.full((n, n), 0.01, dtype=np.float32))
    crop[n - 1, 1] = 0.64
    whole = np.tril(np.linspace(0.001, 0.25, 23 * 23, dtype=np.float32).reshape(23, 23))
    pooled = {"rows": (0, 101), "cols": (0, 101), "weights": whole, "row_tokens": [], "col_tokens": []}
    exact = {"rows": (40, 40 + n), "cols": (30, 30 + n), "weights": crop}
    return [
        Thumbnail(**chosen, **pooled, pool="mean"),
        Thumbnail(**chosen, **pooled, pool="max"),
        Thumbnail(**chosen, **exact, pool="exact", row_tokens=list(tokens), col_tokens=list(tokens)),
    ]
