"""Figures of circuits and effects: heads by layer, the parts of an attribution, knock-out by layer, overlap, and effects beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.diverging import signed_scale
from interp.widgets.figures import plain
from interp.widgets.plots_heads import GREY, INK, finish, scores_figure, title_of

PARTS = ("heads", "mlps", "embedding", "biases", "sum", "logit difference")


def circuit_figure(
    result: Result, *, site: str | None = None, position: str | None = None, theme: str = "light"
) -> go.Figure:
    """Effect of each head, layers from left to right, of one kind of patch at one position.

    Args:
        result: of activation, attribution or path patching.
        site: z, q, k or v; None takes the only or first one.
        position: a label of the result; None takes the only or first one.
        theme: "light" or "dark", as the page around it.

    Raises:
        OptionError: a site or position that the result does not have.
    """
    rows: Any = result.table
    said = []
    for column, wanted in (("site", site), ("position", position)):
        known = rows[column].unique().tolist()
        if wanted is not None and wanted not in known:
            raise OptionError(f"{column} must be one of {', '.join(known)}; got {wanted!r}")
        rows = rows[rows[column] == (known[0] if wanted is None else wanted)]
        said.append(f"{column} {known[0] if wanted is None else wanted}")
    figure = scores_figure(replace(result, table=rows.drop(columns=["site", "position"])), theme=theme)
    limit = float(np.nanmax(np.abs(rows[["score", "control"]].to_numpy(dtype=float)))) or 1.0
    figure.update_layout(coloraxis={"colorscale": signed_scale(), "cmin": -limit, "cmax": limit})
    return figure.update_layout(title={"text": plain(f"{_title(result)}: {', '.join(said)}")})


def direct_figure(result: Result, *, view: Literal["heads", "parts"] = "heads", theme: str = "light") -> go.Figure:
    """Direct attribution of each head, or of heads, MLPs, embeddings and biases together with their sum.

    Args:
        result: of direct logit attribution.
        view: which picture.
        theme: "light" or "dark".
    """
    if view == "heads":
        return circuit_figure(result, theme=theme)
    if view != "parts":
        raise OptionError(f"view must be heads or parts; got {view!r}")
    parts = result.manifest["parts"]
    figure = go.Figure(_bars("parts", PARTS, [parts[name] for name in PARTS], INK.get(theme)))
    figure.update_yaxes(title="logits")
    return finish(figure, theme, _title(result), 380)


def knockout_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Change of the answer's probability by the layer in the middle of the window, with its interval, and that of random keys."""
    table: Any = result.table
    names = table["layer"].tolist()
    band = go.Scatter(
        x=[*names, *names[::-1]],
        y=[*table["high"], *table["low"][::-1]],
        fill="toself",
        mode="none",
        opacity=0.25,
        fillcolor=INK.get(theme),
        hoverinfo="skip",
        name="95 % interval",
    )
    lines = [
        go.Scatter(
            x=names,
            y=table[column],
            mode="lines+markers",
            name=name,
            line={"color": colour, "dash": dash},
            hovertemplate="layer %{x}: %{y:.3g}<extra></extra>",
        )
        for column, name, colour, dash in (
            ("score", "keys named", INK.get(theme), "solid"),
            ("control", "random keys", GREY.get(theme), "dash"),
        )
    ]
    figure = go.Figure([band, *lines])
    settings = result.manifest["settings"]
    figure.update_xaxes(title=f"middle of the window of {settings['window']} layers")
    figure.update_yaxes(title="p(answer) / untouched − 1")
    return finish(figure, theme, f"{_title(result)}: {settings['queries']} cut from {settings['keys']}", 420)


def overlap_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Overlap of two circuits by their size with its interval, and of random heads of the same layers."""
    return _beside(result, [f"k = {k}" for k in result.table["k"]], "random heads, same layers", theme)


def codes_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Average precision of each score of `interp.circuits.codes` with its interval, the null beside it, and chance as a line."""
    found: Any = result.manifest["identification"]
    heads: Any = result.table["true"]
    names = [row["score"] for row in found]
    interval = {
        "type": "data",
        "array": [row["high"] - row["average_precision"] for row in found],
        "arrayminus": [row["average_precision"] - row["low"] for row in found],
    }
    score = [row["average_precision"] for row in found]
    figure = go.Figure(
        [
            _bars("average precision", names, score, INK.get(theme), error=interval, shown=True),
            _bars("pairs swapped at random", names, [row["null"] for row in found], GREY.get(theme), shown=True),
        ]
    )
    figure.add_hline(y=found[0]["chance"], line_dash="dot", annotation_text="chance", line_color=GREY.get(theme))
    figure.update_yaxes(title="average precision", range=[0, 1.05])
    return finish(figure, theme, f"{_title(result)}: {int(heads.sum())} heads to find", 400)


def effects_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Change of each metric under the edits with its interval, and under the controls with their standard deviation; each on its own scale."""
    table: Any = result.table
    figure = make_subplots(rows=1, cols=len(table), subplot_titles=[plain(m) for m in table["metric"]])
    for n in range(len(table)):
        rows = table.iloc[[n]]
        for trace in _pair(rows, ["change"], result.manifest["controls"], theme, shown=n == 0):
            figure.add_trace(trace, row=1, col=n + 1)
    return finish(figure, theme, f"{_title(result)}: {', '.join(result.manifest['edits'])}", 420)


def _beside(result: Result, names: Sequence[str], control: str, theme: str) -> go.Figure:
    figure = go.Figure(_pair(result.table, names, control, theme, shown=True))
    figure.update_yaxes(title="score")
    return finish(figure, theme, _title(result), 400)


def _pair(rows: Any, names: Sequence[str], control: str, theme: str, *, shown: bool) -> list[go.Bar]:
    """Bars of score with its interval, and of control with its spread."""
    interval = {
        "type": "data",
        "array": (rows["high"] - rows["score"]).tolist(),
        "arrayminus": (rows["score"] - rows["low"]).tolist(),
    }
    spread = {"type": "data", "array": rows["spread"].tolist()}
    return [
        _bars("measured", names, rows["score"], INK.get(theme), error=interval, shown=shown),
        _bars(plain(control), names, rows["control"], GREY.get(theme), error=spread, shown=shown),
    ]


def _bars(
    name: str, x: Sequence[str], y: Any, colour: str | None, *, error: dict[str, Any] | None = None, shown: bool = False
) -> go.Bar:
    return go.Bar(
        name=name,
        x=list(x),
        y=list(y),
        error_y=error,
        marker_color=colour,
        legendgroup=name,
        showlegend=shown,
        hovertemplate="%{x}: %{y:.3g}<extra></extra>",
    )


def _title(result: Result) -> str:
    return title_of(result).removeprefix("circuits.").removeprefix("interventions.")
