"""What CurvesView draws, with numbers that are known: every axis another prime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

NASTY = "<img src=x onerror=alert(1)>"
POLICIES = ("full", "window", NASTY)
BUCKETS = ("0-6", "7-13", "14-27", "28-40", "beyond")
LAYERS, HEADS = (2, 3, 5, 7, 11, 13, 17), 3
MODELS = ("toy@step1", NASTY, "toy@step8", "toy@step64", "toy@step512")


def perplexity(policy: int, bucket: int) -> float:
    """The planted perplexity: full attention gets better with position, the others are 4 and 16 times as bad from the second bucket on."""
    return 8.0 / (bucket + 1) * (4.0**policy if bucket else 1.0)


def streaming() -> Any:
    """Losses of three policies by five buckets; intervals reach from half to twice the perplexity."""
    from interp.results import Result

    rows = [
        {"layer": -1, "head": -1, "policy": name, "bucket": bucket, "score": np.log(perplexity(p, b)), "spread": 0.1}
        | {"control": np.log(perplexity(0, b)), "perplexity": perplexity(p, b)}
        | {"low": perplexity(p, b) / 2, "high": perplexity(p, b) * 2}
        | {f"ratio{end}": perplexity(p, b) / perplexity(0, b) * x for end, x in (("", 1), ("_low", 0.5), ("_high", 2))}
        for p, name in enumerate(POLICIES)
        for b, bucket in enumerate(BUCKETS)
    ]
    manifest = {"policies": POLICIES, "buckets": BUCKETS, "settings": {"size": 7, "tokens": 42, "pieces": 11}}
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    return Result(kind="sinks.streaming", table=table, manifest=manifest)


def value(layer: int, head: int, model: int) -> float:
    """Entropy of a head in a model: head h of layer number n moves by (HEADS n + h) / 100 a model, so the last head moves most."""
    return 1.0 + model * (HEADS * LAYERS.index(layer) + head) / 100


def models() -> Any:
    """Scans of five models with two statistics; the second is undefined for one head."""
    from interp.batch.result import ScanResult
    from interp.batch.series import ModelsResult

    scans = {}
    for m, name in enumerate(MODELS):
        rows = [
            {"layer": layer, "head": head, "statistic": statistic, "value": sign * value(layer, head, m)}
            for statistic, sign in (("entropy", 1.0), (NASTY, -1.0))
            for layer in LAYERS
            for head in range(HEADS)
        ]
        frame = pd.DataFrame(rows)
        frame.loc[(frame["statistic"] == NASTY) & (frame["layer"] == 17) & (frame["head"] == 2), "value"] = np.nan
        scans[name] = ScanResult(folder=Path(f"model={name}"), manifest={})
        scans[name].__dict__["frame"] = frame  # what is read from the folder when it is first asked for
    return ModelsResult(folder=Path("models"), scans=scans)


def evaluation() -> Any:
    """Five metrics, of which four are losses; densities of eleven features; two probes."""
    from interp.saes.evaluation import Evaluation

    metrics = {"ev": 0.9, "ce_clean": 2.0, "ce_sae": 2.25, "ce_mean": 3.0, "ce_zero": 3.5}
    rows = [
        {"positions": view, "metric": name, "value": x - n / 8}
        for n, view in enumerate(("all", "without first"))
        for name, x in metrics.items()
    ]
    probes = [
        {
            "task": task,
            "k": k,
            "accuracy": 0.9,
            "z_same_k": 0.75,
            "z_all": 0.95,
            "shuffled": 0.5,
            "train": 80,
            "test": 20,
        }
        for task in ("digit", NASTY)
        for k in (1, 2)
    ]
    density = torch.tensor([[0.0, *[10.0**-n for n in range(1, 6)], *[0.5] * 5], [0.25] * 11], dtype=torch.float64)
    manifest = {"layer": 7, "model": {"name": NASTY}, "rows": 1234}
    return Evaluation(table=pd.DataFrame(rows), probing=pd.DataFrame(probes), density=density, manifest=manifest)


def sae_log(folder: Path, *, steps: int = 1301, recovered: bool = True) -> Path:
    """The log of a training: loss falls as 1 / step; the cross-entropy was measured twice."""
    at = np.arange(1, steps + 1) * 20
    log = pd.DataFrame({"step": at, "rows": at * 64, "loss": 1.0 / at, "l0": 32.0, "ev": 1.0 - 1.0 / at, "dead": 0.25})
    log = log.assign(learning_rate=1e-3, speed=1e4, ce_recovered=np.nan)
    if recovered:
        log.loc[[0, steps - 1], "ce_recovered"] = [0.5, 0.75]
    folder.mkdir(parents=True, exist_ok=True)
    log.to_parquet(folder / "log.parquet", index=False)
    return folder


def sinks_log(folder: Path) -> Path:
    """Sink_1 and alpha_1 of two learning rates, two kinds of attention and two weight decays over five steps; one step of one is missing."""
    rows = [
        {"learning_rate": rate, "remedy": "none", "attention": attention, "weight_decay": decay, "seed": 0}
        | {"condition": "plain", "step": step, "alpha_1": rate * step}
        | {f"sink_1_{eps:g}": step / 100 - eps * decay for eps in (0.2, 0.3, 0.4, 0.5)}
        for rate in (0.001, 0.003)
        for attention in ("softmax", "sigmoid")
        for decay in (0.0, 0.1)
        for step in (0, 7, 21, 49, 77)
        if (rate, attention, decay, step) != (0.003, "sigmoid", 0.1, 49)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "sinks.csv", index=False)
    return folder
