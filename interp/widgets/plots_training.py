"""Pictures of a training's entropy: what a `Monitor` has read, as a figure and as one that follows the training; and an experiment's curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import OptionError
from interp.widgets.plots_heads import finish, steps

if TYPE_CHECKING:
    from interp.entropy.monitor import Monitor
    from interp.entropy.reading import Reading

ALARM: Final = {"light": "#b3261e", "dark": "#ffb4ab"}
LOSS: Final = {"light": "#3c4043", "dark": "#e8eaed"}
PANELS: Final = ("loss", "mean entropy / log n", "99 % of rows' logit norm ρ")
HEIGHT: Final = 640


def monitor_figure(monitor: Monitor, *, theme: str = "light") -> go.Figure:
    """Loss, each layer's mean entropy with the range of its heads' means, and logit norms over steps; alarms are lines across all three.

    Args:
        monitor: with at least one reading.
        theme: "light" or "dark".

    Raises:
        OptionError: nothing was measured yet, or an unknown theme.
    """
    if not any(reading.layers for reading in monitor.readings):
        raise OptionError(
            "the monitor has measured nothing yet; train a few steps first, or use .view(), which fills as it goes"
        )
    figure = _empty(len(_layers(monitor.readings)), theme)
    _fill(figure, list(monitor.readings), theme)
    return figure


def live_figure(monitor: Monitor, *, theme: str = "light", refresh: int = 1) -> Any:
    """The same figure as a widget that grows with the training.

    Args:
        monitor: with or without readings.
        theme: "light" or "dark".
        refresh: redraw at every so many readings.

    Raises:
        OptionError: an unknown theme, or refresh below 1.
    """
    if refresh < 1:
        raise OptionError(f"refresh: wanted at least 1, got {refresh}")
    widget = go.FigureWidget(_empty(0, theme))

    def grow(reading: Reading | None) -> None:
        readings = list(monitor.readings)
        if not readings or (reading is not None and len(readings) % refresh):
            return
        wanted = len(_layers(readings))
        with widget.batch_update():
            if len(widget.data) != _traces(wanted):
                widget.data = ()
                widget.add_traces(list(_empty(wanted, theme).data))
            _fill(widget, readings, theme)

    grow(None)
    monitor.on_reading(grow)
    return widget


def training_figure(
    runs: Sequence[tuple[str, pd.DataFrame, np.ndarray, int | None]], *, title: str, theme: str = "light"
) -> go.Figure:
    """Runs side by side: smoothed loss above, each layer's mean entropy below, the first alarm as a line.

    Args:
        runs: (name, the monitor's readings, loss of every step, step of the first alarm or None).
        title: of the whole.
        theme: "light" or "dark".
    """
    from interp.entropy.experiments.outcome import smoothed

    titles = [name for name, *_ in runs]
    figure = make_subplots(
        rows=2, cols=len(runs), shared_xaxes=True, shared_yaxes="rows", column_titles=titles, vertical_spacing=0.08,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    layers = max(int(readings["layer"].max()) + 1 for _, readings, *_ in runs)
    colours = steps(layers)
    for n, (_, readings, losses, alarm) in enumerate(runs, start=1):
        curve = go.Scatter(
            y=smoothed(losses), mode="lines", line={"color": LOSS.get(theme, LOSS["light"])}, showlegend=False
        )
        figure.add_trace(curve, row=1, col=n)
        means = readings.groupby(["layer", "step"])["entropy"].mean()
        for layer in range(layers):
            if layer in means.index.get_level_values(0):
                at: pd.Series = means.loc[layer]  # pyright: ignore[reportAssignmentType]
                line = go.Scatter(
                    x=at.index, y=at.to_numpy(), mode="lines", name=f"layer {layer}", legendgroup=str(layer), showlegend=n == 1,
                    line={"color": colours[layer]},
                )  # fmt: skip
                figure.add_trace(line, row=2, col=n)
        if alarm is not None:
            figure.add_vline(x=alarm, line={"color": ALARM.get(theme, ALARM["light"]), "dash": "dot"}, row="all", col=n)  # pyright: ignore[reportArgumentType]
    figure.update_yaxes(title="loss, nats", row=1, col=1).update_yaxes(title="mean entropy / log n", row=2, col=1)
    figure.update_yaxes(range=[0, 1.02], row=2).update_xaxes(title="step", row=2)
    return finish(figure, theme, title, 560)


def _layers(readings: Sequence[Reading]) -> dict[str, int]:
    """Path -> layer, of every layer that was ever read."""
    return {layer.path: layer.layer for reading in readings for layer in reading.layers}


def _traces(layers: int) -> int:
    return 2 + 3 * layers


def _empty(layers: int, theme: str) -> go.Figure:
    """The three panels with their traces, without data: loss and alarms, then for each layer its heads' range, mean and logit norm."""
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.3, 0.4, 0.3])
    figure.add_trace(
        go.Scatter(mode="lines", name="loss", line={"color": LOSS.get(theme, LOSS["light"])}), row=1, col=1
    )
    figure.add_trace(
        go.Scatter(
            mode="markers", name="alarm", hovertemplate="%{text}<extra></extra>",
            marker={"symbol": "triangle-down", "size": 11, "color": ALARM.get(theme, ALARM["light"])},
        ),
        row=2, col=1,
    )  # fmt: skip
    for layer, colour in enumerate(steps(layers)):
        name, group = f"layer {layer}", f"layer {layer}"
        soft = colour.replace("rgb(", "rgba(").replace(")", ", 0.12)")
        band = go.Scatter(
            mode="lines",
            fill="toself",
            fillcolor=soft,
            line={"width": 0},
            hoverinfo="skip",
            legendgroup=group,
            showlegend=False,
        )
        figure.add_trace(band, row=2, col=1)
        figure.add_trace(go.Scatter(mode="lines", name=name, legendgroup=group, line={"color": colour}), row=2, col=1)
        figure.add_trace(
            go.Scatter(mode="lines", legendgroup=group, showlegend=False, name=name, line={"color": colour}),
            row=3,
            col=1,
        )
    for row, title in enumerate(PANELS, start=1):
        figure.update_yaxes(title=title, row=row, col=1)
    figure.update_yaxes(range=[0, 1.05], row=2).update_yaxes(type="log", row=3).update_xaxes(title="step", row=3)
    return finish(figure, theme, "attention entropy in training", HEIGHT)


def _fill(figure: Any, readings: Sequence[Reading], theme: str) -> None:
    """Put the readings into the traces of `_empty`."""
    data, at = figure.data, np.array([reading.step for reading in readings])
    data[0].update(x=at, y=[np.nan if reading.loss is None else reading.loss for reading in readings])
    alarms = [alarm for reading in readings for alarm in reading.alarms]
    data[1].update(x=[a.step for a in alarms], y=[1.0] * len(alarms), text=[a.message for a in alarms])
    for n, path in enumerate(_layers(readings)):
        found = [(r.step, layer) for r in readings for layer in r.layers if layer.path == path]
        x = np.array([step for step, _ in found])
        low, mean, high = (np.array([f(layer.entropy) for _, layer in found]) for f in (np.min, np.mean, np.max))
        band, line, norm = data[2 + 3 * n : 5 + 3 * n]
        band.update(x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]))
        line.update(x=x, y=mean)
        norm.update(x=x, y=np.array([np.max(layer.rho_q99) for _, layer in found]))
