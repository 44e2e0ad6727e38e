"""Pictures of a training's entropy: what a `Monitor` has read, as a figure and as one that follows the training; and an experiment's curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.entropy.experiments.outcome import smoothed
from interp.entropy.experiments.sweep import alarm_of, finished, losses_of, read_experiment, readings_of
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
    widget: Any = go.FigureWidget(_empty(0, theme))

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
    folder: str | Path, *, learning_rate: float | None = None, seed: int | None = None, theme: str = "light"
) -> go.Figure:
    """The trainings of one learning rate and seed side by side: smoothed loss above, entropy of every head below, the first alarm as a line.

    Args:
        folder: of an experiment, as `interp entropy train` writes it.
        learning_rate: None takes the largest.
        seed: None takes the first.
        theme: "light" or "dark".

    Raises:
        OptionError: no finished training with entropies at this learning rate and seed, or an unknown theme.
    """
    folder = Path(folder)
    experiment = read_experiment(folder)
    rate = max(experiment.learning_rates) if learning_rate is None else learning_rate
    first = experiment.seeds[0] if seed is None else seed
    runs = [
        run
        for run in finished(experiment, folder)
        if (run.learning_rate, run.seed, run.attention) == (rate, first, "softmax")
    ]
    if not runs:
        raise OptionError(
            f"{folder.name} holds no finished training at learning rate {rate:g} and seed {first}; "
            f"it is of learning rates {', '.join(f'{x:g}' for x in experiment.learning_rates)} and seeds {experiment.seeds}"
        )
    decays = len(experiment.weight_decays) > 1
    titles = [f"{run.remedy}, weight decay {run.weight_decay:g}" if decays else run.remedy for run in runs]
    figure = make_subplots(
        rows=2, cols=len(runs), shared_xaxes=True, shared_yaxes=True, column_titles=titles, vertical_spacing=0.08
    )
    colours = steps(experiment.layers)
    for n, run in enumerate(runs, start=1):
        losses = smoothed(losses_of(folder, run))
        curve = go.Scatter(y=losses, mode="lines", line={"color": LOSS.get(theme, LOSS["light"])}, showlegend=False)
        figure.add_trace(curve, row=1, col=n)
        readings = readings_of(folder, run)
        for layer in range(experiment.layers):
            mine: Any = readings[readings["layer"] == layer].pivot(index="step", columns="head", values="entropy")
            heads = len(mine.columns)
            # One trace for all heads of a layer: a missing value parts one head from the next.
            x = np.tile(np.append(mine.index.to_numpy(float), np.nan), heads)
            y = np.concatenate([np.append(mine[head].to_numpy(), np.nan) for head in mine.columns])
            line = go.Scatter(
                x=x, y=y, mode="lines", name=f"layer {layer}", legendgroup=str(layer), showlegend=n == 1,
                line={"color": colours[layer], "width": 1.2}, opacity=0.8,
            )  # fmt: skip
            figure.add_trace(line, row=2, col=n)
        alarm = alarm_of(folder, run)
        for row in (1, 2) if alarm is not None else ():
            dotted = {"color": ALARM.get(theme, ALARM["light"]), "dash": "dot"}
            figure.add_vline(x=alarm, line=dotted, row=row, col=n)  # pyright: ignore[reportArgumentType] (its stub knows "all" only)
    figure.update_yaxes(title="loss, nats", row=1, col=1).update_yaxes(title="entropy / log n, each head", row=2, col=1)
    figure.update_yaxes(range=[0, 1.02], row=2).update_xaxes(title="step", row=2)
    return finish(figure, theme, f"{experiment.name}: learning rate {rate:g}, seed {first}; dotted: first alarm", 560)


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
