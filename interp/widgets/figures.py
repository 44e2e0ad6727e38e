"""Plotly figures of results: small, drawn offline by JupyterLab, kept in a saved notebook."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.errors import OptionError
from interp.maps.attention_map import AttentionMap
from interp.stats.catalogue import find
from interp.widgets.colours import colourscale

TEMPLATES = {"light": "plotly_white", "dark": "plotly_dark"}
PIXELS = 256
"""Pixels a side beyond which a map is pooled: plotly keeps every cell as text in the notebook."""
LABELS = 64
"""Tokens a side up to which the axes of a map name them."""


def head_heatmap(frame: pd.DataFrame, statistic: str = "entropy", theme: str = "light") -> go.Figure:
    """Draw one statistic of every head: layers from left to right, heads from top to bottom.

    Args:
        frame: `run.frame` of one text, or a scan's: columns layer, head, statistic, value.
        statistic: which one.
        theme: "light" or "dark", as the page around it.

    Raises:
        OptionError: the frame does not have it, or holds several texts; an unknown theme.
    """
    rows = frame[frame["statistic"] == statistic]
    if rows.empty:
        raise OptionError(f"no statistic {statistic!r} here; there are: {', '.join(frame['statistic'].unique())}")
    if not rows.set_index(["layer", "head"]).index.is_unique:
        raise OptionError("this table holds several texts; take one, as in run[0].plot(), or average them first")
    grid = rows.pivot(index="head", columns="layer", values="value")
    declared = find([statistic])[0]
    heat = go.Heatmap(
        z=grid.to_numpy(np.float32),
        x=[str(layer) for layer in grid.columns],
        y=[str(head) for head in grid.index],
        colorscale=colourscale(),
        colorbar={"title": {"text": declared.unit}, "thickness": 12},
        hovertemplate="layer %{x}, head %{y}: %{z:.3g}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure = _figure(heat, theme, f"{declared.title}: {declared.formula}", 150 + 24 * len(grid))
    figure.update_xaxes(title="layer", type="category", showgrid=False)
    figure.update_yaxes(title="head", type="category", autorange="reversed", showgrid=False)
    return figure


def map_heatmap(
    amap: AttentionMap,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
    *,
    pool: Literal["mean", "max"] = "max",
    theme: str = "light",
) -> go.Figure:
    """Draw an attention map or a rectangle of it: exact cells up to 256 a side, pools of exact cells beyond.

    Args:
        amap: of one head.
        rows: first query and the one after the last, None for all.
        cols: first key and the one after the last, None for all.
        pool: what a pixel shows where it covers several cells.
        theme: "light" or "dark", as the page around it.
    """
    (i0, i1), (j0, j1) = rows or (0, amap.shape[0]), cols or (0, amap.shape[1])
    weights = amap.tile((i0, i1), (j0, j1), PIXELS, pool).cpu().numpy().astype(np.float32)
    height, width = weights.shape
    exact = (height, width) == (i1 - i0, j1 - j0)
    said = (
        "exact weights"
        if exact
        else f"{pool} of exact weights in pixels of about {(i1 - i0) / height:.0f} x {(j1 - j0) / width:.0f}"
    )
    y, x = (start + np.arange(n) * (stop - start) // n for start, stop, n in ((i0, i1, height), (j0, j1, width)))
    heat = go.Heatmap(
        z=np.where(weights > 0, weights, np.float32(np.nan)),
        x=x,
        y=y,
        colorscale=_square_root(colourscale()),
        zmin=0,
        colorbar={"title": {"text": "weight"}, "thickness": 12},
        hovertemplate="query %{y} → key %{x}: %{z:.3g}<extra></extra>",
    )
    figure = _figure(heat, theme, f"layer {amap.layer}, head {amap.head}: {said}", 640)
    figure.update_layout(width=720)
    figure.update_xaxes(title="key", showgrid=False, constrain="domain", **_tokens(amap.col_tokens, j0, j1))
    figure.update_yaxes(
        title="query", showgrid=False, autorange="reversed", scaleanchor="x", **_tokens(amap.row_tokens, i0, i1)
    )
    return figure


def _figure(heat: go.Heatmap, theme: str, title: str, height: int) -> go.Figure:
    if theme not in TEMPLATES:
        raise OptionError(f"theme must be one of {', '.join(TEMPLATES)}; got {theme!r}")
    figure = go.Figure(data=heat)
    margin = {"l": 70, "r": 20, "t": 60, "b": 60}
    return figure.update_layout(template=TEMPLATES[theme], title={"text": plain(title)}, height=height, margin=margin)


def _tokens(tokens: list[str] | None, start: int, stop: int) -> dict[str, Any]:
    """Ticks that name every token, where there are few enough."""
    if tokens is None or stop - start > LABELS:
        return {}
    return {
        "tickvals": list(range(start, stop)),
        "ticktext": [plain(t) for t in tokens[start:stop]],
        "tickfont": {"size": 10},
    }


def plain(text: str) -> str:
    """Text for plotly, which reads some HTML in labels: shown as it is, with signs for spaces and line ends."""
    visible = text.replace("\n", "↵").replace("\t", "⇥")
    return visible.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _square_root(scale: list[list[float | str]]) -> list[list[float | str]]:
    """Move a colour scale's stops so that colour follows the square root of the value: weights are mostly small."""
    return [[float(at) ** 2, colour] for at, colour in scale]
