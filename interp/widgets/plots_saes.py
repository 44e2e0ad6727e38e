"""Pictures of autoencoders: the curves of a training, and an evaluation on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import OptionError
from interp.saes.evaluation import Evaluation
from interp.saes.log import read_log
from interp.saes.metrics import VIEWS, density_histogram
from interp.widgets.plots_heads import GREY, INK, finish

CURVES = (
    ("loss", "loss"),
    ("l0", "active features per token (L0)"),
    ("ev", "explained variance"),
    ("dead", "share of dead features"),
)
"""Columns of the log that are drawn, and their titles."""
LOSSES = ("ce_clean", "ce_sae", "ce_mean", "ce_zero")
WORDS = {"ce_clean": "as it is", "ce_sae": "autoencoder", "ce_mean": "mean", "ce_zero": "zero"}


def sae_training_figure(folder: str | Path, *, theme: str = "light") -> go.Figure:
    """Loss, L0, explained variance and dead features of a training by step; where it was measured, the cross-entropy recovered.

    Args:
        folder: of a training, finished or not.
        theme: "light" or "dark".

    Raises:
        CorruptFileError: the folder holds no log.
        OptionError: an unknown theme.
    """
    log: Any = read_log(folder)
    curves = list(CURVES)
    if log["ce_recovered"].notna().any():
        curves.append(("ce_recovered", "share of cross-entropy recovered"))
    figure = make_subplots(rows=1, cols=len(curves), subplot_titles=[title for _, title in curves])
    colour = INK.get(theme, INK["light"])
    for n, (column, title) in enumerate(curves, start=1):
        rows = log[log[column].notna()]
        # Few measurements of the cross-entropy: points, so that one alone is seen.
        mode = "lines+markers" if column == "ce_recovered" else "lines"
        line = go.Scatter(
            x=rows["step"], y=rows[column], mode=mode, line={"color": colour}, showlegend=False,
            hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{title}</extra>",
        )  # fmt: skip
        figure.add_trace(line, row=1, col=n)
    figure.update_xaxes(title="step")
    return finish(figure, theme, f"training of {Path(folder).name}", 340)


def sae_evaluation_figure(evaluation: Evaluation, *, theme: str = "light") -> go.Figure:
    """How often features fire, what the model's prediction costs with z replaced, both with and without position 0, and the probes.

    Args:
        evaluation: of `interp.saes.evaluate`.
        theme: "light" or "dark".

    Raises:
        OptionError: an unknown theme, or an evaluation without losses.
    """
    wide: Any = evaluation.frame
    if any(name not in wide.index for name in LOSSES):
        raise OptionError("this evaluation holds no losses of the model, which the figure is of")
    probes: Any = evaluation.probing
    titles = ["density of features", "cross-entropy with z replaced"] + (
        [] if probes.empty else ["sparse probes, one feature"]
    )
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles)
    colours = (GREY.get(theme, GREY["light"]), INK.get(theme, INK["light"]))
    for view, density, colour in zip(VIEWS, evaluation.density, colours, strict=True):
        edges, counts = density_histogram(density)
        steps = go.Scatter(
            x=edges[:-1].numpy(),
            y=counts.numpy(),
            mode="lines",
            line={"shape": "hv", "color": colour},
            name=view,
            legendgroup=view,
        )
        figure.add_trace(steps, row=1, col=1)
        bars = go.Bar(
            x=[WORDS[name] for name in LOSSES], y=[wide.loc[name, view] for name in LOSSES], marker={"color": colour},
            name=view, legendgroup=view, showlegend=False, hovertemplate="%{x}: %{y:.4f} nats<extra>" + view + "</extra>",
        )  # fmt: skip
        figure.add_trace(bars, row=1, col=2)
    figure.update_xaxes(title="density, log10 of the share of tokens", row=1, col=1)
    figure.update_yaxes(title="features", row=1, col=1)
    # A layer's share of the cross-entropy is small: from zero all bars would look alike.
    values = np.array([[wide.loc[name, view] for view in VIEWS] for name in LOSSES], dtype=float)
    room = 0.2 * float(np.ptp(values)) or 0.1
    figure.update_yaxes(
        title="nats per token", range=[float(values.min()) - room, float(values.max()) + room], row=1, col=2
    )
    if not probes.empty:
        first = probes[probes["k"] == probes["k"].min()]
        for column, name, colour in (("accuracy", "feature", colours[1]), ("z_same_k", "number of z", colours[0])):
            figure.add_trace(
                go.Bar(x=first["task"], y=first[column], name=name, marker={"color": colour}), row=1, col=3
            )
        figure.update_yaxes(title="accuracy, 0.5 is chance", range=[0.4, 1.0], row=1, col=3)
    title = f"autoencoder of layer {evaluation.manifest['layer']}, {evaluation.manifest['model']['name']}"
    return finish(figure, theme, title, 400)
