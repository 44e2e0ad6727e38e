"""The sparse products against dense ones, values and every gradient, and the straight-through estimators against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.saes.jump import jumprelu, step
from interp.saes.sparse import Pattern, decoded, picked, supported

TOKENS, D, F = 7, 13, 23


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def pattern(kept: Tensor) -> Pattern:
    token, feature = kept.nonzero(as_tuple=True)
    return Pattern.of(token, feature, tokens=kept.shape[0], features=kept.shape[1])


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_values_and_gradients_are_those_of_dense_products(share: float) -> None:
    assert supported(drawn(2, 2))
    kept = torch.rand(TOKENS, F, generator=torch.Generator().manual_seed(1)) < share
    kept[2] = False  # a token without features
    x, target = drawn(TOKENS, D), drawn(TOKENS, D, seed=5)
    given = [drawn(D, F), drawn(F), drawn(D), drawn(F, D, seed=3)]

    def dense(w_enc: Tensor, b_enc: Tensor, b_dec: Tensor, w_dec: Tensor) -> Tensor:
        f = torch.where(kept, (x - b_dec) @ w_enc + b_enc, 0.0)
        return (f.relu() @ w_dec + b_dec - target).square().sum()

    def sparse(w_enc: Tensor, b_enc: Tensor, b_dec: Tensor, w_dec: Tensor) -> Tensor:
        centred, which = x - b_dec, pattern(kept)
        pre = (centred @ w_enc + b_enc).detach()
        values = picked(centred, (w_enc, b_enc, b_dec), pre, which).relu()
        return (decoded(values, w_dec, which) + b_dec - target).square().sum()

    results = []
    for function in (dense, sparse):
        weights = [w.clone().requires_grad_() for w in given]
        loss = function(*weights)
        loss.backward()
        results.append([loss.detach(), *(w.grad for w in weights)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_a_pattern_turns() -> None:
    kept = torch.rand(TOKENS, F, generator=torch.Generator().manual_seed(2)) < 0.3
    values = torch.arange(int(kept.sum()), dtype=torch.float64) + 1
    dense = torch.zeros(TOKENS, F, dtype=torch.float64)
    dense[kept] = values
    assert torch.equal(pattern(kept).matrix(values).to_dense(), dense)
    assert torch.equal(pattern(kept).turned_matrix(values).to_dense(), dense.T)


def test_straight_through_gradients_by_their_formulas() -> None:
    x, threshold, width = drawn(TOKENS, F), drawn(F, seed=4).abs(), 0.9
    g = drawn(TOKENS, F, seed=6)
    near = ((x - threshold) / width).abs() < 0.5
    for function, value, by_x, by_threshold in (
        (jumprelu, x * (x > threshold), g * (x > threshold), -(threshold / width * near * g).sum(0)),
        (step, (x > threshold).double(), None, -(near * g / width).sum(0)),
    ):
        a, t = x.clone().requires_grad_(), threshold.clone().requires_grad_()
        out = function(a, t, width)
        out.backward(g)
        assert torch.equal(out, value)
        assert t.grad is not None
        assert torch.allclose(t.grad, by_threshold)
        assert (a.grad is None) if by_x is None else torch.equal(a.grad, by_x)
    assert 0 < int(near.sum()) < near.numel()
