"""From what the encoder projects to features: one pure function per architecture, and which weights each has.

p = (x - b_dec) W_enc [..., d_sae]; every function takes p, the weights and the configuration, and gives features f >= 0 [..., d_sae]:

standard               f = ReLU(p + b_enc)                                    Bricken et al. 2023; Kissane et al. 2024 (arXiv 2406.17759)
gated                  f = [p + b_gate > 0] ReLU(exp(r_mag) p + b_mag)        Rajamanoharan et al. 2024 (arXiv 2404.16014)
topk                   the k largest of p + b_enc of each token, then ReLU    Gao et al. 2024 (arXiv 2406.04093)
batchtopk              the k T largest of ReLU(p + b_enc) of all T tokens     Bussmann et al. 2024 (arXiv 2412.06410)
jumprelu               f = p' [p' > threshold], p' = ReLU(p + b_enc)          Rajamanoharan et al. 2024 (arXiv 2407.14435)
matryoshka_batchtopk   as batchtopk; what is nested is the loss               Bussmann et al. 2025 (arXiv 2503.17547)

With `rescale_acts_by_decoder_norm` the three that choose k do so among p times the norms of the decoder's rows, and f is in those units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from interp.saes.config import SAEConfig

Weights = Mapping[str, Tensor]
Activate = Callable[[Tensor, Weights, SAEConfig], Tensor]

SHARED: Final = ("W_enc", "W_dec", "b_dec")
"""Weights of every architecture: [d_in, d_sae], [d_sae, d_in], [d_in]; all others are [d_sae]."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An architecture.

    Attributes:
        extra: names of its own weights, each [d_sae].
        activate: p, weights, configuration -> features.
    """

    extra: tuple[str, ...]
    activate: Activate


def pre_activations(projected: Tensor, weights: Weights, config: SAEConfig) -> Tensor:
    """p + b_enc, in units of the decoder's norms where the configuration says so, [..., d_sae]."""
    pre = projected + weights["b_enc"]
    return pre * weights["W_dec"].norm(dim=-1) if config.rescale_acts_by_decoder_norm else pre


def standard(projected: Tensor, weights: Weights, config: SAEConfig) -> Tensor:
    """Every positive pre-activation."""
    return (projected + weights["b_enc"]).relu()


def gated(projected: Tensor, weights: Weights, config: SAEConfig) -> Tensor:
    """One map says which features, a rescaled copy of it how much."""
    magnitude = (projected * weights["r_mag"].exp() + weights["b_mag"]).relu()
    return magnitude * (projected + weights["b_gate"] > 0)


def topk(projected: Tensor, weights: Weights, config: SAEConfig) -> Tensor:
    """The k largest of each token, those above 0."""
    pre = pre_activations(projected, weights, config)
    values, chosen = pre.topk(int(config.k or 0), dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, chosen, values.relu())


def batchtopk(projected: Tensor, weights: Weights, config: SAEConfig) -> Tensor:
    """The k T largest of all T tokens given, those above 0: what a token gets depends on the others (see `with_threshold`)."""
    acts = pre_activations(projected, weights, config).relu()
    flat = acts.flatten()
    values, chosen = flat.topk(batch_count(config, acts.shape[:-1].numel()), sorted=False)
    return torch.zeros_like(flat).scatter(-1, chosen, values).view_as(acts)


def jumprelu(projected: Tensor, weights: Weights, config: SAEConfig) -> Tensor:
    """Every positive pre-activation above its feature's threshold."""
    pre = projected + weights["b_enc"]
    return pre.relu() * (pre > weights["threshold"])


def batch_count(config: SAEConfig, tokens: int) -> int:
    """How many features a batch of so many tokens keeps."""
    return int((config.k or 0) * tokens)


KINDS: Final[Mapping[str, Kind]] = {
    "standard": Kind(extra=("b_enc",), activate=standard),
    "gated": Kind(extra=("b_gate", "b_mag", "r_mag"), activate=gated),
    "topk": Kind(extra=("b_enc",), activate=topk),
    "batchtopk": Kind(extra=("b_enc",), activate=batchtopk),
    "jumprelu": Kind(extra=("b_enc", "threshold"), activate=jumprelu),
    "matryoshka_batchtopk": Kind(extra=("b_enc",), activate=batchtopk),
}
"""Name of an architecture -> its weights and its function."""


def shapes(config: SAEConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, by its name in the file."""
    own = dict.fromkeys(KINDS[config.architecture].extra, (config.d_sae,))
    return {"W_enc": (config.d_in, config.d_sae), "W_dec": (config.d_sae, config.d_in), "b_dec": (config.d_in,), **own}
