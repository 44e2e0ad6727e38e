"""Figures of explanation checks (removal, rollout, agreement, the honesty panel) and of the measured deployments of streaming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.results import Result
from interp.widgets.colours import colourscale
from interp.widgets.figures import LABELS, plain
from interp.widgets.plots_heads import GREY, INK, finish, steps

THIRD: Final = {"light": "#b26a00", "dark": "#f2b866"}
TITLES: Final = {"needle recall": "needle recall", "loss on text": "loss, nats", "cache bytes": "cache, MiB"}


def rollout_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Rollout of the last row by position, beside attention without content and with the sinks masked.

    Args:
        result: of `interp.explain.rollout`.
        theme: "light" or "dark", as the page around it.
    """
    table: Any = result.table
    lines = (
        ("rollout", "score", INK, None),
        ("without content (control)", "control", GREY, "dot"),
        ("sinks masked", "masked", THIRD, None),
    )
    figure = go.Figure()
    for name, column, colours, dash in lines:
        figure.add_trace(
            go.Scatter(
                x=table["position"],
                y=table[column],
                name=name,
                mode="lines+markers",
                line={"color": colours.get(theme), "dash": dash},
                marker={"size": 4},
                text=table["token"].map(plain),
                hovertemplate="%{x} %{text}: %{y:.3g}<extra>" + name + "</extra>",
            )
        )
    figure.update_yaxes(title="weight", type="log").update_xaxes(title="position")
    if len(table) <= LABELS:
        figure.update_xaxes(tickvals=table["position"], ticktext=table["token"].map(plain), tickfont={"size": 10})
    return finish(figure, theme, f"attention rollout, {_model(result)}", 420)


def faithfulness_figure(result: Result, effect: str = "score", *, theme: str = "light") -> go.Figure:
    """Comprehensiveness and sufficiency by size of the highlight, beside random and recent tokens.

    Args:
        result: of `interp.explain.faithfulness`.
        effect: "score" (probability), "log", "kl" or "entropy".
        theme: "light" or "dark".
    """
    prefix = "" if effect == "score" else f"{effect}_"
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=["without the highlight (comprehensiveness)", "with it alone (sufficiency)"],
        shared_yaxes=True,
    )
    for col, measure in enumerate(("comprehensiveness", "sufficiency"), start=1):
        rows: Any = result.table[result.table["measure"] == measure]
        kinds = (
            (plain(str(result.manifest["settings"]["scores"])), rows[effect], INK, None),
            ("random tokens", rows[f"{prefix}control"], GREY, rows[f"{prefix}spread"].tolist()),
            ("last tokens", rows[f"{prefix}recency"], THIRD, None),
        )
        for name, values, colours, error in kinds:
            _bar(figure, rows["bin"].tolist(), values, name, colours, theme, error=error, place=(1, col))
    unit = {"score": "fall of the probability", "log": "fall of ln p, nats", "kl": "KL, nats", "entropy": "rise, nats"}
    figure.update_yaxes(title=unit[effect], col=1).update_xaxes(title="tokens in the highlight")
    return finish(figure, theme, f"removal of highlighted tokens, {_model(result)}", 420)


def panel_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """The checks of the honesty panel side by side, each in its own unit.

    Args:
        result: of `interp.explain.panel`.
        theme: "light" or "dark".
    """
    table: Any = result.table
    figure = make_subplots(rows=1, cols=len(table), subplot_titles=[plain(check) for check in table["check"]])
    for col, row in enumerate(table.to_dict("records"), start=1):
        of_heads = row["check"] in ("disagreement", "sink mass")
        bars = (
            ("highlight", row["score"], INK, row["spread"] if of_heads else None),
            ("control", row["control"], GREY, None if of_heads else row["spread"]),
            ("last tokens", row["recency"], THIRD, None),
        )
        for name, value, colours, error in bars:
            if not np.isnan(value):
                spread = None if error is None else [error]
                _bar(figure, [plain(row["unit"])], [value], name, colours, theme, error=spread, place=(1, col))
    return finish(figure, theme, f"checks of a highlight, {_model(result)}", 400)


def agreement_figure(result: Result, column: str = "score", *, theme: str = "light") -> go.Figure:
    """Agreement in rank of every pair of methods; the title says that it is no more than that.

    Args:
        result: of `interp.explain.agreement`.
        column: "score" (Kendall), "spearman" or "top_k".
        theme: "light" or "dark".
    """
    table: Any = result.table
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    grid = np.full((len(names), len(names)), np.nan)
    for row in table.to_dict("records"):
        a, b = names.index(row["first"]), names.index(row["second"])
        grid[a, b] = grid[b, a] = row[column]
    shown = [plain(name) for name in names]
    heat = go.Heatmap(
        z=grid,
        x=shown,
        y=shown,
        zmin=0 if column == "top_k" else -1,
        zmax=1,
        colorscale=colourscale(),
        colorbar={"thickness": 12},
        hovertemplate="%{y} and %{x}: %{z:.3g}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(heat).update_yaxes(autorange="reversed", type="category").update_xaxes(type="category")
    return finish(figure, theme, f"{result.manifest['label']}; {_model(result)}", 420)


def streaming_loss_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Perplexity by position under every policy, with bootstrap intervals over pieces.

    Args:
        result: of `interp.sinks.streaming_loss`.
        theme: "light" or "dark".
    """
    policies: list[str] = result.manifest["policies"]
    figure = go.Figure()
    for policy, colour in zip(policies, steps(len(policies)), strict=True):
        rows: Any = result.table[result.table["policy"] == policy]
        figure.add_trace(
            go.Bar(
                name=plain(policy),
                x=rows["bucket"],
                y=rows["perplexity"],
                marker_color=colour,
                error_y={
                    "type": "data",
                    "array": rows["high"] - rows["perplexity"],
                    "arrayminus": rows["perplexity"] - rows["low"],
                },
                hovertemplate="rows %{x}: %{y:.4g}<extra>" + plain(policy) + "</extra>",
            )
        )
    figure.update_yaxes(title="perplexity", type="log").update_xaxes(title="rows", type="category")
    settings = result.manifest["settings"]
    said = f"{settings['size']} keys kept of {settings['tokens']}, {settings['pieces']} pieces"
    return finish(figure, theme, f"streaming with and without sinks, {_model(result)}: {said}", 460)


def deployment_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Recall, loss and cache of full attention, of streaming heads, of random heads and of all heads streaming.

    Args:
        result: of `interp.heads.deployment`.
        theme: "light" or "dark".
    """
    table: Any = result.table.set_index("metric")
    figure = make_subplots(rows=1, cols=len(TITLES), subplot_titles=list(TITLES.values()))
    for col, metric in enumerate(TITLES, start=1):
        row = table.loc[metric]
        unit = 2**20 if metric == "cache bytes" else 1
        bars = (
            ("full attention", "base", THIRD, None),
            ("streaming heads", "score", INK, None),
            ("random heads, same layers", "control", GREY, [row["spread"] / unit]),
            ("all heads stream", "everything", {"light": "#5f6368", "dark": "#bdc1c6"}, None),
        )
        for name, column, colours, error in bars:
            _bar(figure, [metric], [row[column] / unit], name, colours, theme, error=error, place=(1, col))
    share = result.manifest["settings"]["share"]
    return finish(figure, theme, f"{100 * share:g} % of key-value heads stream, {_model(result)}", 420)


def _bar(
    figure: go.Figure,
    names: Sequence[str],
    values: Any,
    label: str,
    colours: dict[str, str],
    theme: str,
    *,
    error: Sequence[float] | None,
    place: tuple[int, int],
) -> None:
    """A bar of one kind, named in the legend once."""
    drawn: Any = figure.data
    there = {trace.name for trace in drawn}
    bar = go.Bar(
        name=label,
        x=list(names),
        y=values,
        error_y=None if error is None else {"type": "data", "array": list(error)},
        marker_color=colours.get(theme),
        legendgroup=label,
        showlegend=label not in there,
        hovertemplate="%{x}: %{y:.3g}<extra>" + label + "</extra>",
    )
    figure.add_trace(bar, row=place[0], col=place[1])


def _model(result: Result) -> str:
    return str(result.manifest.get("model", {}).get("name", "a model without a name"))
