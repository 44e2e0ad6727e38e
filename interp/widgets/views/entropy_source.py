"""Entropy of every head at one or many steps of a training, and its curves: what EntropyView shows, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError
from interp.widgets.payload import WIDE
from interp.widgets.views.protocol import Reply, answer, finite, one_of, readable, whole

STEPS: Final = 200
"""Measured steps that a view shows, evenly spaced where there are more."""
LOSSES: Final = 2000
"""Losses that a view shows, evenly spaced where there are more."""


@dataclass(frozen=True, kw_only=True)
class EntropyQuantity:
    """One number of every head.

    Attributes:
        name: of the column.
        title: as a reader is told it.
        unit: "" where there is none.
        span: ends of its range where it has one by definition, else None.
        limit: where a threshold is drawn, and what it means; None for none.
    """

    name: str
    title: str
    unit: str = ""
    span: tuple[float, float] | None = None
    limit: tuple[float, str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class EntropyTrack:
    """One model, at one step or over a training.

    Attributes:
        steps: growing [step].
        values: quantity -> float32 [step, layer, head], NaN where undefined.
        control: quantity -> the same on random tokens [layer, head], for those that have one.
        loss: steps and losses; empty where there are none.
        alarms: step and words of each.
    """

    steps: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float32]]
    control: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    loss: tuple[NDArray[np.float64], NDArray[np.float64]] = (np.empty(0), np.empty(0))
    alarms: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class EntropyProfile:
    """Curves of one head over something else than steps.

    Attributes:
        title, x_title, y_title: in words.
        labels: of the places along the axis.
        names: of the curves; the last one is the control where there is one.
        control: whether it is.
        curves: (layer, head), or (None, None) for the mean of all heads -> the curves [curve, place].
        overall: whether that mean can be asked for.
        costly: whether a head takes so long that only a locked one is asked for.
        top: upper end of the vertical axis, None for the largest value.
    """

    title: str
    x_title: str
    y_title: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    control: bool
    curves: Callable[[int | None, int | None], NDArray[np.float64]]
    overall: bool
    costly: bool = False
    top: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class EntropySource:
    """What EntropyView shows.

    Attributes:
        layers: the model's own numbers.
        heads: of each layer (the largest number, NaN beyond).
        quantities: the first is what the view opens on.
        tracks: by name; read when they are asked for.
        profiles: by name.
        exact: what of it is exact, in a sentence.
    """

    layers: tuple[int, ...]
    heads: int
    quantities: tuple[EntropyQuantity, ...]
    tracks: Mapping[str, Callable[[], EntropyTrack]]
    profiles: Mapping[str, EntropyProfile]
    exact: str

    def quantity(self, name: str) -> EntropyQuantity:
        """A quantity by its name. Raises OptionError, with all names, for one that is not here."""
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        raise OptionError(f"no quantity {name!r} here; there are: {', '.join(q.name for q in self.quantities)}")

    def range_of(self, name: str, track: EntropyTrack) -> tuple[float, float, bool]:
        """Ends of a quantity's colours, and whether they follow the logarithm; (nan, nan, False) where nothing is defined."""
        span = self.quantity(name).span
        if span is not None:
            return *span, False
        known = track.values[name][np.isfinite(track.values[name])]
        if not len(known):
            return float("nan"), float("nan"), False
        low, high = float(known.min()), float(known.max())
        return low, high, 0 < low * WIDE < high

    def frame(self, track: str) -> pd.DataFrame:
        """One row per step, layer and head of one track, a column for every quantity."""
        found = self.tracks[track]()
        index = pd.MultiIndex.from_product(
            [found.steps, self.layers, range(self.heads)], names=["step", "layer", "head"]
        )
        columns = {q.name: found.values[q.name].ravel() for q in self.quantities if q.name in found.values}
        return pd.DataFrame(columns, index=index).reset_index()


def thinned(length: int, limit: int) -> NDArray[np.int64]:
    """Indices of at most `limit` of so many things, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, limit)).round().astype(np.int64))


def _track_of(source: EntropySource, message: Mapping[str, Any]) -> EntropyTrack:
    return source.tracks[one_of(message, "track", list(source.tracks))]()


def _track(source: EntropySource, message: Mapping[str, Any]) -> Reply:
    track = _track_of(source, message)
    at, losses = track.loss
    few = thinned(len(at), LOSSES) if len(at) else np.empty(0, np.int64)
    said = {
        "alarms": [{"step": step, "text": readable(text)} for step, text in track.alarms],
        "quantities": [q.name for q in source.quantities if q.name in track.values],
    }
    return said, [x.astype("<f4").tobytes() for x in (track.steps, at[few], losses[few])]


def _values(source: EntropySource, message: Mapping[str, Any]) -> Reply:
    track = _track_of(source, message)
    name = one_of(message, "quantity", list(track.values))
    low, high, log = source.range_of(name, track)
    empty = np.full(track.values[name].shape[1:], np.nan)
    parts = [track.values[name], track.control.get(name, empty)]
    return {"low": finite(low), "high": finite(high), "log": log}, [
        np.ascontiguousarray(p, "<f4").tobytes() for p in parts
    ]


def _profile(source: EntropySource, message: Mapping[str, Any]) -> Reply:
    profile = source.profiles[one_of(message, "profile", list(source.profiles))]
    if message.get("layer") is None:
        if not profile.overall:
            raise OptionError(f"{profile.title} is of one head; choose one")
        curves = profile.curves(None, None)
    else:
        layer = whole(message, "layer", 0, max(source.layers) + 1)
        if layer not in source.layers:
            raise OptionError(f"no layer {layer} here; there are: {', '.join(map(str, source.layers))}")
        curves = profile.curves(layer, whole(message, "head", 0, source.heads))
    return {}, [np.ascontiguousarray(c, "<f4").tobytes() for c in curves]


OPERATIONS = {"track": _track, "values": _values, "profile": _profile}


def serve(source: EntropySource, message: object) -> Reply:
    """Answer EntropyView's page: a `track`'s steps, losses and alarms; the `values` of a quantity (float32 [step, layer, head]) and of its control
    [layer, head]; the curves of a `profile` of one head.
    """
    return answer(OPERATIONS, source, message)
