"""Figures of the entropy report: heads, entropy against position, measured entropy against its bound, regimes by layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.colours import colourscale
from interp.widgets.plots_heads import GREY, INK, finish, inside, scores_figure, steps, title_of

View = Literal["heads", "position", "bound", "regimes"]
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter (overloaded)")


def entropy_figure(
    result: Result,
    column: str = "score",
    *,
    view: View = "heads",
    head: tuple[int, int] | None = None,
    theme: str = "light",
) -> go.Figure:
    """One picture of the entropy report.

    Args:
        result: of `interp.entropy.report`.
        column: for "heads", any column of numbers.
        view: "heads" by layer and head; "position", normalised entropy by position, of every layer or of one head with and without its sink;
            "bound", measured entropy of every head against the least that its logits allow; "regimes", shares of heads in each
            quarter of the largest entropy, by layer.
        head: (layer, head) for "position".
        theme: "light" or "dark".

    Raises:
        OptionError: another view, or a head that is not there.
    """
    if view == "heads":
        return scores_figure(result, column, theme)
    if view == "position":
        return _layers_by_position(result, theme) if head is None else _head_by_position(result, head, theme)
    if view == "bound":
        return _bound(result, theme)
    if view == "regimes":
        return _regimes(result, theme)
    raise OptionError(f"view must be one of heads, position, bound, regimes; got {view!r}")


def _layers_by_position(result: Result, theme: str) -> go.Figure:
    grid = np.ma.masked_invalid(result.arrays["by_position"]).mean(1).filled(np.nan)
    heat = go.Heatmap(
        z=grid.astype(np.float32),
        x=_buckets(result),
        y=[str(layer) for layer in range(len(grid))],
        colorscale=colourscale(),
        zmin=0,
        zmax=1,
        colorbar={"title": {"text": "H / log n"}, "thickness": 12},
        hovertemplate="layer %{y}, rows %{x}: %{z:.3g}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(heat)
    figure.update_xaxes(title="position of the row", type="category", showgrid=False)
    figure.update_yaxes(title="layer", type="category", autorange="reversed", showgrid=False)
    return finish(
        figure, theme, f"normalised entropy by position, mean of heads; {title_of(result)}", 170 + 18 * len(grid)
    )


def _head_by_position(result: Result, head: tuple[int, int], theme: str) -> go.Figure:
    head = inside(result, head)
    figure = go.Figure()
    lines = (("whole row", "by_position", INK, "solid"), ("without first token", "rest_by_position", GREY, "dash"))
    for name, array, colours, dash in lines:
        line = go.Scatter(
            name=name,
            x=_buckets(result),
            y=result.arrays[array][head].astype(np.float32),
            mode="lines+markers",
            line={"color": colours.get(theme), "dash": dash},
            hovertemplate=f"{name}, rows %{{x}}: %{{y:.3g}}<extra></extra>",
        )
        figure.add_trace(line)
    figure.update_xaxes(title="position of the row", type="category")
    figure.update_yaxes(title="H / log n", range=[0, 1.02])
    return finish(figure, theme, f"head {head[0]}.{head[1]}: normalised entropy; {title_of(result)}", 400)


def _bound(result: Result, theme: str) -> go.Figure:
    table = result.table
    points = go.Scatter(
        x=table["bound"],
        y=table["entropy"],
        mode="markers",
        marker={
            "color": table["layer"],
            "colorscale": colourscale(),
            "size": 7,
            "line": {"width": 1, "color": GREY.get(theme)},
            "colorbar": {"title": {"text": "layer"}, "thickness": 12},
        },
        text=[f"{layer}.{head}" for layer, head in zip(table["layer"], table["head"], strict=True)],
        customdata=table["logit_norm"],
        hovertemplate="head %{text}: entropy %{y:.3g}, bound %{x:.3g} nats, rho %{customdata:.3g}<extra></extra>",
        showlegend=False,
    )
    top = float(np.nanmax(table["entropy"].to_numpy(np.float64), initial=1.0)) * 1.05
    figure = go.Figure(points)
    figure.add_shape(type="line", x0=0, y0=0, x1=top, y1=top, line={"dash": "dash", "color": GREY.get(theme)})
    figure.update_xaxes(title="least entropy that the logit norm allows (nats)", range=[0, top])
    figure.update_yaxes(title="measured entropy (nats)", range=[0, top])
    return finish(figure, theme, f"no head below the dashed line; {title_of(result)}", 520)


def _regimes(result: Result, theme: str) -> go.Figure:
    shares = result.arrays["regime_shares"]
    figure = go.Figure()
    for n, (name, colour) in enumerate(zip(QUARTERS, steps(len(QUARTERS)), strict=True)):
        bar = go.Bar(
            name=name,
            x=[str(layer) for layer in range(len(shares))],
            y=shares[:, n],
            marker_color=colour,
            hovertemplate=f"layer %{{x}}, {name}: %{{y:.0%}}<extra></extra>",
        )
        figure.add_trace(bar)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="layer", type="category")
    figure.update_yaxes(title="share of heads", range=[0, 1])
    return finish(figure, theme, f"heads by quarter of the largest mean entropy; {title_of(result)}", 400)


def _buckets(result: Result) -> list[str]:
    edges = result.arrays["position_edges"].tolist()
    return [str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in pairwise(edges)]
