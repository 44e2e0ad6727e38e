"""`Activity`: every firing of every feature on some text, as sparse columns: what densities, histograms and example contexts are read off.

A token has L0 features out of d_sae, so the firings of 20,000 tokens at L0 32 are 640,000 triples of 20 bytes, of all features together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel
from interp.saes.config import BY_BATCH
from interp.saes.core import SAE
from interp.saes.harvest import z_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """Firings of an autoencoder's features, by feature and then in the order of the text.

    Attributes:
        contexts: token ids of each input.
        counted: tokens that count, bool [token of all contexts]: not special, and not before the first position asked for.
        starts: where each feature's firings begin, int64 [d_sae + 1].
        token: number of the token among those of all contexts, int64 [firing]; only tokens that count.
        value: of the feature there, float32 [firing].
        at_first: share of contexts at whose position 0 each feature fires, float64 [d_sae].
    """

    contexts: tuple[tuple[int, ...], ...]
    counted: Tensor
    starts: Tensor
    token: Tensor
    value: Tensor
    at_first: Tensor

    @property
    def features(self) -> int:
        """How many features there are."""
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """How many tokens count."""
        return int(self.counted.sum())

    @property
    def density(self) -> Tensor:
        """Share of the tokens that count on which each feature fires, float64 [d_sae]."""
        return self.starts.diff().double() / max(self.tokens, 1)

    @property
    def total(self) -> Tensor:
        """Sum of each feature's values, float64 [d_sae]."""
        feature = torch.arange(self.features).repeat_interleave(self.starts.diff())
        return torch.zeros(self.features, dtype=torch.float64).index_add_(0, feature, self.value.double())

    def of(self, feature: int) -> tuple[Tensor, Tensor]:
        """Tokens and values of one feature's firings. Raises OptionError for a feature that does not exist."""
        if not 0 <= feature < self.features:
            raise OptionError(f"feature {feature} does not exist; features are 0 to {self.features - 1}")
        mine = slice(int(self.starts[feature]), int(self.starts[feature + 1]))
        return self.token[mine], self.value[mine]

    def place(self, token: int) -> tuple[int, int]:
        """Number of the context that a token is in, and its position there."""
        ends = np.cumsum([len(c) for c in self.contexts])
        context = int(np.searchsorted(ends, token, side="right"))
        return context, token - int(ends[context] - len(self.contexts[context]))

    def values_in(self, feature: int, context: int) -> list[float]:
        """Values of one feature at every token of a context, 0 where it does not fire or the token does not count."""
        start = sum(len(c) for c in self.contexts[:context])
        tokens, values = self.of(feature)
        found = torch.zeros(len(self.contexts[context]))
        inside = (tokens >= start) & (tokens < start + len(found))
        found[tokens[inside] - start] = values[inside]
        return found.tolist()


@torch.no_grad()
def activity(
    sae: SAE, model: HookedModel, layer: int, contexts: Sequence[Sequence[int]], *, first: int = 1
) -> Activity:
    """Run contexts and keep every firing; each pass stops behind the layer.

    Args:
        sae: of the layer; a batch kind needs a threshold first.
        model: a decoder.
        layer: whose z it reads.
        contexts: token ids of each input.
        first: earlier positions do not count (position 0 is the attention sink); the tokenizer's special tokens never do.

    Raises:
        OptionError: an autoencoder whose features depend on the batch.
        InputDataError: no contexts, or none with a token that counts.
    """
    if sae.config.architecture in BY_BATCH:
        raise OptionError(
            "these features depend on how tokens are cut into batches; set a threshold first (with_threshold)"
        )
    given = tuple(tuple(int(i) for i in c) for c in contexts)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or [])
    counted = torch.tensor([n >= first and i not in special for c in given for n, i in enumerate(c)])
    if not given or not bool(counted.any()):
        raise InputDataError(
            "contexts: wanted at least one, with tokens that are not special behind its first position"
        )
    tokens, features, values = [], [], []
    at_first = torch.zeros(sae.config.d_sae, dtype=torch.float64)
    done = 0
    for context in given:
        codes = sae.encode(z_of(model, [context], [layer])[layer].float()).cpu()
        at_first += (codes[0] > 0).double()
        codes[~counted[done : done + len(codes)]] = 0.0
        token, feature = codes.nonzero(as_tuple=True)
        tokens.append(token + done)
        features.append(feature)
        values.append(codes[token, feature].float())
        done += len(codes)
    feature = torch.cat(features)
    order = torch.argsort(feature, stable=True)
    starts = torch.zeros(sae.config.d_sae + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(feature, minlength=sae.config.d_sae).cumsum(0)
    return Activity(
        contexts=given,
        counted=counted,
        starts=starts,
        token=torch.cat(tokens)[order],
        value=torch.cat(values)[order],
        at_first=at_first / len(given),
    )
