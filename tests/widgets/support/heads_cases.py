"""Results of heads for the tests of views: every number planted, strings that are markup, axes of different primes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from interp.results import Result

LENGTHS = (64, 256)
DEPTHS = (0.0, 0.25, 1.0)
NEEDLES = 5
LAYERS, HEADS = 2, 7
NASTY = "<img src=x onerror=alert(1)>"


def trials() -> pd.DataFrame:
    """One row per prompt, needle by needle as the task makes them; the first cell is always right, the last always wrong."""
    draw = np.random.default_rng(0)
    rows = [
        {
            "sample": n * 6 + i * 3 + j,
            "length": length,
            "depth": depth,
            "correct": (i + j == 0) or (i + j < 3 and bool(draw.random() < 0.6)),
        }
        for n in range(NEEDLES)
        for i, length in enumerate(LENGTHS)
        for j, depth in enumerate(DEPTHS)
    ]
    return pd.DataFrame(rows)


def scores() -> tuple[np.ndarray, np.ndarray]:
    """Score and control of every accepted sample, [sample, layer, head]; head 1.3 copies everything in the first cell, head 0.0 nothing."""
    kept = trials().query("correct")
    score = np.round(np.random.default_rng(1).random((len(kept), LAYERS, HEADS)), 2) * 0.8
    score[:, 0, 0] = 0.0
    score[(kept["sample"] % 6 == 0).to_numpy(), 1, 3] = 1.0
    return score, score / 16


def retrieval(**changed: Any) -> Result:
    """A result of `interp.heads.retrieval` over those trials."""
    kept = trials().query("correct")
    score, control = scores()
    grid, counts = np.full((2, 3, LAYERS, HEADS), np.nan), np.zeros((2, 3), np.int64)
    for i, length in enumerate(LENGTHS):
        for j, depth in enumerate(DEPTHS):
            mine = ((kept["length"] == length) & (kept["depth"] == depth)).to_numpy()
            counts[i, j] = mine.sum()
            if mine.any():
                grid[i, j] = score[mine].mean(0)
    table = heads_table(score.mean(0), control=control.mean(0).ravel())
    settings = {"samples": 30, "accepted": len(kept), "lengths": list(LENGTHS), "depths": list(DEPTHS)}
    arrays = {
        "score": score,
        "control": control,
        "sample": kept["sample"].to_numpy(),
        "grid": grid,
        "grid_accepted": counts,
    }
    return Result(
        kind="heads.retrieval",
        table=table,
        manifest={"settings": settings, "model": {"name": NASTY}},
        arrays=arrays | changed,
    )


def heads_table(score: np.ndarray, **columns: Any) -> pd.DataFrame:
    """A table of heads from scores [layer, head]."""
    layers, heads = score.shape
    index = {"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)}
    return pd.DataFrame(index | {"score": score.ravel(), "spread": 0.125, "control": 0.0625} | columns)


def successor() -> Result:
    """Days scored whole (7 pairs), numbers in part (3 of 199); correct pairs planted; rows of the table in no order."""
    correct = np.random.default_rng(2).random((10, LAYERS, HEADS)) < 0.4
    correct[:, 1, 5] = True
    correct[:, 0, 2] = False
    days, numbers = correct[:7].mean(0), correct[7:].mean(0)
    table = heads_table(
        correct.mean(0),
        itself=0.0,
        tasks_above=((days > 0.5) * 1 + (numbers > 0.5)).ravel(),
        days=days.ravel(),
        numbers=numbers.ravel(),
    )
    lists = [
        {"task": "days", "case": "plain", "words": 7, "pairs": 7},
        {"task": "numbers", "case": "plain", "words": 5, "pairs": 3},
    ]
    arrays = {"correct": correct.astype(np.uint8), "pair_task": np.array([0] * 7 + [1] * 3)}
    settings = {"embedding": "embed", "norms": "none", "candidates": "words"}
    return Result(
        kind="heads.successor",
        table=table,
        manifest={"settings": settings, "lists": lists, "model": {"name": NASTY}},
        arrays=arrays,
    )


def shuffled(result: Result) -> Result:
    """The same with its table's rows in another order, and arrays that follow the table alike."""
    order = np.random.default_rng(3).permutation(len(result.table))
    arrays = dict(result.arrays)
    if "z" in arrays:
        arrays["z"] = arrays["z"][order]
    return Result(kind=result.kind, table=result.table.iloc[order], manifest=result.manifest, arrays=arrays)


def embedding() -> Result:
    """Three clusters: heads 0 and 1 near the mean, 2 to 4 high in induction, 5 and 6 low in entropy and high in the feature whose name is markup."""
    kind = np.tile([0, 0, 1, 1, 1, 2, 2], LAYERS)
    z = (
        np.array([[0.1, -0.2, 0.0], [0.0, 3.0, 0.5], [-2.0, 0.0, 2.5]])[kind]
        + 0.001 * np.arange(LAYERS * HEADS)[:, None]
    )
    table = heads_table(
        np.linspace(-0.25, 0.75, LAYERS * HEADS).reshape(LAYERS, HEADS),
        labels=np.where(kind == 1, f"induction {NASTY}", ""),
    )
    table = table.assign(
        cluster=kind,
        tsne_1=10.0 * kind + table["head"],
        tsne_2=5.0 * table["layer"],
        pca_1=1.0 * table["layer"],
        pca_2=-1.0 * table["head"],
    )
    manifest = {"settings": {"features": ["entropy", "induction", NASTY]}, "model": {"name": NASTY}}
    return Result(kind="heads.embedding", table=table, manifest=manifest, arrays={"z": z.astype(np.float32)})
