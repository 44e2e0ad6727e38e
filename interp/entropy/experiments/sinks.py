"""Sink_1 of a language model in training (Gu et al. 2025, equation 3): the share of heads whose first key gets more than eps of the attention.

alpha_1 of a head on one text is the mean over rows of the probability of the first key, all rows of the text included. Texts are held
out, T = 64 bytes long and without a BOS token, as many as the paper's 100. Attention that is not normalised has no probabilities: there the
first key's share of the row's weights stands in, as in the paper, where such figures carry a star.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture.call import Collect
from interp.capture.observe import Seen, observing
from interp.entropy.experiments.data import Bytes
from interp.entropy.experiments.transformer import SelfAttention, Transformer

EPSILONS: Final = (0.2, 0.3, 0.4, 0.5)
TOKENS: Final = 64
TEXTS: Final = 100


@torch.no_grad()
def first_key_shares(model: Transformer, text: Bytes) -> Float[Tensor, "layer text head"]:
    """alpha_1 of every head on every text."""
    ids, _ = text.held_out_batch(TEXTS, TOKENS)
    attentions = [m for m in model.modules() if isinstance(m, SelfAttention)]
    heard: list[Tensor] = []

    def hear(seen: Seen) -> None:
        first = torch.zeros(1, seen.call.keys, dtype=torch.bool)
        first[0, 0] = True
        attended = seen.call.attend(Collect(key_sets=first))
        heard.append(attended.stats["key_sets"][..., 0].mean(-1))

    training = model.training
    model.eval()
    if model.shape.attention == "softmax":
        with observing(model, hear):
            model(ids)
    else:
        for attention in attentions:
            attention.watched = True
        model(ids)
        for attention in attentions:
            if attention.first_share is not None:
                heard.append(attention.first_share.mean(-1))
            attention.watched, attention.first_share = False, None
    model.train(training)
    return torch.stack(heard)


def sink_1(shares: Float[Tensor, "layer text head"]) -> Mapping[str, float]:
    """Sink_1 at each eps, and the mean alpha_1, over layers, heads and texts; names as columns."""
    return {f"sink_1_{eps}": float((shares > eps).float().mean()) for eps in EPSILONS} | {
        "alpha_1": float(shares.mean())
    }
