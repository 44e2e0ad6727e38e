"""Feature families by rule: induction, local context, high-level context (Kissane et al. 2024, who sorted features by hand).

    induction    "B is next because A B ... A": what the feature takes comes from the token behind an earlier copy of the current token, and
                 that token is among those which the feature's write raises most (logit lens)
    local        fires for a short span behind a trigger: its source is a few tokens back
    high-level   fires over whole passages; what it takes comes from everywhere

The rule is this project's, not the paper's. Of each firing at token t, with s the source of the largest DFA (sinks left out):

    match        token s - 1 equals token t, leading space and case ignored, and s <= t        match_control: s - 1 against another firing's t
    hit          token s is among the TOP tokens of the feature's logit lens
    distance     t - s
    breadth      entropy of |DFA| over the sources, as a share of ln(number of sources); undefined with fewer than two

A feature's are the shares or means over its firings (median of distance), with run, the mean length of its runs of consecutive tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.saes.dfa import Attribution

TOP = 10
"""Tokens of the logit lens that count as raised."""
TRAITS = ("match", "match_control", "hit", "induction", "distance", "breadth", "run")
"""Columns of a feature's traits."""


@dataclass(frozen=True, kw_only=True)
class FamilyRules:
    """Thresholds of the tags, tried in this order.

    Attributes:
        induction: least share of firings with match and hit together.
        breadth: least breadth of a high-level feature.
        distance: largest median distance of a local one.
    """

    induction: float = 0.3
    breadth: float = 0.7
    distance: float = 8.0

    def family(self, induction: float, breadth: float, distance: float) -> str:
        """The tag of a feature: "induction", "high-level", "local" or "other"."""
        if induction >= self.induction:
            return "induction"
        if breadth >= self.breadth:
            return "high-level"
        return "local" if distance <= self.distance else "other"


def fuzzy(strings: Sequence[str]) -> list[str]:
    """Token strings as they are compared: without spaces around them, and in one case."""
    return [s.strip().casefold() for s in strings]


def firing_traits(
    found: Attribution, strings: Sequence[str], ids: Sequence[int], raised: Tensor, random: np.random.Generator
) -> pd.DataFrame:
    """Traits of each firing of one text: feature, match, match_control, hit, distance, breadth, starts (whether a run begins there).

    Args:
        found: of the text's firings.
        strings, ids: of its tokens.
        raised: the `TOP` tokens that each feature raises, int64 [d_sae, TOP].
        random: for the control.
    """
    size = found.by_source_without_sinks.abs()
    at = found.tokens
    source = _hidden(found).argmax(1)
    share = size / size.sum(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
    entropy = -torch.special.xlogy(share, share).sum(1)
    sunk = torch.tensor(found.sinks, dtype=torch.int64)
    sources = at + 1 - (sunk[None] <= at[:, None]).sum(1)
    breadth = torch.where(sources > 1, entropy / sources.clamp(min=2).log(), torch.nan)
    words = np.array(fuzzy(strings), dtype=object)
    before, current = words[(source - 1).clamp(min=0).numpy()], words[at.numpy()]
    has_before, no_word = (source >= 1).numpy(), current == ""
    pairs = set(zip(found.features.tolist(), at.tolist(), strict=True))
    return pd.DataFrame(
        {
            "feature": found.features.numpy(),
            "match": has_before & (before == current) & ~no_word,
            "match_control": has_before & (before == random.permutation(current)) & (before != ""),
            "hit": (raised[found.features] == torch.as_tensor(ids)[source][:, None]).any(1).numpy(),
            "distance": (at - source).numpy(),
            "breadth": breadth.double().numpy(),
            "starts": [(f, t - 1) not in pairs for f, t in zip(found.features.tolist(), at.tolist(), strict=True)],
        }
    )


def feature_traits(firings: pd.DataFrame) -> pd.DataFrame:
    """Traits of each feature from those of its firings, one row per feature: firings and `TRAITS`."""
    rows: Any = firings.assign(induction=firings["match"] & firings["hit"]).groupby("feature", sort=True)
    table: Any = rows[["match", "match_control", "hit", "induction", "breadth"]].mean()
    table["distance"] = rows["distance"].median()
    table["firings"] = rows.size()
    table["run"] = table["firings"] / rows["starts"].sum()
    return table.reset_index().loc[:, ["feature", "firings", *TRAITS]]


def tagged(traits: pd.DataFrame, rules: FamilyRules | None = None) -> NDArray[np.object_]:
    """The family of each row of a table with the columns induction, breadth and distance."""
    rules = rules or FamilyRules()
    columns = (traits[name].to_numpy() for name in ("induction", "breadth", "distance"))
    return np.array([rules.family(*values) for values in zip(*columns, strict=True)], dtype=object)


def _hidden(found: Attribution) -> Tensor:
    """DFA by source with sinks and the tokens behind each firing at -inf, so that neither is ever the largest."""
    out = found.by_source.clone()
    out[:, list(found.sinks)] = -torch.inf
    return out.masked_fill(torch.arange(out.shape[1]) > found.tokens[:, None], -torch.inf)
