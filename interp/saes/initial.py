"""Weights at the start of a training, from a sample of what will be read.

Decoder rows are random unit directions (norm 0.1 under the rule "free"), drawn from the whole space or from the active subspace of z: the
leading principal directions that hold 99 % of the variance. z is of low rank, directions outside of it never fire, and starting inside
is what keeps features alive (Wang et al. 2025, arXiv 2508.16929). The encoder starts as the decoder's transpose, biases at 0, b_dec at the
mean or geometric median of the sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp.errors import OptionError
from interp.saes.architectures import KINDS
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.recipe import Recipe

VARIANCE = 0.99
"""Share of the variance that the active subspace holds."""
FREE_NORM = 0.1
"""Norm of the decoder's rows at the start where they are free (Conerly et al. 2024)."""
MEDIAN_STEPS = 50


def config_of(recipe: Recipe, d_in: int) -> SAEConfig:
    """The configuration that a recipe trains, for inputs of this length."""
    return SAEConfig(
        architecture=recipe.architecture,
        d_in=d_in,
        d_sae=recipe.d_sae,
        k=recipe.k,
        widths=recipe.nested,
        rescale_acts_by_decoder_norm=recipe.by_norm,
        reshape_activations="hook_z",
    )


def initial(recipe: Recipe, sample: Tensor) -> SAE:
    """An untrained autoencoder for what the sample [row, d_in] is of.

    Raises:
        OptionError: a subspace of more dimensions than there are.
    """
    d_in = sample.shape[-1]
    generator = torch.Generator().manual_seed(recipe.seed)
    centre = _centre(recipe, sample)
    basis = torch.eye(d_in)
    if recipe.start == "active-subspace":
        basis = active_subspace(sample, recipe.subspace)
    rows = torch.randn(recipe.d_sae, basis.shape[1], generator=generator) @ basis.T
    rows = rows / rows.norm(dim=-1, keepdim=True)
    if recipe.decoder == "free":
        rows = rows * FREE_NORM
    own = {name: torch.zeros(recipe.d_sae) for name in KINDS[recipe.architecture].extra}
    if "threshold" in own:
        own["threshold"] += recipe.jumprelu.threshold
    return SAE(config_of(recipe, d_in), {"W_enc": rows.T, "W_dec": rows, "b_dec": centre, **own})


def active_subspace(sample: Tensor, dimensions: int | None = None) -> Tensor:
    """Leading principal directions of a sample [row, d_in], as columns [d_in, dimension]; None: those that hold 99 % of the variance.

    Raises:
        OptionError: more dimensions than there are, or fewer than 1.
    """
    x = (sample - sample.mean(0)).double()
    values, vectors = torch.linalg.eigh(x.T @ x)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    if dimensions is None:
        share = values.cumsum(0) / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
        dimensions = int((share < VARIANCE).sum()) + 1
    if not 1 <= dimensions <= len(values):
        raise OptionError(f"subspace must have 1 to {len(values)} dimensions; got {dimensions}")
    return vectors[:, :dimensions].float()


def geometric_median(x: Tensor) -> Tensor:
    """The point whose summed distance to the rows of x is least, [d_in] (Weiszfeld's iteration)."""
    at = x.mean(0)
    for _ in range(MEDIAN_STEPS):
        weight = 1.0 / (x - at).norm(dim=-1).clamp(min=1e-12)
        at = (weight[:, None] * x).sum(0) / weight.sum()
    return at


def _centre(recipe: Recipe, sample: Tensor) -> Tensor:
    if recipe.bias == "zero":
        return torch.zeros(sample.shape[-1])
    return geometric_median(sample) if recipe.bias == "median" else sample.mean(0)
