"""Figures of analyses of heads: every score as a map of layers x heads beside its control, and the views that some kinds have of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.colours import colourscale
from interp.widgets.figures import TEMPLATES, plain

WIDE = 16
"""Layers beyond which score and control stand above each other instead of side by side."""
SINK_KINDS = ("natural", "random", "repeated")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star", "hexagon", "pentagon")
"""Shapes of clusters, beside their colours: a cluster is told by shape too."""
INK = {"light": "#1f4e8c", "dark": "#8db8f5"}
GREY = {"light": "#9aa3b2", "dark": "#596273"}


def scores_figure(result: Result, column: str = "score", theme: str = "light") -> go.Figure:
    """A score of every head and, in the same colours, its control; layers from left to right, heads from top to bottom.

    Args:
        result: of any analysis of heads.
        column: "score", or another column of numbers; its control is COLUMN_control where there is one.
        theme: "light" or "dark", as the page around it.

    Raises:
        OptionError: no such column of numbers, or an unknown theme.
    """
    table: Any = result.table
    numbers = [c for c in table.columns if c not in ("layer", "head") and pd.api.types.is_numeric_dtype(table[c])]
    if column not in numbers:
        raise OptionError(f"no column of numbers {column!r}; there are: {', '.join(numbers)}")
    spread, control = ("spread", "control") if column == "score" else (f"{column}_spread", f"{column}_control")
    shown = [(column, plain(column))]
    if control in table.columns and table[control].notna().any():
        shown.append((control, "control"))
    stacked = table["layer"].nunique() > WIDE
    rows, cols = (len(shown), 1) if stacked else (1, len(shown))
    figure = make_subplots(rows=rows, cols=cols, subplot_titles=[title for _, title in shown], vertical_spacing=0.18)
    said = ["layer %{x}, head %{y}: %{z:.3g}"]
    extra = [c for c in (spread, control) if c in table.columns] + _words(table)
    said += [f"{plain(c)}: %{{customdata[{n}]{':.3g' if c in numbers else ''}}}" for n, c in enumerate(extra)]
    texts = np.stack([_grid(table, c) for c in extra], axis=-1) if extra else None
    for n, (name, _) in enumerate(shown):
        z = _grid(table, name)
        heat = go.Heatmap(
            z=z.astype(np.float32),
            x=[str(x) for x in sorted(table["layer"].unique())],
            y=[str(x) for x in sorted(table["head"].unique())],
            customdata=texts,
            coloraxis="coloraxis",
            hovertemplate="<br>".join(said) + "<extra></extra>",
            xgap=1,
            ygap=1,
        )
        figure.add_trace(heat, row=n + 1 if stacked else 1, col=1 if stacked else n + 1)
    figure.update_xaxes(title="layer", type="category", showgrid=False)
    figure.update_yaxes(title="head", type="category", autorange="reversed", showgrid=False)
    figure.update_layout(coloraxis={"colorscale": colourscale(), "colorbar": {"thickness": 12}})
    high = 90 + 24 * table["head"].nunique()
    return finish(figure, theme, title_of(result), 70 + (len(shown) if stacked else 1) * high)


def retrieval_figure(
    result: Result, column: str = "score", *, head: tuple[int, int] | None = None, theme: str = "light"
) -> go.Figure:
    """Retrieval scores of all heads, or of one head by length and depth of the needle (mean of the accepted samples of each cell).

    Args:
        result: of `interp.heads.retrieval`.
        column: as in `scores_figure`.
        head: (layer, head) for the lengths x depths grid.
        theme: "light" or "dark".

    Raises:
        OptionError: the grid of a head that is not there, or of prompts that do not say their length and depth.
    """
    if head is None:
        return scores_figure(result, column, theme)
    if "grid" not in result.arrays:
        raise OptionError(
            "this result has no grid: its prompts do not say their length and depth, or it came from a file"
        )
    grid = result.arrays["grid"][:, :, *inside(result, head)]
    settings = result.manifest["settings"]
    heat = go.Heatmap(
        z=grid.T.astype(np.float32),
        x=[str(x) for x in settings["lengths"]],
        y=[f"{100 * x:.0f} %" for x in settings["depths"]],
        customdata=result.arrays["grid_accepted"].T,
        colorscale=colourscale(),
        zmin=0,
        zmax=max(1.0, float(np.nanmax(np.append(grid, 0.0)))),
        colorbar={"thickness": 12},
        hovertemplate="%{x} tokens, depth %{y}: %{z:.3g}<br>accepted samples: %{customdata}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(heat)
    figure.update_xaxes(title="tokens of the prompt", type="category", showgrid=False)
    figure.update_yaxes(title="depth of the needle", type="category", autorange="reversed", showgrid=False)
    return finish(figure, theme, f"head {head[0]}.{head[1]}: {title_of(result)}", 200 + 34 * grid.shape[1])


def successor_figure(
    result: Result, column: str = "score", *, head: tuple[int, int] | None = None, theme: str = "light"
) -> go.Figure:
    """Successor scores of all heads, or one head's score for each task; the dashed line is its control over all tasks.

    Args:
        result: of `interp.heads.successor`.
        column: as in `scores_figure`.
        head: (layer, head) for the tasks.
        theme: "light" or "dark".
    """
    if head is None:
        return scores_figure(result, column, theme)
    inside(result, head)
    tasks = list(dict.fromkeys(x["task"] for x in result.manifest["lists"]))
    row = result.table.set_index(["layer", "head"]).loc[head]
    bars = go.Bar(
        x=[plain(t) for t in tasks],
        y=[float(row[t]) for t in tasks],
        marker_color=INK.get(theme),
        hovertemplate="%{x}: %{y:.3g}<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.add_hline(y=float(row["control"]), line_dash="dash", line_color=GREY.get(theme), annotation_text="control")
    figure.update_yaxes(title="share of pairs", range=[0, 1])
    said = f"head {head[0]}.{head[1]}: {row['score']:.3g} over all pairs; {title_of(result)}"
    return finish(figure, theme, said, 380)


def sinks_figure(
    result: Result, column: str = "score", *, view: Literal["heads", "rates", "phi"] = "heads", theme: str = "light"
) -> go.Figure:
    """Attention sinks: by head, as rates over all heads by threshold and kind of text, or phi of every token at every layer.

    Args:
        result: of `interp.sinks.report`.
        column: for "heads", as in `scores_figure`.
        view: which picture.
        theme: "light" or "dark".
    """
    if view == "heads":
        return scores_figure(result, column, theme)
    if view == "phi":
        phi = result.arrays["phi"]
        heat = go.Heatmap(
            z=phi.astype(np.float32),
            colorscale=colourscale(),
            colorbar={"title": {"text": "phi"}, "thickness": 12},
            hovertemplate="token %{x}, entrance of layer %{y}: phi %{z:.3g}<extra></extra>",
        )
        figure = go.Figure(heat)
        figure.update_xaxes(title="token", showgrid=False)
        figure.update_yaxes(title="layer (entrance)", autorange="reversed", showgrid=False)
        return finish(
            figure, theme, "phi = largest sink dimension over the RMS; a sink token passes 20", 180 + 10 * len(phi)
        )
    if view != "rates":
        raise OptionError(f"view must be one of heads, rates, phi; got {view!r}")
    figure = go.Figure()
    for n, kind in enumerate(SINK_KINDS):
        rates = result.manifest["sink_1"][kind]
        bar = go.Bar(
            name=kind,
            x=[f"eps = {eps}" for eps in rates],
            y=list(rates.values()),
            marker_color=steps(len(SINK_KINDS))[n],
            hovertemplate=f"{kind}, %{{x}}: %{{y:.3g}}<extra></extra>",
        )
        figure.add_trace(bar)
    figure.update_yaxes(title="share of (sequence, head)", range=[0, 1])
    return finish(figure, theme, "Sink_1: heads whose mean attention on the first token passes eps", 380)


def embedding_figure(result: Result, *, view: Literal["tsne", "pca"] = "tsne", theme: str = "light") -> go.Figure:
    """Every head as a point, heads that attend alike near each other; colour and shape are clusters.

    Args:
        result: of `interp.heads.embedding`.
        view: "tsne" keeps neighbours (distances between islands mean nothing), "pca" large distances.
        theme: "light" or "dark".
    """
    if view not in ("tsne", "pca"):
        raise OptionError(f"view must be tsne or pca; got {view!r}")
    table: Any = result.table
    clusters = sorted(table["cluster"].unique())
    figure = go.Figure()
    for n, cluster in enumerate(clusters):
        rows = table[table["cluster"] == cluster]
        labels = rows["labels"] if "labels" in rows.columns else [""] * len(rows)
        points = go.Scatter(
            name=f"cluster {cluster} ({len(rows)})",
            x=rows[f"{view}_1"],
            y=rows[f"{view}_2"],
            mode="markers",
            marker={
                "symbol": SYMBOLS[n % len(SYMBOLS)],
                "color": steps(len(clusters))[n],
                "size": 9,
                "line": {"width": 1, "color": GREY.get(theme)},
            },
            text=[
                f"{layer}.{head} {plain(words)}"
                for layer, head, words in zip(rows["layer"], rows["head"], labels, strict=True)
            ],
            customdata=rows["score"],
            hovertemplate="%{text}<br>silhouette %{customdata:.2f}<extra></extra>",
        )
        figure.add_trace(points)
    axes = ("t-SNE 1", "t-SNE 2") if view == "tsne" else ("component 1", "component 2")
    figure.update_xaxes(title=axes[0], zeroline=False)
    figure.update_yaxes(title=axes[1], zeroline=False)
    said = (
        f"heads by how they attend; mean silhouette {table['score'].mean():.2f}, control {table['control'].iloc[0]:.2f}"
    )
    return finish(figure, theme, said, 560)


def confirm_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Harm of ablating the heads of each label, and that of random heads of the same layers with its standard deviation; one row per metric."""
    table: Any = result.table
    metrics = list(dict.fromkeys(table["metric"]))
    figure = make_subplots(rows=len(metrics), cols=1, subplot_titles=[plain(m) for m in metrics])
    for n, metric in enumerate(metrics):
        rows = table[table["metric"] == metric]
        names = [plain(f"{label}, {kind}") for label, kind in zip(rows["label"], rows["kind"], strict=True)]
        _pair_of_bars(figure, names, rows, theme, row=n + 1)
        figure.update_yaxes(title="harm", row=n + 1, col=1)
    return finish(
        figure, theme, "Harm of ablation: labelled heads, and random heads of the same layers", 90 + 260 * len(metrics)
    )


def causal_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """What is lost when the top k heads are masked, and when k random heads of the same layers are."""
    rows: Any = result.table
    figure = make_subplots(rows=1, cols=1)
    _pair_of_bars(figure, [f"k = {k}" for k in rows["k"]], rows, theme, row=1)
    figure.update_yaxes(title=f"loss of {plain(rows['metric'].iloc[0])}")
    return finish(
        figure, theme, f"Masking heads ({plain(rows['kind'].iloc[0])}); unmasked: {rows['base'].iloc[0]:.3g}", 400
    )


def _pair_of_bars(figure: go.Figure, names: Sequence[str], rows: pd.DataFrame, theme: str, *, row: int) -> None:
    """Bars of score, and of control with the spread as error bars."""
    kinds = (("chosen heads", "score", INK, None), ("random heads, same layers", "control", GREY, rows["spread"]))
    for name, column, colours, error in kinds:
        bar = go.Bar(
            name=name,
            x=list(names),
            y=rows[column],
            error_y=None if error is None else {"type": "data", "array": error},
            marker_color=colours.get(theme),
            legendgroup=name,
            showlegend=row == 1,
            hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        )
        figure.add_trace(bar, row=row, col=1)


def _grid(table: pd.DataFrame, column: str) -> NDArray[Any]:
    """A column as [head, layer]; words ready to be shown."""
    values = table[column].map(plain) if column in _words(table) else table[column]
    rows: Any = table.assign(shown=values)
    if rows.duplicated(["layer", "head"]).any():
        raise OptionError("this table holds a head several times; choose the rows of one measurement before drawing it")
    return rows.pivot(index="head", columns="layer", values="shown").to_numpy()


def _words(table: pd.DataFrame) -> list[str]:
    """Columns of text."""
    return [c for c in table.columns if pd.api.types.is_string_dtype(table[c]) or table[c].dtype == object]


def inside(result: Result, head: tuple[int, int]) -> tuple[int, int]:
    """The head, if the result has it. Raises OptionError."""
    if head not in zip(result.table["layer"], result.table["head"], strict=True):
        raise OptionError(f"there is no head {head[0]}.{head[1]} in this result")
    return head


def steps(count: int) -> list[str]:
    """Evenly spaced colours of the table, dark to light."""
    scale = colourscale(max(count, 2))
    return [str(colour) for _, colour in scale[:count]]


def title_of(result: Result) -> str:
    """What was measured, on which model."""
    name = result.manifest.get("model", {}).get("name")
    what = result.kind.removeprefix("heads.").replace("_", " ")
    return what if name is None else f"{what}, {name}"


def finish(figure: go.Figure, theme: str, title: str, height: int) -> go.Figure:
    """Theme, title (escaped), height and margins. Raises OptionError for an unknown theme."""
    if theme not in TEMPLATES:
        raise OptionError(f"theme must be one of {', '.join(TEMPLATES)}; got {theme!r}")
    margin = {"l": 70, "r": 20, "t": 70, "b": 60}
    return figure.update_layout(template=TEMPLATES[theme], title={"text": plain(title)}, height=height, margin=margin)
