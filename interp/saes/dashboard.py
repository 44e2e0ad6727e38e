"""What a feature does, as one record of plain JSON values: the data behind a feature's page, a notebook view, and Neuronpedia's files.

`FeatureSource` holds an autoencoder, its model and the feature's firings on some text; `feature_index` gives a row for each feature, cheap for
all of them, and `feature_record` everything about one:

    density      share of tokens on which it fires, and at position 0, which counts nowhere else
    histogram    of its values where it fires, with equal bins from 0 to the largest
    heads        share of each head by decoder norms, and by DFA at the top examples, with and without the sink (`interp.saes.dfa`)
    logits       tokens that its decoder row raises and lowers most, through W_O, the last norm's gain and W_U, in units whose sizes mean little
    related      features whose decoder rows point the same way (cosine)
    groups       contexts: the top ones (one per text), and random ones of equal intervals of its range, so that the page shows what it is weakly

Every context carries the feature's value at each token, and DFA by source of the token that it was chosen for, exact, from rows of the map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from interp.display import view as open_view
from interp.errors import OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.saes.activity import Activity, activity
from interp.saes.attribution import weight_share
from interp.saes.core import SAE
from interp.saes.dfa import TextHeads, attribute, text_heads
from interp.saes.stream import Stream

TOP, INTERVALS, PER_INTERVAL, BINS, TOKENS, RELATED = 12, 5, 3, 40, 10, 5
"""Top contexts, intervals and contexts of each, bins of the histogram, tokens of either sign, related features."""
KEPT_TEXTS = 256
"""Contexts whose heads are kept for the next feature: about 1 MB each for 128 tokens of 9 heads of 64."""
DIGITS = 4
"""Significant digits of the numbers in a record."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSource:
    """What records are made from; build it with `feature_source`.

    Attributes:
        sae, model, layer: the autoencoder, its model and layer.
        activity: firings on the text that contexts come from.
        share: of each head by weights, [feature, head].
        stream: how z is written to the logits, None where that cannot be followed.
        reason: why not.
        seed: of the random contexts.
    """

    sae: SAE
    model: HookedModel
    layer: int
    activity: Activity
    share: Tensor
    stream: Stream | None
    reason: str = ""
    seed: int = 0
    _texts: OrderedDict[int, TextHeads] = field(default_factory=OrderedDict, init=False, repr=False)

    def heads_of(self, context: int) -> TextHeads:
        """What attributions need of one context; the last `KEPT_TEXTS` are kept."""
        if context not in self._texts:
            self._texts[context] = text_heads(self.model, self.activity.contexts[context], self.layer)
            if len(self._texts) > KEPT_TEXTS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(context)
        return self._texts[context]

    def most_active(self, count: int) -> list[int]:
        """The features that write most on this text, sum of value x norm of the decoder row, largest first; those that fire only."""
        written = self.activity.total * self.sae.W_dec.detach().double().norm(dim=-1).cpu()
        order = torch.argsort(written, descending=True, stable=True)[:count]
        return [int(f) for f in order if written[f] > 0]

    def view(self, **options: object) -> Any:
        """Open the features in a notebook widget (`features=` chooses which)."""
        return open_view("saes.features", self, **options)


def feature_source(
    sae: SAE, model: HookedModel, layer: int, contexts: Sequence[Sequence[int]], *, seed: int = 0
) -> FeatureSource:
    """Run the text once and make ready.

    Args:
        sae, model, layer: the autoencoder, its model, and whose z it reads.
        contexts: token ids of each input.
        seed: of the random contexts of a record.

    Raises:
        OptionError, InputDataError: as `interp.saes.activity.activity`; an autoencoder of other heads.
    """
    fired = activity(sae, model, layer, contexts)
    stream, reason = None, ""
    try:
        stream = Stream(model)
    except UnsupportedModelError as error:
        reason = str(error)
    share = weight_share(sae, model.heads)
    return FeatureSource(
        sae=sae, model=model, layer=layer, activity=fired, share=share, stream=stream, reason=reason, seed=seed
    )


def feature_index(source: FeatureSource, features: Sequence[int]) -> list[dict[str, Any]]:
    """One row per feature: feature, density, at_first, max, mean, head (the largest by weights), head_share, tokens (raised most)."""
    raised = _extremes(source, features, 3)
    rows = []
    for n, feature in enumerate(features):
        _, values = source.activity.of(feature)
        head = int(source.share[feature].argmax())
        rows.append(
            {
                "feature": int(feature),
                "density": _short(source.activity.density[feature]),
                "at_first": _short(source.activity.at_first[feature]),
                "max": _short(values.max()) if len(values) else None,
                "mean": _short(values.mean()) if len(values) else None,
                "head": head,
                "head_share": _short(source.share[feature, head]),
                "tokens": [] if raised is None else [said for said, _ in raised[n][0]],
            }
        )
    return rows


@torch.no_grad()
def feature_record(source: FeatureSource, feature: int) -> dict[str, Any]:
    """Everything about one feature (see the module). Cost: a pass per new context, at most `TOP` + `INTERVALS` x `PER_INTERVAL` of them.

    Raises:
        OptionError: a feature that does not exist.
    """
    fired = source.activity
    tokens, values = fired.of(feature)
    groups = _groups(source, feature)
    top = [example for group in groups[:1] for example in group["examples"]]
    return {
        "feature": int(feature),
        "layer": source.layer,
        "tokens": fired.tokens,
        "firings": len(tokens),
        "density": _short(fired.density[feature]),
        "at_first": _short(fired.at_first[feature]),
        "max": _short(values.max()) if len(values) else None,
        "mean": _short(values.mean()) if len(values) else None,
        "histogram": _histogram(values, 0.0),
        "heads": {
            "weights": _list(source.share[feature]),
            "dfa": _head_shares([e["by_head"] for e in top]),
            "dfa_without_sink": _head_shares([e["by_head_without_sink"] for e in top]),
        },
        "logits": _logits(source, feature),
        "related": _related(source.sae, feature),
        "groups": groups,
    }


# ---------------------------------------------------------------------- contexts
def _groups(source: FeatureSource, feature: int) -> list[dict[str, Any]]:
    """Top contexts first, then the intervals of the range, highest first; none for a feature that never fires."""
    tokens, values = source.activity.of(feature)
    if not len(tokens):
        return []
    chosen = _top(source.activity, tokens, values)
    highest = float(values.max())
    groups = [_group(source, feature, "top", float(values[chosen].min()), highest, None, tokens[chosen])]
    draw = np.random.default_rng([source.seed, feature])
    edges = np.linspace(0.0, highest, INTERVALS + 1)
    # The largest value belongs to the highest interval.
    interval = np.clip(np.searchsorted(edges, values.double().numpy(), side="right") - 1, 0, INTERVALS - 1)
    for n in reversed(range(INTERVALS)):
        inside = np.flatnonzero(interval == n)
        some = np.sort(draw.choice(inside, size=min(PER_INTERVAL, len(inside)), replace=False))
        share = len(inside) / len(tokens)
        groups.append(
            _group(
                source, feature, "interval", float(edges[n]), float(edges[n + 1]), share, tokens[torch.from_numpy(some)]
            )
        )
    return groups


def _top(fired: Activity, tokens: Tensor, values: Tensor) -> Tensor:
    """Numbers of the firings with the largest values, one per context."""
    seen: set[int] = set()
    chosen = []
    for n in torch.argsort(values, descending=True, stable=True).tolist():
        context, _ = fired.place(int(tokens[n]))
        if context not in seen:
            seen.add(context)
            chosen.append(n)
        if len(chosen) == TOP:
            break
    return torch.tensor(chosen)


def _group(
    source: FeatureSource, feature: int, name: str, low: float, high: float, share: float | None, tokens: Tensor
) -> dict[str, Any]:
    return {
        "name": name,
        "low": _short(low),
        "high": _short(high),
        "share": None if share is None else _short(share),
        "examples": [_example(source, feature, int(token)) for token in tokens],
    }


def _example(source: FeatureSource, feature: int, token: int) -> dict[str, Any]:
    """A context with the feature's values, and the attribution of one of its tokens."""
    context, position = source.activity.place(token)
    ids = source.activity.contexts[context]
    found = attribute(source.sae, source.heads_of(context), [position], [feature])
    by_source = found.by_source[0]
    return {
        "context": context,
        "position": position,
        "tokens": source.model.tokens(list(ids)),
        "values": [_short(v) for v in source.activity.values_in(feature, context)],
        # Keys behind the token are hidden, and hold 0.
        "dfa": _list(by_source[: position + 1]),
        "source": int(by_source.argmax()),
        "sink_share": _short(found.sink_share[0]),
        "by_head": _list(found.by_head[0]),
        "by_head_without_sink": _list(found.by_head_without_sinks[0]),
    }


def _head_shares(attributions: Sequence[Sequence[float]]) -> list[float] | None:
    """Mean over examples of |a_h| / sum |a_g|; None without examples."""
    if not attributions:
        return None
    size = torch.tensor(attributions, dtype=torch.float64).abs()
    return _list((size / size.sum(1, keepdim=True).clamp(min=1e-30)).mean(0))


# ---------------------------------------------------------------------- directions
def _logits(source: FeatureSource, feature: int) -> dict[str, Any]:
    """The tokens that a decoder row raises and lowers most, and the histogram of all."""
    found = _extremes(source, [feature], TOKENS)
    if found is None or source.stream is None:
        return {"reason": source.reason}
    raised, lowered = found[0]
    every = source.stream.lens(source.layer, source.sae.W_dec.detach()[[feature]])[0]
    return {"raised": raised, "lowered": lowered, "histogram": _histogram(every.float().cpu(), None)}


@torch.no_grad()
def _extremes(
    source: FeatureSource, features: Sequence[int], count: int
) -> list[tuple[list[tuple[str, float]], list[tuple[str, float]]]] | None:
    """(token, value) pairs raised and lowered most by each feature; None where z cannot be followed to the logits."""
    if source.stream is None:
        return None
    found = []
    for feature in features:
        every = source.stream.lens(source.layer, source.sae.W_dec.detach()[[feature]])[0].float().cpu()
        ends = []
        for sign in (1.0, -1.0):
            best = torch.argsort(every * sign, descending=True, stable=True)[:count]
            said = source.model.tokens(best.tolist())
            ends.append([(text, _short(every[i])) for text, i in zip(said, best.tolist(), strict=True)])
        found.append((ends[0], ends[1]))
    return found


def _related(sae: SAE, feature: int) -> list[tuple[int, float]]:
    """(feature, cosine) of the nearest other decoder rows, nearest first."""
    directions = normalize(sae.W_dec.detach().float(), dim=-1)
    cosines = directions @ directions[feature]
    cosines[feature] = -2.0
    best = torch.argsort(cosines, descending=True, stable=True)[: min(RELATED, len(cosines) - 1)]
    return [(int(f), _short(cosines[f])) for f in best]


# ---------------------------------------------------------------------- plain values
def _histogram(values: Tensor, low: float | None) -> dict[str, Any]:
    """Edges and counts of equal bins, from `low` or the smallest value to the largest; empty without values."""
    if not len(values):
        return {"edges": [], "counts": []}
    start = float(values.min()) if low is None else low
    counts, edges = np.histogram(values.double().numpy(), bins=BINS, range=(start, float(values.max())))
    return {"edges": [_short(e) for e in edges], "counts": [int(c) for c in counts]}


def _short(x: Tensor | float) -> float:
    """A number with few significant digits, as JSON writes it."""
    value = float(x)
    if not np.isfinite(value):
        raise OptionError(f"a feature's record holds {value}: weights or text give numbers that are not finite")
    return float(f"{value:.{DIGITS}g}")


def _list(x: Tensor) -> list[float]:
    return [_short(v) for v in x.tolist()]
