"""Pictures of a training's entropy: what a `Monitor` has read, and the curves of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.entropy.detector import collapsed
from interp.entropy.experiments.outcome import MEANING_COLLAPSE, smoothed
from interp.entropy.experiments.sinks import EPSILONS, TOKENS
from interp.entropy.experiments.sweep import alarm_of, finished, losses_of, read_experiment, readings_of
from interp.errors import OptionError
from interp.widgets.colours import colourscale
from interp.widgets.figures import plain
from interp.widgets.plots_heads import finish, steps

if TYPE_CHECKING:
    from interp.entropy.detector import Alarm, Rules
    from interp.entropy.experiments.config import Variant
    from interp.entropy.monitor import Monitor
    from interp.entropy.reading import Reading

ALARM: Final = {"light": "#b3261e", "dark": "#ffb4ab"}
LOSS: Final = {"light": "#3c4043", "dark": "#e8eaed"}
PANELS: Final = ("loss", "mean entropy / log n", "layer.head", "logit norm ρ, 99 %")
HEIGHT: Final = 860
REMEDIES: Final = {"none": "no remedy", "sigma_reparam": "sigmaReparam", "qk_norm": "QK-norm"}
DASHES: Final = {"softmax": "solid", "sigmoid": "dash"}
COLUMNS: Final = 200
"""Readings that the map of heads shows, evenly spaced where there are more."""


def monitor_figure(monitor: Monitor, *, theme: str = "light") -> go.Figure:
    """Loss, each layer's mean entropy, every head's entropy, and logit norms over steps, under a line that says where the training stands.

    Alarms are triangles; the first one that means collapse is a line across all panels.

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
    figure = _empty(list(_layers(monitor.readings).values()), theme)
    said = _fill(figure, monitor, theme)
    return finish(figure, theme, "", HEIGHT).update_layout(title={"text": said})


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
    swept = {
        "remedy": len(experiment.remedies) > 1,
        "condition": len(experiment.conditions) > 1,
        "weight_decay": len(experiment.weight_decays) > 1,
    }
    told = [name for name, differs in swept.items() if differs] or ["remedy"]
    titles = [", ".join(_told(run, name) for name in told) for run in runs]
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


def _told(run: Variant, name: str) -> str:
    """One of the things that tell runs apart, in words."""
    if name == "weight_decay":
        return f"weight decay {run.weight_decay:g}"
    return REMEDIES[run.remedy] if name == "remedy" else run.condition.replace("_", " ")


def sinks_training_figure(folder: str | Path, *, eps: float = 0.3, theme: str = "light") -> go.Figure:
    """Sink_1 and the first key's mean share over the steps of every training, one column for each weight decay.

    Args:
        folder: of an experiment that measured sinks, as `interp entropy train` writes it.
        eps: share of the attention from which a head has a sink; one of those measured (Gu et al. 2025 use 0.3).
        theme: "light" or "dark".

    Raises:
        OptionError: no sinks were measured, not at this eps, or an unknown theme.
    """
    path = Path(folder) / "sinks.csv"
    if not path.exists():
        raise OptionError(f"{path.parent.name} holds no sinks over training; its experiment needs sinks_every above 0")
    table, column = pd.read_csv(path), f"sink_1_{eps:g}"
    if column not in table:
        raise OptionError(f"eps: wanted one of {', '.join(f'{e:g}' for e in EPSILONS)}; got {eps!r}")
    decays = sorted(table["weight_decay"].unique())
    titles = [f"weight decay {decay:g}" for decay in decays]
    figure = make_subplots(rows=2, cols=len(decays), shared_xaxes=True, shared_yaxes=True, column_titles=titles)
    rates = sorted(table["learning_rate"].unique())
    colours = dict(zip(rates, steps(len(rates) + 1), strict=False))
    runs: Any = table.groupby(["weight_decay", "learning_rate", "attention", "seed"])
    for (decay, rate, attention, seed), run in runs:
        line = {"color": colours[rate], "dash": DASHES[attention]}
        for row, name in enumerate((column, "alpha_1"), start=1):
            drawn = go.Scatter(
                x=run["step"], y=run[name], line=line, mode="lines+markers", marker={"size": 4}, legendgroup=f"{rate}{attention}",
                name=f"{attention}, learning rate {rate:g}", showlegend=(row, decay, seed) == (1, decays[0], table["seed"].min()),
            )  # fmt: skip
            figure.add_trace(drawn, row=row, col=decays.index(decay) + 1)
    uniform = sum(1 / n for n in range(1, TOKENS + 1)) / TOKENS
    figure.add_hline(y=uniform, line={"dash": "dot", "color": LOSS.get(theme, LOSS["light"])}, row=2)  # pyright: ignore[reportArgumentType] (its stub knows "all" only)
    figure.update_yaxes(rangemode="tozero").update_xaxes(title="step", row=2)
    figure.update_yaxes(title=f"Sink_1, eps = {eps:g}", row=1, col=1).update_yaxes(title="mean alpha_1", row=2, col=1)
    return finish(figure, theme, "sinks over training; below, dotted: heads that spread evenly", 560)


def _layers(readings: Sequence[Reading]) -> dict[str, int]:
    """Path -> number of heads, of every layer that was ever read."""
    return {layer.path: len(layer.entropy) for reading in readings for layer in reading.layers}


def _empty(heads: Sequence[int], theme: str) -> go.Figure:
    """The four panels with their traces, without data: loss, alarms and the map of heads, then of each layer its entropy and logit norm.

    Args:
        heads: of each layer.
        theme: "light" or "dark".
    """
    figure = make_subplots(
        rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.035, row_heights=[0.22, 0.26, 0.3, 0.22]
    )
    ink, red = LOSS.get(theme, LOSS["light"]), ALARM.get(theme, ALARM["light"])
    figure.add_trace(go.Scatter(mode="lines", name="loss", line={"color": ink}), row=1, col=1)
    marks = {"symbol": "triangle-down", "size": 11, "color": red}
    figure.add_trace(
        go.Scatter(mode="markers", name="alarm", marker=marks, hovertemplate="%{text}<extra></extra>"), row=2, col=1
    )
    figure.add_trace(
        go.Heatmap(
            colorscale=colourscale(), zmin=0, zmax=1, hovertemplate="step %{x}, head %{y}: %{z:.3f}<extra></extra>",
            colorbar={"title": {"text": "entropy<br>/ log n"}, "len": 0.3, "y": 0.37, "thickness": 12, "outlinewidth": 0},
        ),
        row=3, col=1,
    )  # fmt: skip
    for layer, colour in enumerate(steps(len(heads))):
        line = {"color": colour, "width": 2}
        for row, shown in ((2, True), (4, False)):
            drawn = go.Scatter(mode="lines", name=f"layer {layer}", legendgroup=str(layer), showlegend=shown, line=line)
            figure.add_trace(drawn, row=row, col=1)
    for row, title in enumerate(PANELS, start=1):
        figure.update_yaxes(title=title, row=row, col=1)
    names = [f"{layer}.{head}" for layer, count in enumerate(heads) for head in range(count)]
    starts = [f"{layer}.0" for layer in range(len(heads))]
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=names[::-1], tickvals=starts, showgrid=False, row=3
    )
    figure.update_yaxes(range=[0, 1.05], row=2).update_yaxes(type="log", row=4).update_xaxes(title="step", row=4)
    return figure


def _fill(figure: Any, monitor: Monitor, theme: str) -> str:
    """Put the readings into the traces of `_empty`, and say where the training stands."""
    readings, data = list(monitor.readings), figure.data
    at = np.array([reading.step for reading in readings])
    data[0].update(x=at, y=[np.nan if reading.loss is None else reading.loss for reading in readings])
    alarms = [alarm for reading in readings for alarm in reading.alarms]
    data[1].update(x=[a.step for a in alarms], y=[1.0] * len(alarms), text=[a.message for a in alarms])
    few = [readings[n] for n in np.unique(np.linspace(0, len(readings) - 1, COLUMNS).round().astype(int))]
    rows: list[np.ndarray[Any, Any]] = []
    for n, (path, heads) in enumerate(_layers(readings).items()):
        found = [(r.step, layer) for r in readings for layer in r.layers if layer.path == path]
        x = np.array([step for step, _ in found])
        data[3 + 2 * n].update(x=x, y=np.array([np.mean(layer.entropy) for _, layer in found]))
        data[4 + 2 * n].update(x=x, y=np.array([np.max(layer.rho_q99) for _, layer in found]))
        there = [next((layer.entropy for layer in r.layers if layer.path == path), np.full(heads, np.nan)) for r in few]
        rows.append(np.stack(there, axis=1).astype(np.float32))
    names = [f"{n}.{head}" for n, heads in enumerate(_layers(readings).values()) for head in range(heads)]
    data[2].update(x=np.array([reading.step for reading in few]), y=names, z=np.concatenate(rows))
    red = ALARM.get(theme, ALARM["light"])
    line = {"color": red, "dash": "dot", "width": 1.5}
    first = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "line": line}
    figure.update_layout(
        shapes=[{**first, "x0": a.step, "x1": a.step} for a in alarms if a.kind in MEANING_COLLAPSE][:1]
    )
    return _headline(readings[-1], alarms, monitor.rules)


def _headline(last: Reading, alarms: Sequence[Alarm], rules: Rules) -> str:
    """Where the training stands, in a line, and the last alarm below it."""
    heads = sum(len(layer.entropy) for layer in last.layers)
    gone = sum(int(collapsed(layer, rules).sum()) for layer in last.layers)
    loss = "" if last.loss is None else f", loss {last.loss:.3f}"
    said = f"step {last.step}{loss}: {gone} of {heads} heads collapsed, {len(alarms) or 'no'} alarm{'s' * (len(alarms) != 1)}"
    return plain(said) + (f"<br><sup>{plain(alarms[-1].message)}</sup>" if alarms else "")
