"""Figures of calibrations: what each head promised and gained in the search, and what the selected heads gain on held-out prompts."""

from __future__ import annotations

from typing import Any, Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.figures import plain
from interp.widgets.plots_heads import GREY, INK, finish, scores_figure

View = Literal["gains", "predicted"]


def calibration_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Gain of each metric on held-out prompts with its bootstrap interval, and the mean gain of each control with its standard deviation.

    Args:
        result: of `interp.calibration.calibrate`.
        theme: "light" or "dark", as the page around it.
    """
    table: Any = result.table
    metrics = list(dict.fromkeys(table["metric"]))
    figure = make_subplots(rows=1, cols=len(metrics), subplot_titles=[plain(m) for m in metrics])
    for n, metric in enumerate(metrics):
        rows = table[table["metric"] == metric].reset_index(drop=True)
        first = rows.iloc[0]
        gain = go.Bar(
            x=["calibrated"],
            y=[first["score"]],
            error_y={
                "type": "data",
                "array": [first["high"] - first["score"]],
                "arrayminus": [first["score"] - first["low"]],
            },
            marker_color=INK.get(theme),
            customdata=[[first["base"], first["calibrated"]]],
            hovertemplate="gain %{y:.3g}<br>%{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
        )
        controls = go.Bar(
            x=[plain(x) for x in rows["against"]],
            y=rows["control"],
            error_y={"type": "data", "array": rows["spread"]},
            marker_color=GREY.get(theme),
            hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        )
        for bar in (gain, controls):
            figure.add_trace(bar, row=1, col=n + 1)
        figure.update_yaxes(title="gain" if n == 0 else None, row=1, col=n + 1)
    manifest = result.manifest
    said = f"{manifest['method']} on {manifest['task']['name']}: gain on held-out prompts, {first['heads']} heads"
    return finish(figure, theme, said, 420).update_layout(showlegend=False)


def search_figure(result: Result, *, view: View = "gains", theme: str = "light") -> go.Figure:
    """First-order gain of each verified head beside its exact one; or the first-order gain of all heads as a map.

    Args:
        result: of `interp.calibration.search`.
        view: "gains" or "predicted".
        theme: "light" or "dark".

    Raises:
        OptionError: an unknown view or theme.
    """
    if view not in ("gains", "predicted"):
        raise OptionError(f"view must be gains or predicted; got {view!r}")
    if view == "predicted":
        return scores_figure(result, "predicted", theme)
    table: Any = result.table
    rows = table[table["verified"]].sort_values("score", ascending=False)
    names = [f"{a}.{h}" for a, h in zip(rows["layer"], rows["head"], strict=True)]
    figure = go.Figure()
    for name, column, colours in (("exact", "gain_logprob", INK), ("first order", "predicted", GREY)):
        bar = go.Bar(
            name=name,
            x=names,
            y=rows[column],
            marker_color=colours.get(theme),
            hovertemplate=f"head %{{x}}, {name}: %{{y:.3g}} nats<extra></extra>",
        )
        figure.add_trace(bar)
    figure.update_xaxes(title="head", type="category")
    figure.update_yaxes(title="gain of option log-probability, nats")
    kept = int(rows["selected"].sum())
    return finish(figure, theme, f"{result.manifest['method']}: gain of one head calibrated alone, {kept} kept", 420)
