"""From what is trained to what is kept: norms folded, one threshold for the batch kinds, the scale of the inputs folded in.

Decoder rows have norm 1 then, and a feature's activation is the length of what it adds to z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.saes.architectures import pre_activations
from interp.saes.core import SAE
from interp.saes.recipe import Recipe

CHUNK = 1_024


@torch.no_grad()
def finish(sae: SAE, recipe: Recipe, scale: float, rows: Tensor, *, origin: Mapping[str, Any] | None = None) -> SAE:
    """The autoencoder for z as it is, of one of SAELens' kinds.

    Args:
        sae: as trained, for inputs times `scale`.
        recipe: how it was trained.
        scale: factor on its inputs.
        rows: inputs times the scale on which a threshold is set, [row, d_in].
        origin: metadata for its file.
    """
    if recipe.decoder == "free":
        sae = sae.folded()
    if recipe.needs_threshold:
        sae = sae.with_threshold(threshold_for(sae, rows, float(recipe.k or 0)))
    return SAE(replace(sae.config, metadata=dict(origin or {})), sae.unscaled(scale, keep="decoder").weights)


@torch.no_grad()
def threshold_for(sae: SAE, rows: Tensor, k: float) -> float:
    """The threshold above which k features per row are active on average, on these rows.

    A running estimate over training (from 0, as SAELens has it) is far off after few steps; the quantile is right after any number.
    """
    count = int(k * len(rows)) + 1
    best = torch.empty(0)
    for part in rows.split(CHUNK):
        acts = pre_activations(sae.project(part), sae.weights, sae.config).relu().flatten()
        best = torch.cat([best, acts])
        best = best.topk(min(count, len(best)), sorted=True).values
    return float(best[-1]) if len(best) >= count else 0.0
