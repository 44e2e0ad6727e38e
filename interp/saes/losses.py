"""What a training step minimises: one function per architecture.

All are means over the rows of a batch; MSE is the sum of squares over d_in, ‖d_i‖ the norm of decoder row i (1 under the rule "unit").

standard      MSE + λ Σ f_i ‖d_i‖                                   Bricken et al. 2023; Conerly et al. 2024
gated         MSE + λ Σ ReLU(π_i) ‖d_i‖ + MSE of decoding ReLU(π) with a decoder that gets no gradient; π is the gate
jumprelu      MSE + λ L0, or its smoother forms (see `JumpReLURecipe`)
topk, batch   MSE + α AuxK: the dead features whose pre-activations are largest, d_in / 2 of them, decode what is left of x
matryoshka    the sum of the MSE of every nested dictionary + α AuxK
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from interp.saes import jump
from interp.saes.architectures import gated as gated_features
from interp.saes.config import BY_BATCH
from interp.saes.core import SAE
from interp.saes.recipe import Recipe
from interp.saes.sparse import Pattern, decoded, picked, supported


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Where a training stands.

    Attributes:
        recipe: how it is trained.
        sparsity: weight of the sparsity loss now.
        k: features per token now.
        dead: which features count as dead, bool [d_sae].
    """

    recipe: Recipe
    sparsity: float
    k: float
    dead: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a batch gave.

    Attributes:
        loss: what is minimised.
        parts: its summands by name, without gradients.
        error: x - x̂ without gradients, [row, d_in].
        fired: how many rows each feature fired on, int64 [d_sae].
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    error: Tensor
    fired: Tensor


def outcome(sae: SAE, x: Tensor, stage: Stage) -> Outcome:
    """The losses of a batch x [row, d_in], scaled as the recipe says."""
    return LOSSES[sae.config.architecture](sae, x, stage)


def mean_square(error: Tensor) -> Tensor:
    """Mean over rows of the sum of squares."""
    return error.square().sum(-1).mean()


def _outcome(x: Tensor, out: Tensor, fired: Tensor, **more: Tensor) -> Outcome:
    error = x - out
    parts = {"mse": mean_square(error), **more}
    loss = torch.stack(list(parts.values())).sum()
    return Outcome(loss=loss, parts={n: p.detach() for n, p in parts.items()}, error=error.detach(), fired=fired)


# ---------------------------------------------------------------------- kinds with a sparsity loss
def _standard(sae: SAE, x: Tensor, stage: Stage) -> Outcome:
    f = (sae.project(x) + sae.weights["b_enc"]).relu()
    l1 = stage.sparsity * (f * sae.W_dec.norm(dim=-1)).sum(-1).mean()
    return _outcome(x, sae.decode(f), (f > 0).sum(0), sparsity=l1)


def _gated(sae: SAE, x: Tensor, stage: Stage) -> Outcome:
    projected, w = sae.project(x), sae.weights
    f = gated_features(projected, w, sae.config)
    gate = (projected + w["b_gate"]).relu()
    l1 = stage.sparsity * (gate * sae.W_dec.norm(dim=-1)).sum(-1).mean()
    through_gate = mean_square(x - (gate @ sae.W_dec.detach() + sae.b_dec.detach()))
    return _outcome(x, sae.decode(f), (f > 0).sum(0), sparsity=l1, gate=through_gate)


def _jumprelu(sae: SAE, x: Tensor, stage: Stage) -> Outcome:
    w, how = sae.weights, stage.recipe.jumprelu
    pre = sae.project(x) + w["b_enc"]
    acts = pre.relu()
    f = jump.jumprelu(acts, w["threshold"], how.bandwidth)
    if how.loss == "tanh":
        amount = torch.tanh(how.steepness * f * sae.W_dec.norm(dim=-1)).sum(-1)
    else:
        amount = jump.step(acts, w["threshold"], how.bandwidth).sum(-1)
        if how.loss == "quadratic":
            amount = 2.0 * (amount - how.target).square() / how.target
    more = {"sparsity": stage.sparsity * amount.mean()}
    if how.dead_loss:
        short = ((w["threshold"] - pre).relu() * sae.W_dec.norm(dim=-1) * stage.dead).sum(-1).mean()
        more["dead"] = how.dead_loss * short
    return _outcome(x, sae.decode(f), (f > 0).sum(0), **more)


# ---------------------------------------------------------------------- kinds that keep the k largest
def _largest(sae: SAE, x: Tensor, stage: Stage) -> Outcome:
    w, config = sae.weights, sae.config
    centred = x - sae.b_dec if config.apply_b_dec_to_input else x
    norms = sae.W_dec.norm(dim=-1) if config.rescale_acts_by_decoder_norm else None
    with torch.no_grad():
        pre = torch.addmm(w["b_enc"], centred, w["W_enc"])
        pattern = _chosen(pre if norms is None else pre * norms, stage.k, by_batch=config.architecture in BY_BATCH)
    if supported(x):
        b_dec = sae.b_dec if config.apply_b_dec_to_input else sae.b_dec.detach()
        values = picked(centred, (w["W_enc"], w["b_enc"], b_dec), pre, pattern).relu()
    else:
        values = (centred @ w["W_enc"] + w["b_enc"])[pattern.token, pattern.feature].relu()
    # Where features count in units of the decoder's norms, the units cancel in what is decoded.
    more = {}
    for width in stage.recipe.nested[:-1]:
        more[f"mse_{width}"] = mean_square(x - _decode(sae, values * (pattern.feature < width), pattern))
    out = _decode(sae, values, pattern)
    if stage.recipe.auxk and bool(stage.dead.any()):
        more["auxk"] = stage.recipe.auxk * _auxk(sae, centred, (x - out).detach(), stage.dead)
    fired = torch.bincount(pattern.feature[values.detach() > 0], minlength=config.d_sae)
    return _outcome(x, out, fired, **more)


def _chosen(pre: Tensor, k: float, *, by_batch: bool) -> Pattern:
    """The k largest of each row, or the k T largest of all T rows."""
    tokens, features = pre.shape
    if by_batch:
        count = int(k * tokens)
        # Half the time of topk on so many; of exactly equal numbers at the bar none is kept.
        bar = pre.flatten().kthvalue(pre.numel() - count).values if count < pre.numel() else float("-inf")
        token, feature = (pre > bar).nonzero(as_tuple=True)
        return Pattern.of(token, feature, tokens=tokens, features=features)
    chosen = pre.topk(int(k), dim=-1, sorted=False).indices.sort(-1).values
    token = torch.arange(tokens, device=pre.device).repeat_interleave(int(k))
    return Pattern.of(token, chosen.flatten(), tokens=tokens, features=features)


def _decode(sae: SAE, values: Tensor, pattern: Pattern) -> Tensor:
    """x̂ of the kept features' values, [row, d_in]."""
    if supported(values):
        return decoded(values, sae.W_dec, pattern) + sae.b_dec
    empty = torch.zeros(pattern.tokens, pattern.features, dtype=values.dtype, device=values.device)
    return empty.index_put((pattern.token, pattern.feature), values) @ sae.W_dec + sae.b_dec


def _auxk(sae: SAE, centred: Tensor, error: Tensor, dead: Tensor) -> Tensor:
    """How badly the strongest dead features decode the error."""
    numbers = dead.nonzero()[:, 0]
    pre = centred @ sae.W_enc[:, numbers] + sae.weights["b_enc"][numbers]
    rank = pre * sae.W_dec[numbers].norm(dim=-1) if sae.config.rescale_acts_by_decoder_norm else pre
    chosen = rank.topk(min(max(sae.config.d_in // 2, 1), len(numbers)), dim=-1, sorted=False).indices
    f = torch.zeros_like(pre).scatter(-1, chosen, pre.gather(-1, chosen).relu())
    return mean_square(error - f @ sae.W_dec[numbers])


LOSSES: Final[Mapping[str, Callable[[SAE, Tensor, Stage], Outcome]]] = {
    "standard": _standard,
    "gated": _gated,
    "topk": _largest,
    "batchtopk": _largest,
    "jumprelu": _jumprelu,
    "matryoshka_batchtopk": _largest,
}
"""Name of an architecture -> its losses."""
