"""Every statistic of interp.stats once more, from its definition: one text, one layer, dense float64, no padding."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping

import torch
from torch import Tensor

from interp.models.families import SPECIALS

MIN_ALPHA_ROWS = 16
NAN = float("nan")


def truth(
    *,
    scores: Tensor,
    allowed: Tensor,
    weights: Tensor,
    values: Tensor,
    sink_mass: Tensor | None,
    rows: list[int] | None,
    keys: list[int] | None,
    causal: bool,
    cross: bool,
    sets: Mapping[str, list[bool]],
) -> dict[str, Tensor]:
    """All statistics that exist for this attention, by name: [H, n], [H, m] or [H], NaN where undefined.

    Args:
        scores, allowed, weights: [H, n, m] of one text without padding.
        values: [H, m, Dv], one per query head.
        sink_mass: [H, n] of a learned sink, or None.
        rows, keys: token ids of the two axes, None where there are no tokens.
        causal: whether no row sees a later key.
        cross: whether the axes are two different texts.
        sets: further named key sets, a bool for each key.
    """
    heads, n, m = weights.shape
    p = weights
    seen = allowed.sum(-1)
    found: dict[str, Tensor] = {}

    entropy = -(torch.xlogy(p, p)).sum(-1)
    if sink_mass is not None:
        entropy = entropy - torch.xlogy(sink_mass, sink_mass)
        found["learned_sink_mass"] = sink_mass
    found["entropy"] = entropy
    outcomes = seen + (1 if sink_mass is not None else 0)
    found["normalised_entropy"] = torch.where(seen >= 2, entropy / outcomes.double().log(), NAN)
    found["effective_keys"] = entropy.exp()
    found["collision_entropy"] = torch.where(seen > 0, -(p**2).sum(-1).log(), NAN)
    found["max_probability"] = torch.where(seen > 0, p.amax(-1), NAN)
    rest = p[..., 1:]
    shares = rest / rest.sum(-1, keepdim=True)
    found["non_sink_entropy"] = torch.where(rest.sum(-1) > 0, -torch.xlogy(shares, shares).sum(-1), NAN)
    mean = (scores * allowed).sum(-1) / seen.clamp(min=1)
    found["logit_norm"] = ((scores - mean[..., None]).masked_fill(~allowed, 0.0) ** 2).sum(-1).sqrt()

    first = [j == 0 for j in range(m)]
    four = [j < 4 for j in range(m)]
    for name, members in {"first_token": first, "first_four": four, **sets}.items():
        label = name if name.startswith("span:") else f"{name}_mass"
        found[label] = p[..., torch.tensor(members)].sum(-1)

    if not cross:
        found["current_token_mass"] = p.diagonal(dim1=1, dim2=2)
        previous = torch.full((heads, n), NAN, dtype=p.dtype)
        previous[:, 1:] = p.diagonal(offset=-1, dim1=1, dim2=2)
        found["previous_token_mass"] = torch.where(seen >= 2, previous, NAN)
        gap = torch.arange(n)[:, None] - torch.arange(m)
        found["mean_distance"] = (p * gap).sum(-1)
        for w in (64, 256, 1024):
            found[f"window_mass_{w}"] = (p * ((gap >= 0) & (gap < w))).sum(-1)
        if rows is not None and causal:
            found["duplicate_token_mass"] = _matches(p, rows, lambda i, j: j < i and rows[j] == rows[i])
            found["induction_mass"] = _matches(p, rows, lambda i, j: 1 <= j <= i and rows[j - 1] == rows[i])

    total = p.sum(1)
    by = allowed.sum(1)
    found["received_mass"] = total
    found["received_rows"] = by.double()
    found["alpha"] = torch.where(by >= MIN_ALPHA_ROWS, total / by, NAN)
    alpha = p[..., 0].sum(-1) / (seen > 0).sum(-1)
    found["first_token_alpha"] = alpha
    for eps in (0.2, 0.3, 0.4, 0.5):
        found[f"sink_rate_{eps}"] = (alpha > eps).double()

    z = p @ values
    found["output_norm"] = z.norm(dim=-1)
    found["value_weighted_sink_share"] = p[..., 0] * values[:, :1].norm(dim=-1) / z.norm(dim=-1)
    return found


def _matches(p: Tensor, ids: list[int], wanted) -> Tensor:
    """Mass on the keys that `wanted(i, j)` names, NaN for rows whose token did not occur before."""
    out = torch.full(p.shape[:2], NAN, dtype=p.dtype)
    for i in range(len(ids)):
        if ids[i] in ids[:i]:
            out[:, i] = sum(p[:, i, j] for j in range(p.shape[2]) if wanted(i, j))
    return out


def byte_sets(ids: list[int], tokenizer) -> dict[str, list[bool]]:
    """Special tokens (the byte tokenizer's first ids) and ASCII punctuation of a text."""
    marks = {tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in string.punctuation}
    return {"special": [i < len(SPECIALS) for i in ids], "punctuation": [i in marks for i in ids]}


def error(got: Tensor, want: Tensor) -> float:
    """Largest error |got - want| / max(1, |want|); infinite if NaN or shapes differ."""
    if got.shape != want.shape or not torch.equal(got.isnan(), want.isnan()):
        return math.inf
    gap = (got.double() - want).abs() / want.abs().clamp(min=1.0)
    return float(gap.nan_to_num(0.0).max()) if gap.numel() else 0.0
