"""A sink report and an entropy report of known numbers: every axis another prime, no two numbers of an array alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

SEQUENCES, LAYERS, HEADS, KEYS = 7, 3, 5, 11
LENGTHS = (8, 13)
EDGES = (0, 1, 2, 4, 8, 13)


def spread_out(seed: int, *shape: int) -> np.ndarray:
    """Numbers from 0 to 1, all different, in any order, float32."""
    n = int(np.prod(shape))
    return ((np.random.default_rng(seed).permutation(n) + 0.5) / n).reshape(shape).astype(np.float32)


def alphas() -> dict[str, np.ndarray]:
    """Alpha [sequence, layer, head, key] by kind of text; the last two keys are undefined."""
    found = {
        name: spread_out(seed, SEQUENCES, LAYERS, HEADS, KEYS)
        for seed, name in enumerate(("natural", "random", "repeated"))
    }
    for x in found.values():
        x[..., -2:] = np.nan
    return found


def table_of_heads(**columns: np.ndarray) -> pd.DataFrame:
    index = {"layer": np.repeat(np.arange(LAYERS), HEADS), "head": np.tile(np.arange(HEADS), LAYERS)}
    blank = dict.fromkeys(("score", "spread", "control"), 0.0)
    return pd.DataFrame(index | blank | {name: x.ravel() for name, x in columns.items()})


def sink_report() -> Any:
    from interp.results import Result

    ratios = {
        f"{name}_ratio": np.array([1.5, 30.0, 0.25]) * n for n, name in enumerate(("residual", "key", "value"), 1)
    }
    hidden = [{"layer": 1, "head": 4, "key": 9, "token": "<img src=x onerror=alert(1)>", "alpha": 0.43}]
    return Result(
        kind="sinks",
        table=table_of_heads(),
        manifest={"model": {"name": "planted"}, "strongest_hidden_sinks": hidden},
        arrays={f"alpha_{name}": x for name, x in alphas().items()} | ratios,
    )


def entropy_arrays() -> dict[str, np.ndarray]:
    return {
        "score": spread_out(11, LAYERS, HEADS),
        "control": spread_out(12, LAYERS, HEADS),
        "effective_keys": 10 ** (3 * spread_out(13, LAYERS, HEADS)),
        "by_position": spread_out(14, LAYERS, HEADS, len(EDGES) - 1),
        "rest_by_position": spread_out(15, LAYERS, HEADS, len(EDGES) - 1),
        "by_length": spread_out(16, LAYERS, HEADS, len(LENGTHS)),
    }


def entropy_report() -> Any:
    from interp.results import Result

    a = entropy_arrays()
    arrays = {name: a[name] for name in ("by_position", "rest_by_position", "by_length")}
    arrays |= {"position_edges": np.array(EDGES), "lengths": np.array(LENGTHS)}
    table = table_of_heads(score=a["score"], control=a["control"], effective_keys=a["effective_keys"])
    return Result(kind="entropy", table=table, manifest={"model": {"name": "planted"}}, arrays=arrays)
