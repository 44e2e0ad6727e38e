"""Entropy reports, runs, monitors and kept trainings, read as an `EntropySource`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.capture.call import Attended, AttentionCall
from interp.capture.run import Run
from interp.capture.sites import Site
from interp.capture.sweep import ColumnCollect, column_sums
from interp.entropy.detector import COLLAPSED, COLLAPSED_REST
from interp.entropy.experiments.config import Variant
from interp.entropy.experiments.sweep import alarm_of, finished, losses_of, read_experiment, readings_of
from interp.entropy.health import QUANTITIES
from interp.entropy.monitor import Monitor
from interp.entropy.reading import Reading
from interp.entropy.report import nanmean, position_edges
from interp.errors import OptionError
from interp.results import Result
from interp.stats.catalogue import find
from interp.stats.spread import STATISTICS as SPREAD
from interp.widgets.views.entropy_source import (
    STEPS,
    EntropyProfile,
    EntropyQuantity,
    EntropySource,
    EntropyTrack,
    thinned,
)

COSTLY: Final = 4096
"""Tokens from which the distance profile of a head is made only when it is locked: it reads the whole map once."""
UNIT: Final = (0.0, 1.0)
NORMALISED: Final = ("score", "normalised", "ratio_of_means", "rest_normalised", "max_probability", "sink_mass")
FIRST: Final = ("normalised_entropy", "entropy", "effective_keys", "non_sink_entropy", "max_probability")
TOLD: Final = {
    "entropy": "mean entropy / log n",
    "entropy_q10": "entropy / log n, 10 % of rows",
    "entropy_q50": "median entropy / log n",
    "entropy_q90": "entropy / log n, 90 % of rows",
    "rest_q50": "median without the first key",
    "sink_mass": "mass on the first key",
    "sink_output": "what comes out of the first key",
    "rho_q50": "logit norm, median",
    "rho_q99": "logit norm, 99 %",
    "max_logit": "largest logit",
    "qk_norm": "norm of W_Q W_K",
}
LIMITS: Final = {
    "entropy": (COLLAPSED, f"collapsed heads: median below {COLLAPSED:g}"),
    "entropy_q50": (COLLAPSED, f"collapsed below {COLLAPSED:g}"),
    "rest_q50": (COLLAPSED_REST, f"collapsed below {COLLAPSED_REST:g}"),
}


def of_report(result: Result) -> EntropySource:
    """Read a result of `interp.entropy.report`."""
    table: Any = result.table
    layers = tuple(sorted(int(x) for x in table["layer"].unique()))
    heads = int(table["head"].max()) + 1
    names = [c for c in table.columns if c not in ("layer", "head", "spread", "control") and _is_number(table[c])]
    values = {name: _grid(table, name, layers, heads)[None] for name in names}
    quantities = tuple(
        EntropyQuantity(
            name=name,
            title="normalised entropy" if name == "score" else name.replace("_", " "),
            span=UNIT if name in NORMALISED else None,
        )
        for name in names
    )
    control = {"score": _grid(table, "control", layers, heads)}
    track = EntropyTrack(steps=np.zeros(1, np.int64), values=values, control=control)
    arrays, profiles = result.arrays, {}
    if "by_position" in arrays:
        profiles["position"] = EntropyProfile(
            title="normalised entropy by position",
            x_title="position of the row",
            y_title="entropy / log n",
            labels=_ranges(arrays["position_edges"].tolist()),
            names=("whole row", "without first token"),
            control=False,
            curves=_curves([arrays["by_position"], arrays["rest_by_position"]], layers),
            overall=True,
            top=1.0,
        )
    if "by_length" in arrays:
        profiles["length"] = EntropyProfile(
            title="normalised entropy by length",
            x_title="tokens of the text",
            y_title="entropy / log n",
            labels=tuple(str(n) for n in arrays["lengths"].tolist()),
            names=("whole row",),
            control=False,
            curves=_curves([arrays["by_length"]], layers),
            overall=True,
            top=1.0,
        )
    return EntropySource(
        layers=layers,
        heads=heads,
        quantities=quantities,
        tracks={"report": lambda: track},
        profiles=profiles,
        exact="Every entropy is exact; curves are means over the rows of each range of positions.",
    )


def of_run(run: Run) -> EntropySource:
    """Read a run of one text: its entropies, and the distance profile of every head, made when it is asked for.

    Raises:
        OptionError: several texts, or no entropy was measured.
    """
    known = {s.name for s in SPREAD}
    names = [n for n in run.stats if n in known and run.stats[n].ndim == 3]
    if len(run) > 1 or not names:
        raise OptionError(
            "EntropyView shows a run of one text that measured entropies; take one text, run[b], or run again"
        )
    names.sort(key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))
    quantities = tuple(
        EntropyQuantity(
            name=s.name, title=s.title, unit=s.unit, span=UNIT if (s.scale.low, s.scale.high) == UNIT else None
        )
        for s in find(names)
    )
    values = {n: run.stats[n].double().nanmean(-1).float().cpu().numpy()[None] for n in names}
    track = EntropyTrack(steps=np.zeros(1, np.int64), values=values)
    profiles = {}
    if all(run.record(layer).k is not None for layer in run.layers):
        rows, keys = run.attention[run.layers[0], 0].shape
        profiles["distance"] = EntropyProfile(
            title="distance profile",
            x_title="how far back (tokens)",
            y_title="share of attention",
            labels=_ranges(position_edges(max(rows, keys))),
            names=("this head", "spread evenly"),
            control=True,
            curves=lru_cache(maxsize=256)(partial(_distances, run)),
            overall=False,
            costly=keys > COSTLY,
        )
    if "normalised_entropy" in run.stats:
        rows = run.stats["normalised_entropy"].double().cpu().numpy()
        edges = position_edges(rows.shape[-1])
        means = np.stack([nanmean(rows[..., a:b], (-1,)) for a, b in pairwise(edges)], -1)
        profiles["position"] = EntropyProfile(
            title="normalised entropy by position",
            x_title="position of the row",
            y_title="entropy / log n",
            labels=_ranges(edges),
            names=("whole row",),
            control=False,
            curves=_curves([means], run.layers),
            overall=True,
            top=1.0,
        )
    return EntropySource(
        layers=run.layers,
        heads=run.heads,
        quantities=quantities,
        tracks={"this text": lambda: track},
        profiles=profiles,
        exact="Every number is exact: the distance profile sums the whole map by distance, in ranges that double.",
    )


def of_monitor(monitor: Monitor) -> EntropySource:
    """Read what a monitor has measured so far; without tracks before its first reading."""
    readings = [r for r in monitor.readings if r.layers]
    rules = monitor.rules
    limits = {
        "entropy": (rules.collapsed, f"collapsed heads: median below {rules.collapsed:g}"),
        "entropy_q50": (rules.collapsed, f"collapsed below {rules.collapsed:g}"),
        "rest_q50": (rules.collapsed_rest, f"collapsed below {rules.collapsed_rest:g}"),
    }
    layers = tuple(sorted({layer.layer for r in readings for layer in r.layers}))
    heads = max((len(layer.entropy) for r in readings for layer in r.layers), default=0)
    alarms = tuple((a.step, a.message) for a in monitor.alarms)
    # Put together when a page asks: a training goes on meanwhile, and nobody may be looking.
    track = lru_cache(maxsize=1)(partial(_measured, readings, alarms, layers, heads))
    return _of_training(layers, heads, QUANTITIES, {"training": track} if readings else {}, limits)


def of_folder(folder: str | Path) -> EntropySource:
    """Read an experiment's folder, as `interp entropy train` writes it and `data/results` keeps it: one track for each finished training.

    Raises:
        CorruptFileError: no experiment.
        OptionError: no finished training with softmax attention and readings.
    """
    folder = Path(folder)
    experiment = read_experiment(folder)
    there = [v for v in finished(experiment, folder) if v.attention == "softmax" and len(readings_of(folder, v))]
    if not there:
        raise OptionError(f"{folder.name} holds no finished training whose attention has an entropy")
    first: Any = readings_of(folder, there[0])
    names = [n for n in QUANTITIES if n in first.columns]
    layers, heads = tuple(sorted(int(x) for x in first["layer"].unique())), int(first["head"].max()) + 1
    tracks = {v.name: lru_cache(maxsize=1)(partial(_kept, folder, v, names, layers, heads)) for v in there}
    return _of_training(layers, heads, names, tracks, LIMITS)


def _of_training(
    layers: tuple[int, ...],
    heads: int,
    names: Sequence[str],
    tracks: Mapping[str, Callable[[], EntropyTrack]],
    limits: Mapping[str, tuple[float, str]],
) -> EntropySource:
    shares = ("entropy", "entropy_q10", "entropy_q50", "entropy_q90", "rest_q50", "sink_mass")
    quantities = tuple(
        EntropyQuantity(name=n, title=TOLD[n], span=UNIT if n in shares else None, limit=limits.get(n)) for n in names
    )
    exact = f"Every reading is exact for the sequences that the monitor looked at; at most {STEPS} steps are shown, evenly spaced."
    return EntropySource(layers=layers, heads=heads, quantities=quantities, tracks=tracks, profiles={}, exact=exact)


def _measured(
    readings: Sequence[Reading], alarms: tuple[tuple[int, str], ...], layers: tuple[int, ...], heads: int
) -> EntropyTrack:
    """The track of a monitor's readings."""
    few = [readings[n] for n in thinned(len(readings), STEPS)]
    found = {name: np.full((len(few), len(layers), heads), np.nan, np.float32) for name in QUANTITIES}
    for n, reading in enumerate(few):
        for layer in reading.layers:
            for name in QUANTITIES:
                found[name][n, layers.index(layer.layer), : len(layer.entropy)] = getattr(layer, name)
    known = [(r.step, r.loss) for r in readings if r.loss is not None]
    loss = np.array([s for s, _ in known], float), np.array([x for _, x in known], float)
    return EntropyTrack(steps=np.array([r.step for r in few]), values=found, loss=loss, alarms=alarms)


def _kept(folder: Path, variant: Variant, names: Sequence[str], layers: tuple[int, ...], heads: int) -> EntropyTrack:
    """One kept training."""
    table: Any = readings_of(folder, variant)
    every = np.sort(table["step"].unique())
    steps = every[thinned(len(every), STEPS)]
    index = pd.MultiIndex.from_product([steps, layers, range(heads)], names=["step", "layer", "head"])
    by_head = table.set_index(["step", "layer", "head"]).reindex(index)
    losses, alarm = losses_of(folder, variant), alarm_of(folder, variant)
    return EntropyTrack(
        steps=steps.astype(np.int64),
        values={n: by_head[n].to_numpy(np.float32).reshape(len(steps), len(layers), heads) for n in names},
        loss=(np.arange(len(losses), dtype=float), losses),
        alarms=() if alarm is None else ((alarm, f"step {alarm}: first alarm that means collapse"),),
    )


def _distances(run: Run, layer: int | None, head: int | None) -> NDArray[np.float64]:
    """Share of a head's attention by distance |i - j|, and that of even attention under the same mask: float64 [2, range]."""
    if layer is None or head is None:
        raise OptionError("a distance profile is of one head; choose one")
    source = run.attention[layer, head].source
    call = AttentionCall(
        site=Site("self", layer), phase="prefill", q=source.q, k=source.k, v=source.k, mask=source.mask,
        scale=source.scale, softcap=source.softcap, sink_logits=None, edit=source.edit,
    )  # fmt: skip
    visible = call.visible_count().expand(source.lse.shape)
    # Logits of 0 everywhere: even attention, whatever the mask hides.
    nothing = source.q.new_zeros(*source.q.shape[:3], 1), source.k.new_zeros(*source.k.shape[:3], 1)
    even = AttentionCall(
        site=call.site, phase="prefill", q=nothing[0], k=nothing[1], v=nothing[1], mask=source.mask,
        scale=1.0, softcap=None, sink_logits=None,
    )  # fmt: skip
    rows = int((visible > 0).sum())
    return np.stack(
        [
            _by_distance(call, source.lse) / rows,
            _by_distance(even, visible.clamp(min=1).to(source.lse.dtype).log()) / rows,
        ]
    )


def _by_distance(call: AttentionCall, lse: torch.Tensor) -> NDArray[np.float64]:
    """Sum of the map over the ranges of `position_edges`."""
    attended = Attended(out=call.q, lse=lse, backend="none")
    everyone = torch.ones(1, call.queries, dtype=torch.bool, device=call.q.device)
    wanted = ColumnCollect(received=False, diagonals=True)
    sums = column_sums(call, attended, rows=everyone, collect=wanted)["diagonals"][0, 0, 0].double().cpu().numpy()
    distance = np.abs(np.arange(len(sums)) - (call.keys - 1))
    return np.array(
        [
            sums[(distance >= a) & (distance < b)].sum()
            for a, b in pairwise(position_edges(max(call.queries, call.keys)))
        ]
    )


def _curves(
    arrays: Sequence[NDArray[Any]], layers: tuple[int, ...]
) -> Callable[[int | None, int | None], NDArray[np.float64]]:
    """Curves of arrays [layer, head, place]."""

    def curves(layer: int | None, head: int | None) -> NDArray[np.float64]:
        if layer is None or head is None:
            return np.stack([nanmean(a, (0, 1)) for a in arrays])
        return np.stack([a[layers.index(layer), head] for a in arrays]).astype(np.float64)

    return curves


def _ranges(edges: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in pairwise(edges))


def _grid(table: Any, column: str, layers: tuple[int, ...], heads: int) -> NDArray[np.float32]:
    index = pd.MultiIndex.from_product([layers, range(heads)], names=["layer", "head"])
    return table.set_index(["layer", "head"])[column].reindex(index).to_numpy(np.float32).reshape(len(layers), heads)


def _is_number(column: Any) -> bool:
    return pd.api.types.is_numeric_dtype(column)
