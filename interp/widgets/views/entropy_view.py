"""`EntropyView`: entropy of every head: by head, by layer, over the steps of a training, by position and by distance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from interp.capture.run import Run
from interp.entropy.monitor import Monitor
from interp.entropy.report import nanmean
from interp.errors import OptionError
from interp.results import Result
from interp.widgets.views.base import View
from interp.widgets.views.canvas import SCALE, SOFT, Canvas
from interp.widgets.views.entropy_reading import of_folder, of_monitor, of_report, of_run
from interp.widgets.views.entropy_source import EntropySource, EntropyTrack, serve
from interp.widgets.views.plates import draw_heads, draw_lines, ramp_colours
from interp.widgets.views.protocol import readable
from interp.widgets.views.selection import Selection

SAVED_HEADS: Final = 400
"""Heads up to which a saved page answers the profiles of each one."""


class EntropyView(View):
    """Entropies of all heads at one step, their course over layers and steps, and profiles of one head.

    Over a training a scrubber moves through the measured steps, beside the loss, the detector's alarms and the line below which a head counts as
    collapsed. A report shows entropy by position and by length, a run the share of attention by distance, beside that of even attention.

    Args:
        given: a result of `interp.entropy.report`, a run of one text, a `Monitor`, or the folder of an experiment.
        quantity: which one to open on; None for the first.
        track: which training of an experiment to open on; None for the first.
        title: one line above; None says what is shown.
        link: the bus that this view shares with others.

    Raises:
        OptionError: another kind of result, a run without entropies, or no such quantity or training.
        CorruptFileError: the folder holds no experiment.
    """

    NAME = "EntropyView"
    MODULES = ("views/heat", "views/curves", "views/entropy_view")
    STYLES = ("head_grid", "curves", "entropy_view")
    serve = staticmethod(serve)

    def __init__(
        self,
        given: Result | Run | Monitor | EntropySource | str | Path,
        *,
        quantity: str | None = None,
        track: str | None = None,
        title: str = "Attention entropy",
        link: Selection | None = None,
    ) -> None:
        source = _source(given)
        self.quantity = source.quantity(quantity or source.quantities[0].name).name
        if track is not None and track not in source.tracks:
            raise OptionError(f"no training {track!r} here; there are: {', '.join(source.tracks)}")
        self.track = track
        super().__init__(source, title=title, payload=_payload(source, self.quantity, track), link=link)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """Every track and quantity; profiles of all heads together and, unless there are very many or each is slow, of each head."""
        source: EntropySource = self.source
        for track in source.tracks:
            yield {"op": "track", "track": track}
            found = source.tracks[track]().values
            yield from (
                {"op": "values", "track": track, "quantity": q.name} for q in source.quantities if q.name in found
            )
        for name, profile in source.profiles.items():
            if profile.overall:
                yield {"op": "profile", "profile": name, "layer": None, "head": None}
            every = len(source.layers) * source.heads <= SAVED_HEADS and not profile.costly
            chosen = self.selected
            for layer in source.layers:
                for head in range(source.heads):
                    if every or (layer, head) == chosen:
                        yield {"op": "profile", "profile": name, "layer": layer, "head": head}

    def data(self) -> pd.DataFrame:
        """One row per step, layer and head of the track that it opened on, a column for every quantity."""
        track = _first(self.source, self.track)
        return pd.DataFrame() if track is None else self.source.frame(track)

    def picture(self) -> Image.Image:
        """The last step by head of the track that it opened on, and its course over steps or layers."""
        return _picture(self.source, self.quantity, self.track, self.title, self.selected)

    def follow(self, monitor: Monitor, *, refresh: int = 1) -> None:
        """Take in the further readings of a monitor as the training goes on, at every `refresh`-th of them.

        Raises:
            OptionError: refresh below 1.
        """
        if refresh < 1:
            raise OptionError(f"refresh: wanted at least 1, got {refresh}")
        heard = count(1)

        def grow(_reading: object) -> None:
            if next(heard) % refresh:
                return
            source = of_monitor(monitor)
            self.show(source, title=self.title, payload=_payload(source, self.quantity, self.track))

        monitor.on_reading(grow)


def _source(given: Result | Run | Monitor | EntropySource | str | Path) -> EntropySource:
    if isinstance(given, EntropySource):
        return given
    if isinstance(given, Run):
        return of_run(given)
    if isinstance(given, Monitor):
        return of_monitor(given)
    if isinstance(given, Result):
        if given.kind != "entropy":
            raise OptionError(f"EntropyView shows results of interp.entropy.report; got a result {given.kind!r}")
        return of_report(given)
    return of_folder(given)


def _first(source: EntropySource, track: str | None) -> str | None:
    """The track to open on, None where nothing is measured yet."""
    return next(iter(source.tracks), None) if track is None else track


def _payload(source: EntropySource, quantity: str, track: str | None = None) -> dict[str, Any]:
    return {
        "layers": list(source.layers),
        "heads": source.heads,
        "tracks": list(source.tracks),
        "track": _first(source, track),
        "quantities": [
            {"name": q.name, "title": q.title, "unit": q.unit, "limit": None if q.limit is None else list(q.limit)}
            for q in source.quantities
        ],
        "first": quantity,
        "profiles": [
            {
                "name": name,
                "title": p.title,
                "xTitle": p.x_title,
                "yTitle": p.y_title,
                "labels": list(p.labels),
                "names": [readable(n) for n in p.names],
                "control": p.control,
                "overall": p.overall,
                "costly": p.costly,
                "top": p.top,
            }
            for name, p in source.profiles.items()
        ],
        "exact": source.exact,
    }


def _picture(
    source: EntropySource, name: str, opened: str | None, title: str, locked: tuple[int, int] | None
) -> Image.Image:
    told = _first(source, opened)
    if told is None:
        canvas = Canvas(420, 60)
        canvas.text(14, 10, title, size=14)
        canvas.text(14, 32, "nothing is measured yet", colour=SOFT)
        return canvas.image
    quantity = source.quantity(name)
    track = source.tracks[told]()
    if name not in track.values:
        name = next(iter(track.values))
        quantity = source.quantity(name)
    low, high, _ = source.range_of(name, track)
    canvas = Canvas(900, 540)
    canvas.text(14, 10, title, size=14)
    step = f", step {track.steps[-1]}" if len(track.steps) > 1 else ""
    canvas.text(14, 30, f"{quantity.title}{f' ({quantity.unit})' if quantity.unit else ''}: {told}{step}", colour=SOFT)
    below = draw_heads(canvas, (14, 56), track.values[name][-1], source.layers, low=low, high=high, locked=locked)
    right = _course(canvas, source, track, name, (low, high))
    foot = max(below, right + 6)
    canvas.paragraph(14, foot, f"{source.exact} Attention weight is not causal effect.", columns=140)
    return canvas.image.crop((0, 0, canvas.image.width, min((foot + 40) * SCALE, canvas.image.height)))


def _course(canvas: Canvas, source: EntropySource, track: EntropyTrack, name: str, span: tuple[float, float]) -> int:
    values, limit = track.values[name], source.quantity(name).limit
    if len(track.steps) > 1:
        by_layer = nanmean(values, (2,))
        colours = ramp_colours(len(source.layers))
        lines = {f"layer {x}": (by_layer[:, n], colours[n]) for n, x in enumerate(source.layers)}
        names = [f"step {track.steps[0]}", f"step {track.steps[-1]}"]
        return draw_lines(
            canvas,
            (460, 56),
            lines,
            track.steps,
            title="mean over heads, over steps",
            range_y=span,
            names=names,
            limit=limit,
        )
    lines = {"mean over heads": (nanmean(values[0], (1,)), ramp_colours(1)[0])}
    if name in track.control:
        lines = {"random tokens": (np.asarray(nanmean(track.control[name], (1,))), (150, 155, 165)), **lines}
    names = [f"layer {source.layers[0]}", f"layer {source.layers[-1]}"]
    return draw_lines(canvas, (460, 56), lines, source.layers, title="by layer", range_y=span, names=names, limit=limit)
