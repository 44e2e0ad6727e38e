"""`feature_attribution`: whose every feature is, and of which family, from its firings on text.

    dfa_share_h(i) = mean over the tokens t at which feature i fires of |a_h(t)| / sum over heads g of |a_g(t)|

beside the share by weights, which needs no data, with and without the sinks' part; how far the two agree, against shuffled features; and the
traits of `interp.saes.families`. One pass per text, then a product per firing: O(firings x heads x tokens of the text).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.saes.attribution import agreement, weight_share
from interp.saes.core import SAE
from interp.saes.dfa import Attribution, attribute, firing, text_heads
from interp.saes.families import TOP, FamilyRules, feature_traits, firing_traits, tagged
from interp.saes.stream import Stream

KIND = "saes.attribution"
SOURCE = "attention output autoencoders; Kissane et al. 2024 (arXiv 2406.17759)"
LEAST = 20
"""Firings below which a feature has no row."""


@torch.no_grad()
def feature_attribution(
    model: HookedModel,
    sae: SAE,
    layer: int,
    contexts: Sequence[Sequence[int]],
    *,
    least: int = LEAST,
    rules: FamilyRules | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Attribute every firing on some texts.

    Args:
        model: a decoder.
        sae: of z of one of its layers.
        layer: which.
        contexts: token ids of each text; position 0 of each is taken for a sink, and its own firings are left out.
        least: firings below which a feature has no row.
        rules: of the families.
        seed: of the controls.
        progress: called with (texts done, texts).

    Returns:
        Result "saes.attribution", one row per feature that fired often enough: layer; head, the one with the largest share by DFA; score,
        that share; spread, its standard deviation over firings; control, the same head's mean share over all other features; feature;
        weight_head and weight_share, the largest by weights; head_without_sinks; sink_share, mean share of position 0 in |DFA|; the
        traits and the family. Arrays, for all features [d_sae, head]: weight_share, dfa_share and dfa_share_without_sinks (NaN below
        `least`). manifest["agreement"]: weights against DFA, and against DFA without sinks, each with its control; the largest remainder
        of the identity, absolute.

    Raises:
        OptionError: autoencoder and layer do not fit, or least below 1.
        InputDataError: no feature fires often enough.
        UnsupportedModelError: what heads write cannot be followed to logits.
    """
    if least < 1 or not contexts:
        raise OptionError(f"wanted least >= 1 and at least one text; got {least} and {len(contexts)} texts")
    stream, random = Stream(model), np.random.default_rng(seed)
    sums = _Sums(sae.config.d_sae, model.heads)
    raised = _raised(stream, sae, layer)
    firings: list[pd.DataFrame] = []
    for n, ids in enumerate(contexts):
        text = text_heads(model, ids, layer)
        tokens, features, _ = firing(sae, text)
        if len(tokens):
            found = attribute(sae, text, tokens, features)
            sums.add(found)
            firings.append(firing_traits(found, model.tokens(ids), ids, raised, random))
        if progress is not None:
            progress(n + 1, len(contexts))
    traits: Any = feature_traits(pd.concat(firings)) if firings else pd.DataFrame({"feature": [], "firings": []})
    traits = traits[traits["firings"] >= least].reset_index(drop=True)
    if len(traits) < 2:
        raise InputDataError(f"{len(traits)} features fire {least} times or more on these texts; give more text")
    shares = {name: x.masked_fill(sums.firings[:, None] < least, torch.nan) for name, x in sums.shares().items()}
    weights = weight_share(sae, model.heads)
    table = _table(traits, shares, weights, sums, layer).assign(family=tagged(traits, rules))
    said = {
        "dfa": asdict(agreement(weights, shares["dfa_share"], seed=seed)),
        "dfa without sinks": asdict(agreement(weights, shares["dfa_share_without_sinks"], seed=seed)),
    }
    manifest = model.manifest() | {
        "method": "attribution",
        "source": SOURCE,
        "layer": layer,
        "autoencoder": {"architecture": sae.config.architecture, "d_sae": sae.config.d_sae, **sae.config.metadata},
        "settings": {
            "texts": len(contexts),
            "tokens": sum(map(len, contexts)),
            "least": least,
            "sinks": [0],
            "rules": asdict(rules or FamilyRules()),
        },
        "seed": seed,
        "agreement": said,
        "largest_remainder": sums.remainder,
    }
    arrays = {name: x.float().numpy() for name, x in {"weight_share": weights, **shares}.items()}
    return Result(kind=KIND, table=table, manifest=manifest, arrays=arrays)


class _Sums:
    """Running sums over firings, float64."""

    def __init__(self, features: int, heads: int) -> None:
        self.firings = torch.zeros(features, dtype=torch.int64)
        self.share, self.square, self.rest = (torch.zeros(features, heads, dtype=torch.float64) for _ in range(3))
        self.sink = torch.zeros(features, dtype=torch.float64)
        self.remainder = 0.0

    def add(self, found: Attribution) -> None:
        at = found.features
        share, rest = (_shares(x) for x in (found.by_head, found.by_head_without_sinks))
        self.firings += torch.bincount(at, minlength=len(self.firings))
        for total, x in ((self.share, share), (self.square, share.square()), (self.rest, rest)):
            total.index_add_(0, at, x)
        self.sink.index_add_(0, at, found.sink_share.double().nan_to_num())
        self.remainder = max(self.remainder, float(found.remainder.abs().max()))

    def shares(self) -> dict[str, Tensor]:
        """Mean shares [feature, head]."""
        count = self.firings.clamp(min=1)[:, None]
        return {"dfa_share": self.share / count, "dfa_share_without_sinks": self.rest / count}

    def spread(self, feature: Tensor, head: Tensor) -> Tensor:
        """Standard deviation over firings of one head's share, for each pair of feature and head."""
        n = self.firings[feature].double()
        variance = (self.square[feature, head] - self.share[feature, head].square() / n) / (n - 1)
        return variance.clamp(min=0).sqrt()


def _shares(by_head: Tensor) -> Tensor:
    size = by_head.abs().double()
    return size / size.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _table(traits: pd.DataFrame, shares: dict[str, Tensor], weights: Tensor, sums: _Sums, layer: int) -> pd.DataFrame:
    feature = torch.tensor(traits["feature"].tolist())
    share = shares["dfa_share"][feature]
    score, head = share.max(1)
    others = (share.sum(0)[head] - score) / (len(share) - 1)
    weight, weight_head = weights[feature].max(1)
    columns = {
        "layer": layer,
        "head": head.numpy(),
        "score": score.numpy(),
        "spread": sums.spread(feature, head).numpy(),
        "control": others.numpy(),
        "feature": feature.numpy(),
        "firings": traits["firings"].to_numpy(),
        "weight_head": weight_head.numpy(),
        "weight_share": weight.numpy(),
        "head_without_sinks": shares["dfa_share_without_sinks"][feature].argmax(1).numpy(),
        "sink_share": (sums.sink[feature] / sums.firings[feature]).numpy(),
    }
    return pd.DataFrame(columns).join(traits.drop(columns=["feature", "firings"]))


def _raised(stream: Stream, sae: SAE, layer: int) -> Tensor:
    """The tokens that each feature's write raises most, int64 [d_sae, TOP]; a few hundred features at a time."""
    rows = sae.W_dec.detach().split(256)
    return torch.cat([stream.lens(layer, part).topk(TOP, dim=-1).indices.cpu() for part in rows])
