"""What each key receives, under several conditions: what SinkExplorer shows, read from sink reports and runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.capture.run import Run
from interp.entropy.report import nanmean
from interp.errors import OptionError
from interp.results import Result
from interp.tasks.sequences import SOURCES
from interp.widgets.views.protocol import Reply, answer, finite, one_of, readable, whole

Alphas = NDArray[np.float32]
PLACES: Final = ("first", "behind")
"""Which key of a sequence counts: its first, or the strongest behind it."""
BINS: Final = 128
LISTED: Final = 12
RATIOS: Final = ("residual", "key", "value")


@dataclass(frozen=True, kw_only=True, eq=False)
class SinkCondition:
    """What keys received on one kind of text.

    Attributes:
        alpha: mean over the rows that see a key of its weight, float32 [sequence, layer, head, key], NaN where undefined.
        tokens: text of the keys where there is one sequence, else empty.
        even: what a head that spreads evenly over earlier keys would give [key]; NaN where the mask is not known to be causal.
    """

    alpha: Alphas
    tokens: tuple[str, ...]
    even: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SinkSource:
    """Conditions of the same heads.

    Attributes:
        layers: the model's own numbers.
        heads: of each layer.
        conditions: by name; the first is the one that matters, the others are its controls and comparisons.
        ratios: line of the norms' chart -> first key's norm over the median of the others [layer].
        hidden: strongest keys behind the first of long texts, in words of the report: layer, head, key, token, alpha.
    """

    layers: tuple[int, ...]
    heads: int
    conditions: Mapping[str, SinkCondition]
    ratios: Mapping[str, NDArray[np.float64]]
    hidden: tuple[Mapping[str, Any], ...]

    def of_place(self, condition: str, place: str) -> Alphas:
        """Alpha of the first key, or of the strongest behind it: float32 [sequence, layer, head], NaN where undefined."""
        alpha = self.conditions[condition].alpha
        if place == "first":
            return alpha[..., 0]
        behind = alpha[..., 1:]
        largest = np.where(np.isnan(behind), -np.inf, behind).max(-1, initial=-np.inf)
        return np.where(np.isneginf(largest), np.nan, largest).astype(np.float32)

    def rates(self, condition: str, threshold: float, place: str = "first") -> NDArray[np.float64]:
        """Share of sequences whose alpha passes the threshold [layer, head]; NaN where undefined."""
        alpha = self.of_place(condition, place)
        passed = np.where(np.isnan(alpha), np.nan, alpha > threshold)
        return nanmean(passed, (0,))

    def by_key(self, condition: str, layer: int | None = None, head: int | None = None) -> NDArray[np.float64]:
        """Mean alpha of each key over sequences, of one head or of all: float64 [key]."""
        alpha = self.conditions[condition].alpha
        if layer is None or head is None:
            return nanmean(alpha, (0, 1, 2))
        return nanmean(alpha[:, self.layers.index(layer), head], (0,))

    def frame(self, threshold: float) -> pd.DataFrame:
        """One row per condition and head: condition, layer, head, alpha_first, alpha_behind, rate_first, rate_behind."""
        parts = []
        index = {"layer": np.repeat(self.layers, self.heads), "head": np.tile(np.arange(self.heads), len(self.layers))}
        for name in self.conditions:
            told: dict[str, Any] = {"condition": name, **index}
            for place in PLACES:
                told[f"alpha_{place}"] = nanmean(self.of_place(name, place), (0,)).ravel()
                told[f"rate_{place}"] = self.rates(name, threshold, place).ravel()
            parts.append(pd.DataFrame(told))
        return pd.concat(parts, ignore_index=True)


def sink_source(given: Result | Run | Mapping[str, Result | Run]) -> SinkSource:
    """Read a sink report, a run, or several of one model under names of their own (with and without a first token, for instance).

    Raises:
        OptionError: another kind of result, a run that did not measure alpha, or measurements of different heads.
    """
    named = dict(given) if isinstance(given, Mapping) else {"": given}
    if not named:
        raise OptionError("there is nothing to show; give a sink report, a run, or a dict of them by name")
    parts = [_read(x, name) for name, x in named.items()]
    shapes = {(p.layers, p.heads) for p in parts}
    if len(shapes) > 1:
        raise OptionError(
            "measurements under several names must be of the same layers and heads; got "
            + ", ".join(f"{n!r}: {len(p.layers)} x {p.heads}" for n, p in zip(named, parts, strict=True))
        )
    return SinkSource(
        layers=parts[0].layers,
        heads=parts[0].heads,
        conditions={name: c for p in parts for name, c in p.conditions.items()},
        ratios={name: r for p in parts for name, r in p.ratios.items()},
        hidden=parts[0].hidden,
    )


def _read(given: Result | Run, name: str) -> SinkSource:
    return _of_run(given, name) if isinstance(given, Run) else _of_report(given, name)


def _of_report(result: Result, name: str) -> SinkSource:
    if result.kind != "sinks":
        raise OptionError(f"SinkExplorer shows results of interp.sinks.report and runs; got a result {result.kind!r}")
    layers = tuple(sorted(int(x) for x in result.table["layer"].unique()))
    arrays = {source: np.asarray(result.arrays[f"alpha_{source}"], np.float32) for source in SOURCES}
    ratios = {r: np.asarray(result.arrays[f"{r}_ratio"], np.float64) for r in RATIOS if f"{r}_ratio" in result.arrays}
    return SinkSource(
        layers=layers,
        heads=arrays[SOURCES[0]].shape[2],
        conditions={
            _joined(name, source): SinkCondition(alpha=x, tokens=(), even=even_alpha(x.shape[3]))
            for source, x in arrays.items()
        },
        ratios={_joined(name, r): x for r, x in ratios.items()},
        hidden=tuple(result.manifest.get("strongest_hidden_sinks", ())),
    )


def _of_run(run: Run, name: str) -> SinkSource:
    found = run.stats.get("alpha")
    if found is None or found.ndim != 3:
        raise OptionError(
            "sinks of a run need what each key of one text receives; run one text again with collect=['alpha', 'first_token_mass']"
        )
    masks = [run.record(layer).mask for layer in run.layers]
    plain = all(mask.is_causal and mask.window is None for mask in masks)
    keys = found.shape[2]
    condition = SinkCondition(
        alpha=found.float().cpu().numpy()[None],
        tokens=tuple(run.tokens) if run.tokens is not None else (),
        even=even_alpha(keys) if plain else np.full(keys, np.nan),
    )
    return SinkSource(
        layers=run.layers,
        heads=run.heads,
        conditions={name or "this text": condition},
        ratios=_key_ratios(run, name),
        hidden=(),
    )


def _key_ratios(run: Run, name: str) -> dict[str, NDArray[np.float64]]:
    """Norm of the first key over the median of the others, median of heads, where the run kept its keys."""
    ratios = []
    for layer in run.layers:
        k = run.record(layer).k
        if k is None or len(run) > 1 or k.shape[0] > 1 or k.shape[2] < 2:
            return {}
        norm = k[0].float().norm(dim=-1)
        ratios.append(float((norm[:, 0] / norm[:, 1:].median(-1).values).median()))
    return {_joined(name, "key"): np.array(ratios)}


def even_alpha(keys: int) -> NDArray[np.float64]:
    """Alpha of each key if every row of a causal map spread evenly: mean over rows i >= k of 1 / (i + 1)."""
    inverse = 1 / np.arange(1, keys + 1)
    return np.cumsum(inverse[::-1])[::-1] / np.arange(keys, 0, -1)


def _joined(name: str, part: str) -> str:
    return f"{name}: {part}" if name else part


def _heads(source: SinkSource, message: Mapping[str, Any]) -> Reply:
    condition = one_of(message, "condition", list(source.conditions))
    return {}, [source.of_place(condition, one_of(message, "place", PLACES)).astype("<f4").tobytes()]


def _keys(source: SinkSource, message: Mapping[str, Any]) -> Reply:
    name = one_of(message, "condition", list(source.conditions))
    layer = head = None
    if message.get("layer") is not None:
        layer = whole(message, "layer", 0, max(source.layers) + 1)
        head = whole(message, "head", 0, source.heads)
        if layer not in source.layers:
            raise OptionError(f"no layer {layer} here; there are: {', '.join(map(str, source.layers))}")
    condition, values = source.conditions[name], source.by_key(name, layer, head)
    edges = np.unique(np.linspace(0, len(values), min(BINS, len(values)) + 1).astype(np.int64))
    filled = np.where(np.isnan(values), -np.inf, values)
    strongest = np.array([a + int(np.argmax(filled[a:b])) for a, b in pairwise(edges)])
    order = np.argsort(-filled, kind="stable")[:LISTED]
    listed = [
        {
            "key": int(k),
            "token": readable(condition.tokens[k]) if condition.tokens else None,
            "alpha": finite(float(values[k])),
        }
        for k in order
        if np.isfinite(values[k])
    ]
    parts = [edges.astype("<f4"), values[strongest].astype("<f4"), strongest.astype("<f4")]
    parts.append(condition.even[strongest].astype("<f4"))
    return {"keys": len(values), "listed": listed}, [p.tobytes() for p in parts]


OPERATIONS = {"heads": _heads, "keys": _keys}


def serve(source: SinkSource, message: object) -> Reply:
    """Answer SinkExplorer's page: alpha of every sequence's first key or of the strongest behind it for all `heads` (float32 [sequence, layer,
    head]), or alpha by `keys` of one head or of all (float32 edges, largest of each bin, its key, and the same under even attention).
    """
    return answer(OPERATIONS, source, message)
