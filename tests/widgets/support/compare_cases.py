"""Results whose changes are worked out by hand, and tables of heads whose difference is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from interp.results import Result

LAYERS, HEADS = (2, 3, 5), 7
NASTY = "<img src=x onerror=alert(1)>"
LONE = "\ud800"  # no character: kills a message that carries it


def before() -> np.ndarray:
    """[layer, head], no two alike."""
    return np.arange(21, dtype=np.float64).reshape(3, 7) / 64


def change() -> np.ndarray:
    """[layer, head]: -8/32 to 12/32, one head undefined, head (3, 1) unchanged."""
    x = (np.arange(21, dtype=np.float64).reshape(3, 7) - 8) / 32
    x[2, 6] = np.nan
    return x


def heads(values: np.ndarray, name: str = "entropy") -> pd.DataFrame:
    """A tidy table of one statistic."""
    index = {"layer": np.repeat(LAYERS, HEADS), "head": np.tile(np.arange(HEADS), len(LAYERS))}
    return pd.DataFrame(index | {"statistic": name, "value": values.ravel()})


def effects() -> Result:
    """Two metrics of an edit: 2.0 to 2.5 with an interval and a control, and one that was lost, without either."""
    rows = [
        {
            "layer": -1,
            "head": -1,
            "score": 0.5,
            "spread": 0.0625,
            "control": 0.125,
            "metric": "cross-entropy",
            "base": 2.0,
            "edited": 2.5,
        }
        | {"low": 0.25, "high": 0.75, "units": 11, "draws": 3},
        {
            "layer": -1,
            "head": -1,
            "score": -0.25,
            "spread": np.nan,
            "control": np.nan,
            "metric": NASTY,
            "base": 1.0,
            "edited": 0.75,
        }
        | {"low": np.nan, "high": np.nan, "units": 11, "draws": 0},
    ]
    settings = {"x": float("nan")}
    manifest = {
        "model": {"name": NASTY + LONE},
        "edits": ["AblateHeads(zero: 1.2)"],
        "controls": "random heads",
        "settings": settings,
        "seed": 5,
    }
    return Result(kind="interventions.text_effects", table=pd.DataFrame(rows), manifest=manifest)


def patching() -> Result:
    """Effects of heads at one site and place, with a control of half the size."""
    x = change().ravel()
    table = pd.DataFrame(
        {"layer": np.repeat(LAYERS, HEADS), "head": np.tile(np.arange(HEADS), len(LAYERS)), "score": x, "spread": 0.5}
    )
    table = table.assign(control=x / 2, site="z", position="last")
    return Result(kind="circuits.activation_patching", table=table, manifest={"method": "activation_patching"})


def scans(names: tuple[str, str] = ("small", "large")) -> Result:
    """What `interp.batch.compare.compare` says of two scans that differ by `change`, in mixed order; its second statistic is the first one's half."""
    layer, head = np.repeat(LAYERS, HEADS), np.tile(np.arange(HEADS), len(LAYERS))
    a, shift = before().ravel(), change().ravel()
    rows = pd.DataFrame(
        {"layer": layer, "head": head, "a": a, "b": a + shift, "score": shift, "spread": 1 / 128, "control": np.nan}
    )
    rows = rows.assign(
        low=shift - 1 / 64, high=shift + 1 / 32, rank_a=1.0, rank_b=2.0, rank_change=1.0, rank_low=0.0, rank_high=2.0
    )
    half = rows.assign(statistic=NASTY, a=rows["a"] / 2, b=rows["b"] / 2, score=shift / 2)
    manifest = {
        "compared": [{"folder": n, "model": {"name": n}, "key": "k"} for n in names],
        "settings": {"method": "paired bootstrap over shards", "confidence": 0.9},
        "differences": {"model": list(names)},
        "seed": 0,
    }
    table = pd.concat([rows.assign(statistic="entropy"), half]).sample(frac=1, random_state=0)
    return Result(kind="batch.compare", table=table, manifest=manifest)
