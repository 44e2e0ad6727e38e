"""Penalties on attention entropy, differentiable through the fused kernels: no map is stored, forward or backward.

Overload (Entropy-Guided Attention; Jha & Reagen 2025, arXiv 2501.03489). Each head has a learned threshold w_h, a share of the largest
entropy; rows that are further than a margin gamma from it pay the square of the distance:

    corrected (default)   d_i = H_i / log n_i - w_h,  d_i^2 where |d_i| > gamma;  mean over rows with n_i >= 2, texts, heads and layers
    legacy                d_i = H_i - w_h log T,      d_i^2 where |d_i| > gamma log T;  summed over rows and texts, mean over heads and
                          layers, thresholds of the first layer used for every layer

`legacy` is what the released code computes. It measures causal rows against log T, which a row with n_i < T keys cannot reach, and its
weight grows with batch and length; so a lambda of the paper (1e-5) means nothing for the corrected form, whose value lies in [0, 1]. In both
the margin is a dead zone without shrinkage: the penalty jumps from 0 to gamma^2 at its edge, and has no gradient inside.

Collapse. `entropy_maximisation` is AEM's term lambda sum_j p_j log p_j, the negative entropy (Zhang et al. 2024, arXiv 2406.15303, for the one row
of an attention pooling; 0.1 in its example). `target_penalty` draws every head to an entropy of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.entropy.rows import EntropyRows
from interp.errors import OptionError, ShapeError

Form = Literal["corrected", "legacy"]
Unit = Literal["fraction", "nats"]
GAMMA = 0.2
"""Margin of Entropy-Guided Attention (swept from 0 to 0.3 there)."""
LEGACY_WEIGHT = 1e-5
"""lambda of Entropy-Guided Attention, for its summed form."""


def overload_penalty(
    rows: EntropyRows, thresholds: Float[Tensor, " head"], *, gamma: float = GAMMA, form: Form = "corrected"
) -> Float[Tensor, ""]:
    """Penalty of one layer, without lambda.

    Args:
        rows: of one attention call.
        thresholds: w_h, shares of the largest entropy.
        gamma: margin, a share of the largest entropy too.
        form: "corrected" (in [0, 1] for thresholds in [0, 1]) or "legacy" (see the module; T is the number of keys of the call, and padding
            rows, which the released code counts, are left out).

    Raises:
        OptionError: another form.
    """
    w = thresholds[None, :, None]
    if form == "legacy":
        top = math.log(int(rows.outcomes.max()))
        deviation, kept, margin = rows.entropy - w * top, rows.real.expand(rows.entropy.shape), gamma * top
    elif form == "corrected":
        deviation, kept, margin = _share(rows) - w, rows.defined, gamma
    else:
        raise OptionError(f"form must be corrected or legacy; got {form!r}")
    squares = torch.where(kept & (deviation.abs() > margin), deviation.square(), 0.0)
    return squares.sum() / rows.entropy.shape[1] if form == "legacy" else squares.sum() / kept.sum().clamp(min=1)


class OverloadPenalty(nn.Module):
    """The penalty of all layers, with its learned thresholds.

    Attributes:
        thresholds: w, parameter [layer, head], 1 at first. In the legacy form the first layer's row is used for every layer.
        gamma, form: as in `overload_penalty`.
    """

    def __init__(self, layers: int, heads: int, *, gamma: float = GAMMA, form: Form = "corrected") -> None:
        super().__init__()
        self.thresholds = nn.Parameter(torch.ones(layers, heads))
        self.gamma = gamma
        self.form: Form = form

    def forward(self, rows: Mapping[int, EntropyRows]) -> Tensor:
        """Mean over layers of the penalty of each, without lambda. `rows` by layer, as `interp.entropy.collecting` gives them."""
        if not rows:
            raise ShapeError(
                "OverloadPenalty: no layer was collected; run the model inside `with collecting(model) as rows`"
            )
        terms = [
            overload_penalty(
                r,
                self.thresholds[0 if self.form == "legacy" else layer].to(r.entropy),
                gamma=self.gamma,
                form=self.form,
            )
            for layer, r in rows.items()
        ]
        return torch.stack(terms).mean()


def entropy_maximisation(rows: EntropyRows, *, unit: Unit = "nats") -> Float[Tensor, ""]:
    """AEM's term without lambda: minus the mean entropy over heads, texts and rows with at least two keys; in nats as published.

    "fraction" divides each row by log n_i first, for rows of unequal length.
    """
    kept = rows.defined
    entropy = rows.entropy if _checked(unit) == "nats" else _share(rows)
    return -torch.where(kept, entropy, 0.0).sum() / kept.sum().clamp(min=1)


def target_penalty(
    rows: EntropyRows, target: Float[Tensor, " head"] | float, *, unit: Unit = "fraction"
) -> Float[Tensor, ""]:
    """Mean square distance of each row's entropy from its head's target, over rows with at least two keys.

    Args:
        rows: of one attention call.
        target: of every head, or one for all.
        unit: of targets and distances: "fraction" of log n_i, or "nats".
    """
    kept = rows.defined
    entropy = rows.entropy if _checked(unit) == "nats" else _share(rows)
    wanted = torch.as_tensor(target).to(entropy).reshape(-1)
    if len(wanted) not in (1, entropy.shape[1]):
        raise ShapeError(f"target: wanted one entropy or one for each of {entropy.shape[1]} heads, got {len(wanted)}")
    squares = (entropy - wanted[None, :, None]).square()
    return torch.where(kept, squares, 0.0).sum() / kept.sum().clamp(min=1)


def _share(rows: EntropyRows) -> Tensor:
    """H_i / log n_i with finite values and gradients everywhere: rows that see fewer than two keys get H_i / log 2."""
    return rows.entropy / rows.outcomes.clamp(min=2).to(rows.entropy.dtype).log()


def _checked(unit: Unit) -> Unit:
    if unit not in ("fraction", "nats"):
        raise OptionError(f"unit must be fraction or nats; got {unit!r}")
    return unit
