"""`SinkExplorer`: which heads rest on which keys: sink rates by head, layer and key, at any threshold, beside their controls and the norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd
from PIL import Image

from interp.capture.run import Run
from interp.entropy.report import nanmean
from interp.errors import OptionError
from interp.results import Result
from interp.sinks.alpha import PAPER_EPSILON
from interp.widgets.views.base import View
from interp.widgets.views.canvas import SCALE, SOFT, Canvas, figure
from interp.widgets.views.plates import draw_heads, draw_lines, ramp_colours
from interp.widgets.views.protocol import finite, readable
from interp.widgets.views.selection import Selection
from interp.widgets.views.sink_source import PLACES, SinkSource, serve, sink_source

SAVED_HEADS: Final = 400
"""Heads up to which a saved page answers the keys of each one."""


class SinkExplorer(View):
    """Attention sinks: the share of sequences in which a head's alpha passes a threshold (Gu et al. 2025), its mean by layer, and alpha by key.

    The threshold is a slider; conditions (natural text, random tokens, one repeated token; several measurements) stand beside each other; the
    key that counts is the first or the strongest behind it. Beside it, where they were measured: the norms of the first token's residual, key
    and value over those of the others.

    Args:
        given: a result of `interp.sinks.report`, a run of one text with collect=["alpha"], or a dict of them by name: {"with BOS": a, "without": b}.
        threshold: the slider's start.
        title: one line above.
        link: the bus that this view shares with others.

    Raises:
        OptionError: another kind of result, a run without alpha, measurements of different heads, or a threshold outside 0 to 1.
    """

    NAME = "SinkExplorer"
    MODULES = ("views/heat", "views/curves", "views/sink_explorer")
    STYLES = ("head_grid", "curves", "sink_explorer")
    serve = staticmethod(serve)

    def __init__(
        self,
        given: Result | Run | Mapping[str, Result | Run],
        *,
        threshold: float = PAPER_EPSILON,
        title: str = "Attention sinks",
        link: Selection | None = None,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise OptionError(f"threshold must be a weight from 0 to 1; got {threshold}")
        source, self.threshold = sink_source(given), threshold
        super().__init__(source, title=title, payload=_payload(source, threshold), link=link)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """All heads of every condition; keys of all heads together and, unless there are very many, of each in the first condition."""
        source: SinkSource = self.source
        for condition in source.conditions:
            yield from ({"op": "heads", "condition": condition, "place": place} for place in PLACES)
            yield {"op": "keys", "condition": condition, "layer": None, "head": None}
        if len(source.layers) * source.heads <= SAVED_HEADS:
            first = next(iter(source.conditions))
            for layer in source.layers:
                for head in range(source.heads):
                    yield {"op": "keys", "condition": first, "layer": layer, "head": head}

    def data(self) -> pd.DataFrame:
        """One row per condition and head: alpha of the first key and of the strongest behind it, and the rates at the view's threshold."""
        return self.source.frame(self.threshold)

    def picture(self) -> Image.Image:
        """Rates of the first condition by head, and by layer of all."""
        return _picture(self.source, self.threshold, self.title, self.selected)


def _payload(source: SinkSource, threshold: float) -> dict[str, Any]:
    hidden = [
        {
            "layer": int(row["layer"]),
            "head": int(row["head"]),
            "key": int(row["key"]),
            "token": readable(str(row["token"])),
            "alpha": finite(float(row["alpha"])),
        }
        for row in source.hidden
    ]
    return {
        "layers": list(source.layers),
        "heads": source.heads,
        "conditions": [
            {"name": name, "sequences": c.alpha.shape[0], "keys": c.alpha.shape[3]}
            for name, c in source.conditions.items()
        ],
        "threshold": threshold,
        "ratios": {name: [finite(float(x)) for x in ratio] for name, ratio in source.ratios.items()},
        "hidden": hidden,
    }


def _picture(source: SinkSource, threshold: float, title: str, locked: tuple[int, int] | None) -> Image.Image:
    first = next(iter(source.conditions))
    rates = source.rates(first, threshold)
    # As on the page: one text has no share of sequences.
    single = source.conditions[first].alpha.shape[0] == 1
    shown = source.of_place(first, "first")[0] if single else rates
    said = f"share of sequences whose mean weight on the first token passes {figure(threshold)}"
    canvas = Canvas(900, 520)
    canvas.text(14, 10, title, size=14)
    canvas.text(14, 30, f"{'mean weight on the first token' if single else said}; {first}", colour=SOFT)
    below = draw_heads(canvas, (14, 56), shown, source.layers, low=0.0, high=1.0, locked=locked)
    # The first is drawn last, over its controls.
    named = list(zip(source.conditions, ramp_colours(len(source.conditions)), strict=True))[::-1]
    lines = {name: (nanmean(source.rates(name, threshold), (1,)), colour) for name, colour in named}
    ends = [f"layer {source.layers[0]}", f"layer {source.layers[-1]}"]
    right = draw_lines(
        canvas,
        (460, 56),
        lines,
        source.layers,
        title=f"share over {figure(threshold)}, mean over heads, by layer",
        range_y=(0.0, 1.0),
        names=ends,
    )
    canvas.text(
        460, right + 10, f"all heads, {first}: {figure(float(nanmean(rates.reshape(1, -1), (1,))[0]))}", colour=SOFT
    )
    foot = max(below, right + 30)
    canvas.paragraph(
        14,
        foot,
        "Every number is exact for the texts that were measured. Attention weight is not causal effect.",
        columns=130,
    )
    return canvas.image.crop((0, 0, canvas.image.width, min((foot + 24) * SCALE, canvas.image.height)))
