"""A small report of heads whose numbers are known and whose strings are markup, with ablations and an embedding."""

from __future__ import annotations

import numpy as np
import pandas as pd

from interp.heads.labels import LABELS
from interp.results import Result

LAYERS, HEADS = 3, 5
NASTY = "<img src=x onerror=alert(1)></script>"


def wide() -> Result:
    """Induction 0.05 (5 layer + head), two heads labelled, retrieval without a control; rows in no order."""
    layer, head = np.repeat(np.arange(LAYERS), HEADS), np.tile(np.arange(HEADS), LAYERS)
    score = 0.05 * (HEADS * layer + head)
    labels = np.where(score >= 0.65, "induction", "")
    table = pd.DataFrame(
        {"layer": layer, "head": head, "score": 0.0, "spread": np.nan, "control": 0.0, "labels": labels}
    )
    table = table.assign(
        induction=score, induction_spread=score / 7, induction_control=score / 3, retrieval=score[::-1] / 2
    )
    table = table.assign(retrieval_spread=np.nan, retrieval_control=np.nan, pattern=NASTY, unknown=1.0)
    counts = dict.fromkeys(LABELS, 0)
    manifest = {
        "model": {"name": NASTY},
        "dtype": "float32",
        "versions": {"interp": "0", "torch": "0"},
        "seed": 0,
        "settings": {"tokens": 128, "threshold": float("nan")},
        "parts": {
            "random tokens": {"outcome": "measured", "seconds": 1.5, "results": ["induction"]},
            "retrieval": {"outcome": "not measured", "seconds": 0.1, "results": [], "reason": NASTY},
        },
        "labels": counts | {"induction": 2},
        "labels_by_controls": counts | {"induction": 1},
    }
    return Result(kind="heads.report", table=table.sample(frac=1, random_state=1), manifest=manifest)


def confirmed() -> Result:
    """One row."""
    row = {
        "layer": -1, "head": -1, "score": 2.5, "spread": 0.1, "control": 0.2, "label": "induction", "heads": "2.4 2.3", "kind": "zero",
        "task": "repeated", "metric": NASTY, "better": "lower", "base": 1.0, "ablated": 3.5, "control_mean": 1.2, "control_std": 0.1, "draws": 2,
    }  # fmt: skip
    return Result(kind="heads.confirm", table=pd.DataFrame([row]), manifest={})


def placed() -> Result:
    """Every head at its own place, two clusters."""
    table = wide().table[["layer", "head", "labels"]].assign(score=0.5, spread=np.nan, control=0.1)
    table = table.assign(
        tsne_1=table["layer"] * 10.0, tsne_2=table["head"] * 1.0, pca_1=table["head"] * 2.0, pca_2=table["layer"] * 1.0
    )
    table = table.assign(cluster=(table["labels"] != "").astype(int))
    return Result(kind="heads.embedding", table=table, manifest={"settings": {"features": ["induction", NASTY]}})
