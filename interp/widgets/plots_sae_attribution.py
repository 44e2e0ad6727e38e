"""Figures of whose features are: shares by weights and by DFA, families, directions of heads, recursive DFA, long prefixes, IOI's position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.figures import plain
from interp.widgets.plots_heads import GREY, INK, finish, steps, title_of

PARTS_SHOWN = 12
"""Parts of a step that are drawn, the largest ones."""


def attribution_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Share of each head, by weights, by DFA, and by DFA without sinks; each feature's largest share both ways; families.

    Args:
        result: of `interp.saes.feature_attribution`.
        theme: "light" or "dark".
    """
    table: Any = result.table
    titles = ["mean share of each head", "largest share of each feature", "families"]
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, column_widths=[0.45, 0.35, 0.2])
    chosen = table["feature"].to_numpy()
    colours = steps(3)
    names = {"weight_share": "weights", "dfa_share": "DFA", "dfa_share_without_sinks": "DFA without sinks"}
    for (name, label), colour in zip(names.items(), colours, strict=True):
        share = result.arrays[name][chosen].mean(0)
        heads = [str(h) for h in range(len(share))]
        figure.add_trace(go.Bar(x=heads, y=share, name=label, marker={"color": colour}), row=1, col=1)
    same = (table["head"] == table["weight_head"]).to_numpy()
    for mask, label, colour in ((same, "same head", INK.get(theme)), (~same, "another head", GREY.get(theme))):
        rows = table[mask]
        points = go.Scattergl(
            x=rows["weight_share"], y=rows["score"], mode="markers", name=label, marker={"color": colour, "size": 4},
            customdata=rows[["feature", "head", "weight_head", "family"]].to_numpy(),
            hovertemplate="feature %{customdata[0]}, %{customdata[3]}<br>weights: head %{customdata[2]}, %{x:.2f}<br>"
            "DFA: head %{customdata[1]}, %{y:.2f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(points, row=1, col=2)
    counts = table["family"].value_counts()
    bars = go.Bar(x=counts.index.tolist(), y=counts.tolist(), marker={"color": INK.get(theme)}, showlegend=False)
    figure.add_trace(bars, row=1, col=3)
    figure.update_xaxes(title="head", type="category", row=1, col=1)
    figure.update_xaxes(title="by weights", row=1, col=2)
    figure.update_yaxes(title="by DFA", row=1, col=2)
    return finish(figure, theme, f"{_title(result)}: features of layer {result.manifest['layer']}", 420)


def directions_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Directions that the top features of each head write, with intervals, beside as many features at random."""
    rows: Any = result.table
    heads = [f"{a}.{b}" for a, b in zip(rows["layer"], rows["head"], strict=True)]
    error = {
        "type": "data", "array": (rows["high"] - rows["score"]).tolist(),
        "arrayminus": (rows["score"] - rows["low"]).tolist(),
    }  # fmt: skip
    figure = go.Figure(_beside(heads, rows, "random features", theme, error))
    figure.update_yaxes(title=f"directions, 1 to {result.manifest['settings']['k']}", rangemode="tozero")
    return finish(figure, theme, _title(result), 400)


def recursive_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """The largest parts of each step, and the mean of the same parts at the other tokens."""
    table: Any = result.table
    said = result.manifest["steps"]
    titles = [
        plain(f"{_reader(s)} at {s['query']} from {s['tokens'][1]!r} at {s['source']}: {s['value']:.3g}") for s in said
    ]
    figure = make_subplots(rows=len(said), cols=1, subplot_titles=titles, vertical_spacing=0.25 / len(said))
    for n in range(len(said)):
        rows = table[table["step"] == n]
        rows = rows.loc[rows["score"].abs().sort_values(ascending=False).index[:PARTS_SHOWN]]
        names = [_part(r) for r in rows.to_dict("records")]
        for trace in _beside(names, rows, "other tokens", theme, None, shown=n == 0):
            figure.add_trace(trace, row=n + 1, col=1)
    return finish(figure, theme, _title(result), 120 + 260 * len(said))


def long_prefix_figure(result: Result, *, most: int = 8, theme: str = "light") -> go.Figure:
    """Attention by length of the prefix of the tagged heads (or the highest), whole and with the prefix cut to 1; the control in grey.

    Args:
        result: of `interp.saes.long_prefix`.
        most: heads of each kind.
        theme: "light" or "dark".

    Raises:
        OptionError: most below 1.
    """
    if most < 1:
        raise OptionError(f"most must be at least 1; got {most}")
    table: Any = result.table
    best = table.groupby(["layer", "head", "kind"], as_index=False)["score"].max().sort_values("score", ascending=False)
    kinds = [k for k in ("long prefix", "short prefix") if (best["kind"] == k).any()] or [""]
    figure = make_subplots(
        rows=1, cols=len(kinds), subplot_titles=[k or "highest heads" for k in kinds], shared_yaxes=True
    )
    for n, kind in enumerate(kinds):
        heads = best[best["kind"] == kind].head(most)
        for (layer, head), colour in zip(heads[["layer", "head"]].to_numpy(), steps(len(heads)), strict=True):
            rows = table[(table["layer"] == layer) & (table["head"] == head)]
            name = f"{layer}.{head}"
            for column, dash in (("score", "solid"), ("corrupted", "dot")):
                line = go.Scatter(
                    x=rows["prefix"], y=rows[column], mode="lines+markers", name=name if dash == "solid" else f"{name}, cut to 1",
                    legendgroup=name, line={"color": colour, "dash": dash},
                    hovertemplate=f"{name}, P = %{{x}}: %{{y:.3f}}<extra>{column}</extra>",
                )  # fmt: skip
                figure.add_trace(line, row=1, col=n + 1)
        mine = table.merge(heads[["layer", "head"]], on=["layer", "head"])
        control = mine.groupby("prefix")["control"].max()
        grey = go.Scatter(
            x=control.index, y=control, mode="lines", name="control, largest", line={"color": GREY.get(theme), "dash": "dash"},
            showlegend=n == 0,
        )  # fmt: skip
        figure.add_trace(grey, row=1, col=n + 1)
    figure.update_xaxes(title="tokens of the repeated prefix")
    figure.update_yaxes(title="attention to what followed it", range=[0, 1], row=1, col=1)
    return finish(figure, theme, _title(result), 440)


def prefix_on_text_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """Attention of each head at the cells that were tried: as it was, with the match cut to one token, and with another token replaced."""
    rows: Any = result.table
    heads = [f"{a}.{b}" for a, b in zip(rows["layer"], rows["head"], strict=True)]
    before = go.Bar(x=heads, y=rows["before"].tolist(), name="as it was", marker={"color": steps(3)[1]})
    figure = go.Figure([before, *_beside(heads, rows, "another token replaced", theme, None)])
    figure.data[1].name = "match cut to 1"
    figure.update_xaxes(type="category")
    figure.update_yaxes(title="attention")
    return finish(figure, theme, _title(result), 400)


def ioi_figure(result: Result, *, theme: str = "light") -> go.Figure:
    """What each patch keeps of the difference of logits, or what each feature's ablation takes from it; controls beside."""
    rows: Any = result.table
    patches = "version" in rows.columns
    names = rows["version"].tolist() if patches else [f"feature {f}" for f in rows["feature"]]
    error = {"type": "data", "array": rows["spread"].tolist()} if patches else None
    figure = go.Figure(_beside(names, rows, "the token in front of S2", theme, error))
    figure.update_yaxes(title="share of the logit difference kept" if patches else "logits lost")
    clean = f"logit difference without it {result.manifest['clean']:.2f}"
    return finish(figure, theme, f"{_title(result)}: {clean}", 400)


def _beside(
    names: Sequence[str], rows: Any, control: str, theme: str, error: dict[str, Any] | None, *, shown: bool = True
) -> list[go.Bar]:
    """Bars of score and of control, NaN left out by plotly."""
    ink = {"color": INK.get(theme)}
    bars = {"x": [plain(n) for n in names], "showlegend": shown}
    return [
        go.Bar(**bars, y=rows["score"].tolist(), name="measured", marker=ink, error_y=error),
        go.Bar(**bars, y=np.asarray(rows["control"]).tolist(), name=control, marker={"color": GREY.get(theme)}),
    ]


def _part(row: dict[str, Any]) -> str:
    if row["part"] == "head":
        return f"{row['layer']}.{row['head']}"
    return row["part"] if row["layer"] < 0 else f"{row['part']} {row['layer']}"


def _reader(step: dict[str, Any]) -> str:
    return "the feature" if step["head"] is None else f"head {step['layer']}.{step['head']}"


def _title(result: Result) -> str:
    return title_of(result).removeprefix("saes.")
