"""Whose a feature is: the share of each head, by weights and by direct feature attribution (DFA), and how far the two agree.

By weights (Kissane et al. 2024, arXiv 2406.17759), with W_dec[i, h] head h's slice of decoder row i:

    share_h(i) = ||W_dec[i, h]|| / sum over heads g of ||W_dec[i, g]||

By DFA: the pre-activation of a feature is linear in z, so it is a sum over heads and, with the attention pattern held, over source tokens
(`interp.saes.dfa`). What is linear is a `Reading`: pre(t) = scale(t) z(t) . columns + bias, with

    standard, topk, batchtopk, jumprelu   the encoder's columns; bias b_enc - b_dec . column (in units of decoder norms where the file says so)
    gated                                 those of the magnitude, exp(r_mag) p + b_mag, which is the feature's value where its gate is open

A normalisation of inputs is held too: its factor is scale(t), and taking off a mean is a change of the columns. Where a feature fires, its
value is its pre-activation. Weights and DFA need not agree: print both (`agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.errors import OptionError
from interp.saes.core import LAYER_NORM_EPSILON, SAE, SMALLEST_NORM


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """How some features read z.

    Attributes:
        features: their numbers, int64 [feature].
        columns: what each is a product with, by head, [head, d_head, feature].
        bias: what is added, [feature].
        normalize: normalisation of the inputs, as `SAEConfig.normalize_activations`.
    """

    features: Tensor
    columns: Tensor
    bias: Tensor
    normalize: str = "none"

    def scale(self, z: Tensor) -> Tensor:
        """The factor by which the normalisation multiplies each z [token, d_in], held in attributions: [token]."""
        if self.normalize == "layer_norm":
            return 1.0 / (z.std(-1) + LAYER_NORM_EPSILON)
        if self.normalize == "constant_norm_rescale":
            return z.shape[-1] ** 0.5 / z.norm(dim=-1)
        return torch.ones_like(z[..., 0])


@torch.no_grad()
def reading(sae: SAE, heads: int, features: Sequence[int] | Tensor | None = None) -> Reading:
    """The linear part of some features, all if None.

    Args:
        sae: of z of one layer, head-major.
        heads: query heads of that layer.
        features: their numbers.

    Raises:
        OptionError: a feature that the autoencoder does not have, or a number of heads that does not divide d_in.
    """
    config, w = sae.config, {name: x.detach() for name, x in sae.weights.items()}
    _check_heads(sae, heads)
    chosen = torch.arange(config.d_sae) if features is None else torch.as_tensor(features, dtype=torch.int64)
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < config.d_sae:
        raise OptionError(f"features: wanted numbers from 0 to {config.d_sae - 1}, got {chosen.tolist()}")
    at = chosen.to(w["W_enc"].device)
    columns = w["W_enc"][:, at]
    # [feature]; taken off the input before the encoder, so off every pre-activation.
    bias = -(w["b_dec"] @ columns) if config.apply_b_dec_to_input else torch.zeros_like(columns[0])
    if config.architecture == "gated":
        gain = w["r_mag"][at].exp()
        columns, bias = columns * gain, bias * gain + w["b_mag"][at]
    else:
        bias = bias + w["b_enc"][at]
    if config.rescale_acts_by_decoder_norm:
        norms = w["W_dec"][at].norm(dim=-1)
        columns, bias = columns * norms, bias * norms
    if config.normalize_activations == "layer_norm":
        columns = columns - columns.mean(0)  # (z - mean(z)) . w = z . (w - mean(w))
    return Reading(
        features=chosen, columns=columns.unflatten(0, (heads, -1)), bias=bias, normalize=config.normalize_activations
    )


@torch.no_grad()
def weight_share(sae: SAE, heads: int) -> Tensor:
    """Share of each head in each feature by the norms of its decoder slices, float64 [d_sae, head]; rows sum to 1, no data needed.

    Raises:
        OptionError: a number of heads that does not divide d_in.
    """
    _check_heads(sae, heads)
    norms = sae.W_dec.detach().double().unflatten(-1, (heads, -1)).norm(dim=-1)
    return norms / norms.sum(-1, keepdim=True).clamp(min=SMALLEST_NORM)


def top_features(share: Tensor, head: int, k: int = 10) -> list[tuple[int, float]]:
    """The k features with the largest share of one head, largest first, ties to the lowest number: (feature, share).

    Args:
        share: [feature, head], by weights or by DFA; NaN (a feature that never fired) is left out.
        head: which.
        k: how many.
    """
    column = share[:, head].nan_to_num(-1.0)
    order = torch.argsort(column, descending=True, stable=True)[: max(k, 0)]
    return [(int(i), float(column[i])) for i in order if column[i] >= 0]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two tables of shares [feature, head] agree; each number with its control, the same with the features of one shuffled.

    Attributes:
        features: how many were compared.
        pearson: correlation over all (feature, head) pairs.
        rank: Spearman's correlation over the heads of a feature, mean over features.
        top_head: share of features of which both name the same head first.
        pearson_control, rank_control, top_head_control: means over the shuffles; what remains is what all features share (heads that
            are large in every feature).
    """

    features: int
    pearson: float
    rank: float
    top_head: float
    pearson_control: float
    rank_control: float
    top_head_control: float


def agreement(a: Tensor, b: Tensor, *, shuffles: int = 20, seed: int = 0) -> Agreement:
    """Compare two tables of shares; features with NaN in either are left out.

    Args:
        a, b: [feature, head].
        shuffles: how often the control is drawn.
        seed: of the shuffles.

    Raises:
        OptionError: tables of other shapes, or fewer than two features to compare.
    """
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] < 2:
        raise OptionError(f"wanted two tables [feature, head >= 2], got {tuple(a.shape)} and {tuple(b.shape)}")
    known = ~(a.isnan().any(1) | b.isnan().any(1))
    x, y = a[known].double().numpy(), b[known].double().numpy()
    if len(x) < 2:
        raise OptionError(f"{len(x)} features have shares in both tables; at least 2 are needed")
    random = np.random.default_rng(seed)
    found = _compared(x, y)
    control = np.mean([_compared(x, y[random.permutation(len(y))]) for _ in range(shuffles)], axis=0)
    return Agreement(
        features=len(x),
        pearson=found[0],
        rank=found[1],
        top_head=found[2],
        pearson_control=float(control[0]),
        rank_control=float(control[1]),
        top_head_control=float(control[2]),
    )


def _compared(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Pearson over all pairs, mean Spearman over features, share of equal first heads."""
    ranks = [_correlation(_ranks(p), _ranks(q)) for p, q in zip(x, y, strict=True)]
    same = float((x.argmax(1) == y.argmax(1)).mean())
    return _correlation(x.ravel(), y.ravel()), float(np.nanmean(ranks)), same


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[inverse]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / norm if norm > 0 else float("nan")


def _check_heads(sae: SAE, heads: int) -> None:
    if heads < 1 or sae.config.d_in % heads:
        raise OptionError(f"heads must divide d_in = {sae.config.d_in}; got {heads}")
