"""Pictures of scans beside each other: the difference of two, head by head, and heads over a series of models or checkpoints."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.batch.files import write_file
from interp.batch.result import REPORT
from interp.batch.series import ModelsResult
from interp.errors import OptionError
from interp.results import Result
from interp.stats.catalogue import STATISTICS, find
from interp.widgets.diverging import signed_scale
from interp.widgets.figures import plain
from interp.widgets.plots_heads import finish, steps

HEADS: Final = 8
"""Heads drawn one by one over the models: those whose mean moves most."""
INK: Final = {"light": "#222a35", "dark": "#e6e9ef"}


def compare_figure(result: Result, statistic: str | None = None, theme: str = "light") -> go.Figure:
    """The difference B - A of one statistic for every head, with both means, ranks and the interval at the pointer.

    Args:
        result: of `interp.batch.compare.compare` or `interp.batch.compare_results.compare_results`.
        statistic: which one, None for the first.
        theme: "light" or "dark", as the page around it.

    Raises:
        OptionError: the result does not have it, or an unknown theme.
    """
    table: Any = result.table
    names = list(dict.fromkeys(table["statistic"]))
    name = names[0] if statistic is None else statistic
    if name not in names:
        raise OptionError(f"no statistic {name!r} here; there are: {', '.join(names)}")
    rows = table[table["statistic"] == name]
    extra = ["a", "b", "low", "high", "rank_a", "rank_b", "rank_low", "rank_high"]
    grids = {c: rows.pivot(index="head", columns="layer", values=c) for c in ("score", *extra)}
    z = grids["score"]
    most = float(np.nanmax(np.abs(z.to_numpy()), initial=0.0)) or 1.0
    heat = go.Heatmap(
        z=z.to_numpy(np.float32),
        x=[str(layer) for layer in z.columns],
        y=[str(head) for head in z.index],
        customdata=np.stack([grids[c].to_numpy() for c in extra], axis=-1),
        colorscale=signed_scale(),
        zmin=-most,
        zmax=most,
        colorbar={"title": {"text": "B - A"}, "thickness": 12},
        hovertemplate=(
            "layer %{x}, head %{y}<br>A %{customdata[0]:.4g}, B %{customdata[1]:.4g}<br>B - A: %{z:.3g} "
            "[%{customdata[2]:.3g}, %{customdata[3]:.3g}]<br>rank %{customdata[4]:g} to %{customdata[5]:g}, "
            "change [%{customdata[6]:g}, %{customdata[7]:g}]<extra></extra>"
        ),
        xgap=1,
        ygap=1,
    )
    sides = [str(side["folder"]) for side in result.manifest["compared"]]
    method = result.manifest["settings"]["method"]
    figure = go.Figure(heat)
    figure.update_xaxes(title="layer", type="category", showgrid=False)
    figure.update_yaxes(title="head", type="category", autorange="reversed", showgrid=False)
    said = find([name])[0].title if name in STATISTICS else name.replace("_", " ")
    title = f"{said}: {sides[1]} minus {sides[0]} (intervals: {method})"
    return finish(figure, theme, title, 170 + 24 * len(z))


def models_figure(result: ModelsResult, statistic: str | None = None, theme: str = "light") -> go.Figure:
    """A statistic over a series of models: the mean of all heads, and the heads that move most. A menu chooses the statistic.

    Args:
        result: of `interp.batch.series.scan_models`.
        statistic: shown first, None for the first that was measured.
        theme: "light" or "dark", as the page around it.

    Raises:
        OptionError: the scans do not have it, or an unknown theme.
    """
    frame: Any = result.frame
    names = list(dict.fromkeys(frame["statistic"]))
    first = names[0] if statistic is None else statistic
    if first not in names:
        raise OptionError(f"no statistic {first!r} here; there are: {', '.join(names)}")
    figure = go.Figure()
    owners: list[str] = []
    for name in names:
        for trace in _lines(frame[frame["statistic"] == name], list(result.scans), theme):
            trace.visible = name == first
            figure.add_trace(trace)
            owners.append(name)
    titles = {name: f"{find([name])[0].title} over {len(result.scans)} models" for name in names}
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [{"visible": [owner == name for owner in owners]}, {"title.text": plain(titles[name])}],
        }
        for name in names
    ]
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "active": names.index(first), "x": 1, "xanchor": "right", "y": 1.15}]
    )
    figure.update_xaxes(title="model", type="category")
    return finish(figure, theme, titles[first], 480)


def write_models_report(result: ModelsResult) -> Path:
    """Write `report.html` of a series of models: the figure, and links to the report of each scan.

    Raises:
        OutputError: the folder cannot be written.
    """
    links = "".join(
        f'<li><a href="model={html.escape(label)}/{REPORT}">{html.escape(label)}</a>: {scan.manifest["tokens"]["tokens"]:,} tokens</li>'
        for label, scan in result.scans.items()
    )
    page = models_figure(result).to_html(include_plotlyjs=True, full_html=True)
    page = page.replace("<body>", f"<body><h1>{len(result.scans)} models</h1><ul>{links}</ul>", 1)
    path = result.folder / REPORT
    write_file(path, lambda temporary: temporary.write_text(page, encoding="utf-8", newline="\n"))
    return path


def _lines(rows: pd.DataFrame, models: list[str], theme: str) -> list[go.Scatter]:
    """The mean over heads, thick, and the heads whose means range most over the models."""
    grid: Any = rows.pivot(index=["layer", "head"], columns="model", values="value").reindex(columns=models)
    ranges = (grid.max(axis=1) - grid.min(axis=1)).sort_values(ascending=False, kind="stable")
    chosen = ranges.index[:HEADS]
    traces = [
        go.Scatter(
            x=models, y=grid.mean(), name="all heads", mode="lines+markers", line={"width": 4, "color": INK.get(theme)}
        )
    ]
    for (layer, head), colour in zip(chosen, steps(len(chosen)), strict=True):
        traces.append(
            go.Scatter(
                x=models,
                y=grid.loc[(layer, head)],
                name=f"{layer}.{head}",
                mode="lines+markers",
                line={"color": colour},
            )
        )
    return traces
