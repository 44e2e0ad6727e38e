"""Bringing dead features back by giving them directions of badly reconstructed inputs (Bricken et al. 2023; Kissane et al. 2024's code).

For each dead feature one input is drawn, without replacement, with probability proportional to its squared error squared; the decoder row
becomes the unit direction from b_dec to it, the encoder column that times 0.2 of the mean norm of the live columns, its biases 0, and Adam
forgets what it knew of both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interp.saes.core import SAE
from interp.saes.recipe import Recipe

ENCODER_SHARE = 0.2
"""Norm of a new encoder column, in mean norms of the live ones."""
BATCHES = 20
"""Batches from which inputs are drawn."""


@torch.no_grad()
def resample(sae: SAE, dead: Tensor, batch: Callable[[int], Tensor], step: int, recipe: Recipe) -> dict[str, Tensor]:
    """Replace dead features in place.

    Args:
        sae: the autoencoder.
        dead: which of its features, bool [d_sae].
        batch: a batch by its number, as the training reads them.
        step: before which this happens; inputs are drawn from the batches before it.
        recipe: for the seed and the threshold of JumpReLU.

    Returns:
        Which entries of each weight were replaced, bool, by name: what Adam must forget.
    """
    many = int(dead.sum())
    forget = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in sae.weights.items()}
    if not many:
        return forget
    x = torch.cat([batch(n) for n in range(max(step - BATCHES, 0), max(step, 1))])
    error = torch.cat([(part - sae(part)).square().sum(-1) for part in x.split(1024)])
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    weight = error.double().square()
    # A batch may hold fewer rows with an error than there are dead features: the others then stay dead until the next time.
    numbers = dead.nonzero()[: min(many, int((weight > 0).sum())), 0]
    if not len(numbers):
        return forget
    drawn = torch.multinomial(weight / weight.sum(), len(numbers), replacement=False, generator=generator)
    direction = x[drawn] - sae.b_dec
    direction = direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    live = sae.W_enc[:, ~dead]
    norm = live.norm(dim=0).mean() if live.shape[1] else torch.tensor(1.0)
    sae.W_dec[numbers] = direction
    sae.W_enc[:, numbers] = (ENCODER_SHARE * norm * direction).T
    forget["W_dec"][numbers] = True
    forget["W_enc"][:, numbers] = True
    for name, w in sae.weights.items():
        if name not in ("W_enc", "W_dec", "b_dec"):
            w[numbers] = recipe.jumprelu.threshold if name == "threshold" else 0.0
            forget[name][numbers] = True
    return forget
