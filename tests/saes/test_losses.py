"""Every training loss against its formula, written out densely in float64; gradients through autograd on that formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp.saes import losses
from interp.saes.architectures import shapes
from interp.saes.core import SAE
from interp.saes.initial import config_of
from interp.saes.losses import Stage, outcome
from interp.saes.recipe import JumpReLURecipe, Recipe

ROWS, D, F, K = 7, 13, 23, 3
LAMBDA = 0.7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def recipe(architecture: str, **options: object) -> Recipe:
    k = {"k": K} if "topk" in architecture else {}
    return Recipe(**{"architecture": architecture, "d_sae": F, "tokens": 100, "batch": 10, "auxk": 0.5} | k | options)


def build(how: Recipe) -> SAE:
    config = replace(config_of(how, D), dtype="float64")
    weights = {name: drawn(*shape, seed=n) for n, (name, shape) in enumerate(shapes(config).items())}
    if "threshold" in weights:
        weights["threshold"] = weights["threshold"].abs()
    return SAE(config, weights)


def stage(how: Recipe, dead: Tensor | None = None, k: float = K) -> Stage:
    return Stage(
        recipe=how, sparsity=LAMBDA, k=float(k), dead=torch.zeros(F, dtype=torch.bool) if dead is None else dead
    )


def leaves(sae: SAE) -> dict[str, Tensor]:
    return {name: w.detach().clone().requires_grad_() for name, w in sae.weights.items()}


def same(sae: SAE, x: Tensor, at: Stage, wanted: Tensor, w: dict[str, Tensor]) -> losses.Outcome:
    """Loss and gradients of an outcome equal those of the formula `wanted` of the leaves `w`."""
    done = outcome(sae, x, at)
    assert torch.allclose(done.loss, wanted, rtol=1e-9)
    assert torch.allclose(torch.stack(list(done.parts.values())).sum(), wanted, rtol=1e-9)
    done.loss.backward()
    wanted.backward()
    for name, leaf in w.items():
        grad = sae.weights[name].grad
        assert grad is not None and leaf.grad is not None
        assert torch.allclose(grad, leaf.grad, atol=1e-9), name
    return done


def mse(x: Tensor, out: Tensor) -> Tensor:
    return (x - out).pow(2).sum(-1).mean()


def test_standard() -> None:
    how = recipe("standard")
    sae, x = build(how), drawn(ROWS, D)
    w = leaves(sae)
    f = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    out = f @ w["W_dec"] + w["b_dec"]
    done = same(sae, x, stage(how), mse(x, out) + LAMBDA * (f * w["W_dec"].norm(dim=1)).sum(-1).mean(), w)
    assert torch.equal(done.fired, (f > 0).sum(0))
    assert torch.allclose(done.error, x - out)


def test_gated() -> None:
    how = recipe("gated")
    sae, x = build(how), drawn(ROWS, D)
    w = leaves(sae)
    p = (x - w["b_dec"]) @ w["W_enc"]
    gate = torch.relu(p + w["b_gate"])
    f = (p + w["b_gate"] > 0) * torch.relu(p * w["r_mag"].exp() + w["b_mag"])
    through = gate @ w["W_dec"].detach() + w["b_dec"].detach()
    l1 = LAMBDA * (gate * w["W_dec"].norm(dim=1)).sum(-1).mean()
    same(sae, x, stage(how), mse(x, f @ w["W_dec"] + w["b_dec"]) + l1 + mse(x, through), w)


@pytest.mark.parametrize("loss", ["step", "tanh", "quadratic"])
def test_jumprelu(loss: str) -> None:
    how = recipe(
        "jumprelu", jumprelu=JumpReLURecipe(loss=loss, bandwidth=0.8, target=5.0, steepness=0.3, dead_loss=0.25)
    )
    sae, x = build(how), drawn(ROWS, D)
    dead = torch.arange(F) % 5 == 0
    w = leaves(sae)
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    threshold = w["threshold"]
    active = pre.relu() > threshold
    near = ((pre.relu() - threshold).abs() < 0.4).detach()
    # A number whose value is the function and whose gradient is the estimator's.
    gate = active.double() + (threshold.detach() - threshold) * near / 0.8
    f = pre.relu() * active + (threshold.detach() - threshold) * near * threshold.detach() / 0.8
    f = f + 0.0 * gate
    norms = w["W_dec"].norm(dim=1)
    l0 = gate.sum(-1)
    amount = {"step": l0, "tanh": torch.tanh(0.3 * f * norms).sum(-1), "quadratic": 2 * (l0 - 5).pow(2) / 5}[loss]
    short = (torch.relu(threshold - pre) * norms * dead).sum(-1).mean()
    out = f @ w["W_dec"] + w["b_dec"]
    same(sae, x, stage(how, dead), mse(x, out) + LAMBDA * amount.mean() + 0.25 * short, w)


def largest(pre: Tensor, k: float, by_batch: bool) -> Tensor:
    if by_batch:
        flat = pre.detach().flatten()
        return pre * (pre >= flat.sort(descending=True).values[int(k * len(pre)) - 1])
    return pre * (pre >= pre.detach().sort(-1, descending=True).values[:, int(k) - 1 : int(k)])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("decoder", ["unit", "free"])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka_batchtopk"])
def test_the_k_largest(architecture: str, decoder: str, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    how = recipe(architecture, decoder=decoder, widths=(5, 11, F) if "matry" in architecture else ())
    if dense:  # as where the sparse products do not exist
        monkeypatch.setattr(losses, "supported", lambda x: False)
    sae, x = build(how), drawn(ROWS, D)
    assert sae.config.rescale_acts_by_decoder_norm == (decoder == "free")
    dead = torch.arange(F) % 5 == 0
    w = leaves(sae)
    centred = x - w["b_dec"]
    pre = centred @ w["W_enc"] + w["b_enc"]
    units = w["W_dec"].detach().norm(dim=1) if decoder == "free" else torch.ones(F, dtype=torch.float64)
    kept = largest(pre.detach() * units, K, "batch" in architecture) > 0
    f = torch.relu(pre) * kept
    out = f @ w["W_dec"] + w["b_dec"]
    wanted = mse(x, out)
    for width in how.nested[:-1]:
        wanted = wanted + mse(x, f[:, :width] @ w["W_dec"][:width] + w["b_dec"])
    assert int(dead.sum()) < D // 2  # so that AuxK takes all of the dead
    aux = torch.relu(pre)[:, dead] @ w["W_dec"][dead]
    wanted = wanted + 0.5 * mse((x - out).detach(), aux)
    done = same(sae, x, stage(how, dead), wanted, w)
    assert torch.equal(done.fired, (f > 0).sum(0))
    assert ("mse_5" in done.parts) == ("matry" in architecture)


def test_auxk_takes_the_strongest_half_of_the_inputs_width() -> None:
    how = recipe("topk")
    sae, x = build(how), drawn(ROWS, D)
    dead = torch.arange(F) < 17  # more than D // 2 = 6
    pre = ((x - sae.b_dec) @ sae.W_enc + sae.weights["b_enc"]).detach()
    out = largest(pre, K, False).relu() @ sae.W_dec + sae.b_dec
    f = torch.zeros(ROWS, F, dtype=torch.float64)
    for row in range(ROWS):
        for i in pre[row, :17].argsort(descending=True)[:6]:
            f[row, i] = pre[row, i].clamp(min=0)
    assert torch.allclose(outcome(sae, x, stage(how, dead)).parts["auxk"], 0.5 * mse(x - out, f @ sae.W_dec))


def test_k_may_be_more_than_there_are_positive_ones() -> None:
    how = recipe("batchtopk")
    sae, x = build(how), drawn(ROWS, D)
    done = outcome(sae, x, stage(how, k=F))
    pre = (x - sae.b_dec) @ sae.W_enc + sae.weights["b_enc"]
    assert torch.equal(done.fired, (pre > 0).sum(0))
