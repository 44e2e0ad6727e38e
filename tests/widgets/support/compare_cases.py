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
