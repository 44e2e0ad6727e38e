"""Curves from what was measured: the log and the evaluation of an autoencoder, streaming losses, sinks over a training, heads over models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.batch.series import ModelsResult
from interp.entropy.experiments.sinks import EPSILONS, TOKENS
from interp.errors import OptionError
from interp.results import Result
from interp.saes.evaluation import Evaluation
from interp.saes.log import read_log
from interp.saes.metrics import VIEWS, density_histogram
from interp.widgets.plots_batch import HEADS
from interp.widgets.plots_saes import CURVES, LOSSES, WORDS
from interp.widgets.views.curves_source import Chart, Curves, Line
from interp.widgets.views.head_words import words_of

RECOVERED: Final = ("ce_recovered", "share of cross-entropy recovered")


def of_sae_training(folder: str | Path) -> Curves:
    """The log of an autoencoder's training: loss, L0, explained variance, dead features by step; where it was measured, the cross-entropy.

    Raises:
        CorruptFileError: the folder holds no log.
    """
    log: Any = read_log(folder)
    charts = []
    for column, title in (*CURVES, RECOVERED):
        rows = log[log[column].notna()]
        if len(rows):
            line = Line(name=title, values=rows[column].to_numpy(float))
            # Few measurements of the cross-entropy: points, so that one alone is seen.
            joined = column != RECOVERED[0]
            charts.append(_over_steps(title, rows["step"], (line,), joined=joined))
    exact = "Every point is one report of the training, measured on its last batch; the cross-entropy is measured on held-out text."
    return Curves(panels={"training": tuple(charts)}, exact=exact)


def of_sinks_training(folder: str | Path) -> Curves:
    """Sink_1 and the first key's mean share over the steps of every training of an experiment: a panel for each eps, charts by weight decay.

    Raises:
        OptionError: the folder holds no sinks over training.
    """
    path = Path(folder) / "sinks.csv"
    if not path.exists():
        raise OptionError(f"{path.parent.name} holds no sinks over training; its experiment needs sinks_every above 0")
    table: Any = pd.read_csv(path)
    uniform = sum(1 / n for n in range(1, TOKENS + 1)) / TOKENS
    shares = [(d, rows, "alpha_1", "mean α₁", (uniform, "spread evenly")) for d, rows in table.groupby("weight_decay")]
    panels = {}
    for eps in EPSILONS:
        rates = [
            (d, rows, f"sink_1_{eps:g}", f"Sink_1, ε = {eps:g}", None) for d, rows in table.groupby("weight_decay")
        ]
        panels[f"ε = {eps:g}"] = tuple(
            _over_steps(
                f"{y_title}{f', weight decay {decay:g}' if len(rates) > 1 else ''}",
                rows["step"],
                _trainings(rows, column),
                y_title=y_title,
                limit=limit,
            )
            for decay, rows, column, y_title, limit in (*rates, *shares)
        )
    exact = f"Exact shares of the first key on held-out texts of {TOKENS} tokens; of attention that is not normalised, shares of a row's weights."
    return Curves(panels=panels, word="threshold", exact=exact)


def of_streaming(result: Result) -> Curves:
    """Perplexity of every policy by position, and over that of full attention, with their 95 % intervals over pieces of text."""
    table: Any = result.table
    policies, buckets = list(result.manifest["policies"]), tuple(result.manifest["buckets"])
    styles = _policies(policies)

    def lines(names: list[str], value: str, low: str, high: str) -> tuple[Line, ...]:
        found = []
        for policy in names:
            rows = table[table["policy"] == policy].set_index("bucket").reindex(list(buckets))
            sides = {
                side: rows[column].to_numpy(float) for side, column in (("values", value), ("low", low), ("high", high))
            }
            shade, dash = styles[policy]
            found.append(Line(name=policy, shade=shade, dash=dash, **sides))
        return tuple(found)

    shared = {
        "x_title": "rows",
        "x": np.arange(len(buckets), dtype=float),
        "labels": buckets,
        "log": True,
        "joined": False,
    }
    others = [p for p in policies if p != policies[0]]
    charts = [
        Chart(title="perplexity", y_title="perplexity", lines=lines(policies, "perplexity", "low", "high"), **shared)
    ]
    if others:
        ratio = lines(others, "ratio", "ratio_low", "ratio_high")
        charts.append(
            Chart(
                title=f"times that of {policies[0]}",
                y_title="ratio of perplexities",
                lines=ratio,
                limit=(1.0, policies[0]),
                **shared,
            )
        )
    settings = result.manifest["settings"]
    exact = (
        f"Means over the rows of a bucket, 95 % intervals by bootstrap over {settings['pieces']} pieces; "
        f"{settings['size']:,} keys kept of {settings['tokens']:,}. The bucket beyond joins all rows from {settings['size']:,} on."
    )
    return Curves(panels={"streaming": tuple(charts)}, exact=exact)


def of_models(result: ModelsResult) -> Curves:
    """A panel for each statistic: the mean of all heads over the models, and the heads that move most; any other head on request."""
    frame: Any = result.frame
    models = list(result.scans)
    layers = tuple(sorted(int(x) for x in frame["layer"].unique()))
    heads = int(frame["head"].max()) + 1
    index = pd.MultiIndex.from_product([layers, range(heads)], names=["layer", "head"])
    panels = {}
    for name in dict.fromkeys(frame["statistic"]):
        rows = frame[frame["statistic"] == name]
        grid = rows.pivot(index=["layer", "head"], columns="model", values="value").reindex(index=index, columns=models)
        moved = (grid.max(axis=1) - grid.min(axis=1)).dropna().sort_values(ascending=False, kind="stable").index[:HEADS]
        shades = _shades(len(moved))
        chosen = [
            Line(
                name=f"{layer}.{head}", values=grid.loc[(layer, head)].to_numpy(float), shade=shade, place=(layer, head)
            )
            for (layer, head), shade in zip(moved, shades, strict=True)
        ]
        title, unit, _ = words_of(name)
        chart = Chart(
            title=title,
            x_title="model",
            y_title=unit or title,
            x=np.arange(len(models), dtype=float),
            labels=tuple(models),
            lines=(Line(name="mean of all heads", values=grid.mean().to_numpy(float)), *chosen),
            heads=grid.to_numpy(np.float32).reshape(len(layers), heads, len(models)),
        )
        panels[name] = (chart,)
    exact = f"Exact means over the texts of each scan. Named are the {HEADS} heads that move most; a head that is chosen elsewhere is drawn, too."
    return Curves(panels=panels, word="statistic", layers=layers, exact=exact)


def of_evaluation(evaluation: Evaluation) -> Curves:
    """How often features fire, what the prediction costs with z replaced, the probes, and every metric, with and without position 0."""
    wide: Any = evaluation.frame
    views = {VIEWS[0]: {"shade": None}, VIEWS[1]: {"shade": 0.5}}
    edges = density_histogram(evaluation.density[0])[0].numpy()
    counts = [density_histogram(density)[1].double().numpy() for density in evaluation.density]
    charts = [
        Chart(
            title="density of features",
            x_title="log10 of the share of tokens",
            y_title="features",
            x=(edges[:-1] + edges[1:]) / 2,
            lines=tuple(Line(name=v, values=n, **style) for (v, style), n in zip(views.items(), counts, strict=True)),
        )
    ]
    losses = [name for name in LOSSES if name in wide.index]
    if losses:
        charts.append(_metrics("cross-entropy with z replaced", "nats per token", wide, losses, views))
    if not evaluation.probing.empty:
        charts.append(_probes(evaluation.probing))
    charts.append(_metrics("every metric", "", wide, list(wide.index), views, drawn=False))
    manifest = evaluation.manifest
    exact = f"Measured on held-out text, {manifest['rows']:,} rows; position 0 is no place like the others, so every figure stands twice."
    return Curves(panels={"evaluation": tuple(charts)}, exact=exact)


# ------------------------------------------------------------------ charts
def _over_steps(title: str, steps: Any, lines: tuple[Line, ...], *, y_title: str = "", **how: Any) -> Chart:
    return Chart(
        title=title, x_title="step", y_title=y_title or title, x=np.unique(steps.to_numpy(float)), lines=lines, **how
    )


def _trainings(rows: Any, column: str) -> tuple[Line, ...]:
    """A line for each training, on all steps of any of them; colours by learning rate."""
    steps, rates = np.unique(rows["step"]), sorted(rows["learning_rate"].unique())
    shades = dict(zip(rates, _shades(len(rates)), strict=True))
    told = [name for name in ("remedy", "condition", "seed") if rows[name].nunique() > 1]
    lines = []
    for (rate, attention, *others), run in rows.groupby(["learning_rate", "attention", *told]):
        names = [str(attention), f"learning rate {rate:g}", *(f"{n} {x}" for n, x in zip(told, others, strict=True))]
        values = run.set_index("step")[column].reindex(steps).to_numpy(float)
        lines.append(Line(name=", ".join(names), values=values, shade=shades[rate], dash=attention != "softmax"))
    return tuple(lines)


def _metrics(title: str, unit: str, wide: Any, names: list[str], views: Any, *, drawn: bool = True) -> Chart:
    return Chart(
        title=title,
        x_title="metric" if not drawn else "z replaced by",
        y_title=unit,
        x=np.arange(len(names), dtype=float),
        labels=tuple(WORDS[name] if drawn else name for name in names),
        lines=tuple(Line(name=v, values=wide.loc[names, v].to_numpy(float), **style) for v, style in views.items()),
        joined=False,
        drawn=drawn,
    )


def _policies(names: list[str]) -> dict[str, tuple[float | None, bool]]:
    """Shade of each policy, and whether it is hollow: sinks 1, 2, 4 ... go along the ramp, variants of a policy look like it, but hollow."""
    shades: dict[str, tuple[float | None, bool]] = {}
    kept = [n for n in names if n.startswith("sinks ")]
    ramp = dict(zip(kept, np.linspace(0.45, 1.0, len(kept)).tolist(), strict=True))
    for name in names:
        plain = {"full": None, "window": 0.15}.get(name.split()[0], 1.0)
        shades[name] = (ramp[name], False) if name in ramp else (plain, name not in ("full", "window"))
    return shades


def _probes(probing: pd.DataFrame) -> Chart:
    """Accuracy of the smallest probes by task, beside the same probe on z and on shuffled answers."""
    table: Any = probing
    k = int(table["k"].min())
    rows = table[table["k"] == k]
    told = (
        ("accuracy", f"{k} feature{'s' * (k > 1)}", None),
        ("z_same_k", f"{k} number{'s' * (k > 1)} of z", 0.5),
        ("z_all", "all of z", 0.8),
    )
    lines = [Line(name=name, values=rows[column].to_numpy(float), shade=shade) for column, name, shade in told]
    shuffled = Line(name="shuffled answers", values=rows["shuffled"].to_numpy(float), shade=0.25, dash=True)
    return Chart(
        title="sparse probes",
        x_title="task",
        y_title="accuracy",
        x=np.arange(len(rows), dtype=float),
        labels=tuple(rows["task"]),
        lines=(*lines, shuffled),
        joined=False,
        limit=(0.5, "chance"),
    )


def _shades(n: int) -> list[float]:
    """Places on the ramp of colours for so many lines."""
    return np.linspace(0.0, 1.0, max(n, 1))[:n].tolist()
