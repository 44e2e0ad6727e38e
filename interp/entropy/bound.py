"""How low a row's entropy can be, given only the spread of its logits (Zhai et al. 2023, arXiv 2303.06296, theorem 3.1).

The paper: with T keys and sigma = ||W_K W_Q^T||_2 ||X X^T||_2, every row of the map has

    H >= log(1 + (T - 1) b) + sigma sqrt(T (T - 1)) b / (1 + (T - 1) b),    b = exp(-sigma sqrt(T / (T - 1)))

which falls as T sigma e^-sigma. Row by row, with no weights: sigma is rho_i, the Euclidean norm of the row's logits about their mean, and T is
n_i, its number of outcomes. That bound is tight: it is the entropy of the row with one logit raised and all others equal, the row of least
entropy for its norm (`extremal_row`).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def entropy_bound(norm: Float[Tensor, "*row"], outcomes: Int[Tensor, "*#row"]) -> Float[Tensor, "*row"]:
    """Least entropy of rows whose centred logits have the norm `norm`, nats; 0 for rows with fewer than two outcomes.

    Args:
        norm: rho_i, or the paper's sigma; at least 0.
        outcomes: n_i, or T.
    """
    n = outcomes.to(norm.dtype).clamp(min=2)
    gap = norm * (n / (n - 1)).sqrt()
    others = (n - 1) * (-gap).exp()
    # gap e^-gap goes to 0; infinity times 0 would not.
    bound = others.log1p() + torch.where(others > 0, others * gap, 0.0) / (1 + others)
    return torch.where(outcomes >= 2, bound, 0.0)


def centred_norm(scores: Float[Tensor, "*row key"], visible: Bool[Tensor, "*#row key"] | None = None) -> Tensor:
    """rho of rows of logits that are at hand: norm of the visible logits about their mean, [*row] in their dtype; 0 where none is visible.

    For logits that were never stored the kernel's `logit_moments` give the same, see `interp.entropy.rows`.
    """
    if visible is None:
        return (scores - scores.mean(-1, keepdim=True)).norm(dim=-1)
    kept = torch.where(visible, scores, 0.0)
    mean = kept.sum(-1, keepdim=True) / visible.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(visible, kept - mean, 0.0).norm(dim=-1)


def norm_of_moments(moments: Float[Tensor, "*row 2"], outcomes: Int[Tensor, "*#row"]) -> Float[Tensor, "*row"]:
    """rho from the sums of (s - c) and (s - c)^2 over a row's outcomes, whatever c is: rho^2 = second - first^2 / n."""
    first, second = moments.unbind(-1)
    return (second - first.square() / outcomes.clamp(min=1)).clamp(min=0).sqrt()


def extremal_row(norm: float, outcomes: int) -> Tensor:
    """The logits of norm `norm` with the least entropy: one raised, the rest equal, mean 0; float64 [outcomes]."""
    row = torch.full((outcomes,), -norm / math.sqrt(outcomes * (outcomes - 1)), dtype=torch.float64)
    row[0] = norm * math.sqrt((outcomes - 1) / outcomes)
    return row
