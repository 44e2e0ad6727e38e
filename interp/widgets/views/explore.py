"""`explore`: one view of a whole run: find a head in the grid, look at its map and its tokens, read its page, try an edit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from interp.capture.run import Run
from interp.errors import CaptureError, OptionError
from interp.interventions.where import Head
from interp.models.hooked import HookedModel
from interp.widgets.views.attention_map import AttentionMapView, map_payload
from interp.widgets.views.attention_picture import map_picture
from interp.widgets.views.base import View
from interp.widgets.views.canvas import PAPER
from interp.widgets.views.comparisons import head_numbers
from interp.widgets.views.explore_source import Explored, serve
from interp.widgets.views.head_grid import HeadGrid
from interp.widgets.views.head_table import HeadColumn, HeadTable, head_table
from interp.widgets.views.intervene import Intervene, bench, bench_payload, bench_requests
from interp.widgets.views.sae_feature import SAEFeature
from interp.widgets.views.sae_source import FeatureTable, feature_table
from interp.widgets.views.selection import Selection
from interp.widgets.views.token_source import TokenSource, token_source
from interp.widgets.views.token_view import TokenView

OPENS_ON: Final = ("induction_mass", "previous_token_mass", "entropy")
"""Statistics to open on, the first that there is."""
PARTS: Final = (HeadGrid, AttentionMapView, TokenView, SAEFeature, Intervene)


def explore(
    run: Run,
    *,
    scores: object = None,
    features: object = None,
    model: HookedModel | None = None,
    calibrations: Mapping[str, str | Path] | None = None,
    head: Head | None = None,
    statistic: str | None = None,
    title: str | None = None,
    link: Selection | None = None,
) -> Explore:
    """Open a run in one view.

    Args:
        run: of one text; with queries and keys (keep="qk", the default of `run`) maps and tokens are shown too.
        scores: more numbers of the same heads: a scan, a result such as `interp.heads.induction`, or a table.
        features: an autoencoder's: a `FeatureSource` or the result of `interp.saes.feature_attribution`.
        model: the model of the run, to try edits on its text, or on the prompts of a task.
        calibrations: name -> file of `interp.calibration.save_calibration`, offered among the edits.
        head: (layer, head) on show while none is locked; None for the largest value of `statistic`.
        statistic: which number the grid opens on.
        title: one line above.
        link: the bus that this view shares with others.

    Raises:
        OptionError: several texts, no such head or statistic, scores of other heads, or calibrations without a model.
    """
    source = explored(run, scores, features, model, calibrations, head, statistic)
    return Explore(source, statistic=statistic, title=title, link=link)


class Explore(View):
    """Grid of heads, map and tokens of the selected head, its page, its features, and a panel to try edits; `explore` makes one.

    Hover previews, a click locks, Esc clears; what is locked in one part is locked in all.

    Args:
        source: what is walked through.
        statistic: which number the grid opens on, None for the first of `OPENS_ON`.
        title: one line above.
        link: the bus that this view shares with others.
    """

    NAME = "Explore"
    MODULES = (*dict.fromkeys(m for part in PARTS for m in part.MODULES), "views/curves", "views/explore")
    STYLES = (*dict.fromkeys(s for part in PARTS for s in part.STYLES), "curves", "explore")
    serve = staticmethod(serve)

    def __init__(
        self, source: Explored, *, statistic: str | None = None, title: str | None = None, link: Selection | None = None
    ) -> None:
        self.statistic = statistic or _opens_on(source.table)
        super().__init__(source, title=title or _title(source.run), payload=self._payload(source), link=link)

    @property
    def shown(self) -> Head:
        """The head on show."""
        return self.source.head_of(self.selected)

    @property
    def picked(self) -> list[Head]:
        """The heads that were picked by hand in the grid, in the order of picking."""
        return [(p[0], p[1]) for p in self.picks if len(p) == 2]

    def requests(self) -> Iterator[Mapping[str, Any]]:
        """Grid, features and last edit whole; map, tokens and page of the head on show, and the pages of picked heads."""
        source, (layer, head) = self.source, self.shown
        yield from _wrapped("grid", _Grid(source.table).requests())
        for a, b in dict.fromkeys([(layer, head), *self.picked]):
            yield {"op": "head", "layer": a, "head": b}
        if source.tokens is not None:
            asked = _Map(source.run.attention[layer, head]).requests()
            yield from ({"op": "map", "layer": layer, "head": head, "message": m} for m in asked)
            tokens = _Tokens(source.tokens, layer=layer, head=head)
            tokens.selection = self.selection
            yield from _wrapped("tokens", tokens.requests())
        if source.features is not None:
            yield from _wrapped("features", _Features(source.features).requests())
        if source.bench is not None:
            yield from _wrapped("bench", bench_requests(source.bench))

    def data(self) -> pd.DataFrame:
        """The numbers of all heads: one row per (layer, head, statistic)."""
        return self.source.table.frame

    def picture(self) -> Image.Image:
        """The grid, and the map of the head on show."""
        grid = _Grid(self.source.table, statistic=self.statistic, title=self.title)
        grid.selection = self.selection
        pictures = [grid.picture()]
        if self.source.tokens is not None:
            shown = self.source.pictured(*self.shown).a
            pictures.append(map_picture(shown, f"Layer {self.shown[0]}, head {self.shown[1]}", None))
        whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
        for n, p in enumerate(pictures):
            whole.paste(p, (0, sum(above.height for above in pictures[:n])))
        return whole

    def _payload(self, source: Explored) -> dict[str, Any]:
        layer, head = source.first
        grid = _Grid(source.table, statistic=self.statistic).payload
        payload: dict[str, Any] = {"grid": grid, "first": [layer, head]}
        payload |= {"layers": list(source.run.layers), "heads": source.run.heads}
        if source.tokens is not None:
            payload["tokens"] = _Tokens(source.tokens, layer=layer, head=head).payload
            payload["map"] = map_payload(source.pictured(layer, head))
        if source.features is not None:
            payload["features"] = {"made": source.features.made}
        if source.bench is not None:
            payload["bench"] = bench_payload(source.bench)
        return payload


def explored(
    run: Run,
    scores: object,
    features: object,
    model: HookedModel | None,
    calibrations: Mapping[str, str | Path] | None,
    head: Head | None,
    statistic: str | None,
) -> Explored:
    """Make a run ready to be walked through; arguments and errors as `explore`."""
    if not isinstance(run, Run) or len(run) > 1:
        raise OptionError("explore shows one text: give a Run of one text, such as run[0]")
    table = _with_scores(head_table(run.frame, kv_heads=_kv_heads(run)), scores)
    first = head or _largest(table, statistic or _opens_on(table))
    if calibrations and model is None:
        raise OptionError("calibrations are tried on the model; give model= as well")
    if first[0] not in run.layers or not 0 <= first[1] < run.heads:
        raise OptionError(
            f"no head {first[0]}.{first[1]} here; layers are {', '.join(map(str, run.layers))}, heads 0 to {run.heads - 1}"
        )
    return Explored(
        run=run,
        table=table,
        tokens=_tokens_of(run),
        features=_features_of(features),
        bench=None if model is None or run.ids is None else bench(model, [run.ids.tolist()], calibrations=calibrations),
        first=first,
    )


def _with_scores(table: HeadTable, scores: object) -> HeadTable:
    """The run's numbers with those of another table of the same heads behind them."""
    if scores is None:
        return table
    other = head_numbers(scores)
    if other.heads != table.heads or not set(table.layers) <= set(other.layers):
        raise OptionError(
            f"scores are of {len(other.layers)} layers x {other.heads} heads, the run of {len(table.layers)} x {table.heads}; give the same heads"
        )
    rows = [other.layers.index(layer) for layer in table.layers]
    more: dict[str, HeadColumn] = {}
    for name, c in other.columns.items():
        new = name if name not in table.columns else f"{name} (scores)"
        title = c.title if new == name else f"{c.title} (scores)"
        arrays = {"values": c.values[rows], "spread": c.spread[rows], "control": c.control[rows]}
        more[new] = HeadColumn(name=new, title=title, unit=c.unit, formula=c.formula, **arrays)
    return HeadTable(layers=table.layers, heads=table.heads, group=table.group, columns={**table.columns, **more})


def _kv_heads(run: Run) -> int | None:
    keys = run.record(run.layers[0]).k
    return None if keys is None else keys.shape[1]


def _tokens_of(run: Run) -> TokenSource | None:
    try:
        return token_source(run)
    except CaptureError:  # queries and keys were not kept: the grid and the pages are shown without maps
        return None


def _features_of(features: object) -> FeatureTable | None:
    return None if features is None else feature_table(features)


def _opens_on(table: HeadTable) -> str:
    return next((name for name in OPENS_ON if name in table.columns), next(iter(table.columns)))


def _largest(table: HeadTable, statistic: str) -> Head:
    if statistic not in table.columns:
        raise OptionError(f"no statistic {statistic!r} here; there are: {', '.join(table.columns)}")
    values = table.columns[statistic].values
    at = int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))
    return table.layers[at // table.heads], at % table.heads


def _title(run: Run) -> str:
    name = run.manifest.get("model", {}).get("name", "a model")
    return f"{name}: {'' if run.tokens is None else f'{len(run.tokens):,} tokens, '}{len(run.layers)} layers of {run.heads} heads"


def _wrapped(part: str, messages: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from ({"op": part, "message": m} for m in messages)


class _Unshown:
    """A view that lends its payload, its requests or its picture, and opens no channel to a page."""

    def open(self) -> None:
        """Nothing to open."""


class _Grid(_Unshown, HeadGrid):
    """The grid."""


class _Map(_Unshown, AttentionMapView):
    """The map of the head on show."""


class _Tokens(_Unshown, TokenView):
    """The tokens."""


class _Features(_Unshown, SAEFeature):
    """The features."""
