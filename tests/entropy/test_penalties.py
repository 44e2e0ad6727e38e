"""Entropy penalties: values and gradients against the dense map in float64, by torch's own autograd."""

from __future__ import annotations

import math

import pytest
import torch

BATCH, HEADS, GROUPS, TOKENS, SIZE = 2, 6, 3, 13, 5
GAMMA = 0.15


def dense_entropy(
    q: torch.Tensor, k: torch.Tensor, left: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """H [B, H, N], n [B, N] and real rows [B, N] of a causal map with left padding."""
    s = q @ k.repeat_interleave(HEADS // GROUPS, 1).mT / SIZE**0.5
    i = torch.arange(TOKENS)
    seen = (i[None, :, None] >= i) & (i >= left[:, None, None])
    real = i >= left[:, None]
    # Rows that see nothing are computed from zeros, and left out.
    s = torch.where((seen | ~real[..., None])[:, None], s, -torch.inf)
    log_p = s.log_softmax(-1)
    entropy = -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)
    return entropy, seen.sum(-1), real


def corrected(entropy, n, real, w):
    total, count = 0.0, 0
    for b in range(BATCH):
        for i in range(TOKENS):
            if real[b, i] and n[b, i] >= 2:
                d = entropy[b, :, i] / math.log(n[b, i]) - w
                total = total + torch.where(d.abs() > GAMMA, d**2, torch.zeros_like(d)).sum()
                count += HEADS
    return total / count


def legacy(entropy, n, real, w):
    top = math.log(int(n.max()))
    d = (entropy - (w * top)[None, :, None]) * real[:, None]
    return torch.where(real[:, None] & (d.abs() > GAMMA * top), d**2, torch.zeros_like(d)).sum((0, 2)).mean()


def maximisation(entropy, n, real, w):
    kept = (real & (n >= 2))[:, None].expand(entropy.shape)
    return -entropy[kept].mean()


def target(entropy, n, real, w):
    kept = (real & (n >= 2))[:, None].expand(entropy.shape)
    share = entropy / n.clamp(min=2).double().log()[:, None]
    return ((share - w[None, :, None]) ** 2)[kept].mean()


def ours(name, rows, w):
    from interp.entropy import penalties

    return {
        "corrected": lambda: penalties.overload_penalty(rows, w, gamma=GAMMA),
        "legacy": lambda: penalties.overload_penalty(rows, w, gamma=GAMMA, form="legacy"),
        "maximisation": lambda: penalties.entropy_maximisation(rows),
        "target": lambda: penalties.target_penalty(rows, w),
    }[name]()


DENSE = {"corrected": corrected, "legacy": legacy, "maximisation": maximisation, "target": target}


@pytest.mark.parametrize("backend", ["portable", "reference", "auto"])
@pytest.mark.parametrize("name", DENSE)
def test_values_and_gradients_are_those_of_the_dense_map(name: str, backend: str) -> None:
    from interp.entropy.rows import Mask, measure

    draw = torch.Generator().manual_seed(3)
    q, k = (
        (2 * torch.randn(BATCH, h, TOKENS, SIZE, generator=draw, dtype=torch.float64)).requires_grad_()
        for h in (HEADS, GROUPS)
    )
    w = torch.linspace(0.2, 0.9, HEADS, dtype=torch.float64).requires_grad_()
    left = torch.tensor([0, 4])
    rows = measure(q, k, mask=Mask.causal().padded(left=left), backend=backend)
    tensors = (q, k) if name == "maximisation" else (q, k, w)
    got = ours(name, rows, w)
    got_grads = torch.autograd.grad(got, tensors)
    wanted = DENSE[name](*dense_entropy(q, k, left), w)
    wanted_grads = torch.autograd.grad(wanted, tensors)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)
    assert all(g.abs().max() > 1e-6 for g in wanted_grads)
    for g, wanted_g in zip(got_grads, wanted_grads, strict=True):
        torch.testing.assert_close(g, wanted_g, atol=1e-8, rtol=1e-8)


def test_the_corrected_form_does_not_depend_on_batch_or_padding_and_the_legacy_form_does() -> None:
    from interp.entropy.penalties import overload_penalty
    from interp.entropy.rows import Mask, measure

    q, k = (torch.randn(1, h, TOKENS, SIZE, dtype=torch.float64) for h in (HEADS, GROUPS))
    w = torch.full((HEADS,), 0.4, dtype=torch.float64)
    once = measure(q, k)
    twice = measure(q.repeat(3, 1, 1, 1), k.repeat(3, 1, 1, 1))
    junk = torch.randn(1, 1, 4, SIZE, dtype=torch.float64)
    padded = measure(
        torch.cat([junk.expand(-1, HEADS, -1, -1), q], 2),
        torch.cat([junk.expand(-1, GROUPS, -1, -1), k], 2),
        mask=Mask.causal().padded(left=torch.tensor([4])),
    )
    value = overload_penalty(once, w)
    assert 0 < float(value) <= 1
    torch.testing.assert_close(overload_penalty(twice, w), value)
    torch.testing.assert_close(overload_penalty(padded, w), value)
    torch.testing.assert_close(overload_penalty(twice, w, form="legacy"), 3 * overload_penalty(once, w, form="legacy"))


def test_a_model_trains_its_thresholds_and_lowers_the_penalty_in_one_pass() -> None:
    import interp
    from interp.entropy.penalties import OverloadPenalty
    from interp.entropy.rows import collecting
    from interp.errors import ShapeError

    model = interp.tiny("llama")
    ids = torch.tensor([model.encode("entropy of attention, in one pass")])
    penalty = OverloadPenalty(model.layers, model.heads, gamma=0.0)
    optimizer = torch.optim.Adam([*model.hf.parameters(), *penalty.parameters()], lr=3e-3)
    values = []
    for _ in range(8):
        with collecting(model) as rows:
            loss = model.hf(ids, labels=ids, use_cache=False).loss
        assert sorted(rows) == list(range(model.layers))
        values.append(penalty(rows).item())
        optimizer.zero_grad()
        (loss + 10 * penalty(rows)).backward()
        assert penalty.thresholds.grad is not None
        assert bool((penalty.thresholds.grad != 0).all()), "every layer has thresholds of its own"
        optimizer.step()
    assert values[-1] < 0.7 * values[0], values
    old = OverloadPenalty(model.layers, model.heads, gamma=0.0, form="legacy")
    with collecting(model) as rows:
        model.hf(ids, use_cache=False)
    old(rows).backward()
    assert old.thresholds.grad is not None
    assert old.thresholds.grad[1:].abs().max() == 0, "the released code uses the first layer's for all"
    with pytest.raises(ShapeError, match="collecting"):
        penalty({})


def test_targets_are_one_for_all_or_one_for_each_head() -> None:
    from interp.entropy.penalties import target_penalty
    from interp.entropy.rows import measure
    from interp.errors import ShapeError

    rows = measure(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4))
    with pytest.raises(ShapeError, match="2 heads"):
        target_penalty(rows, torch.ones(3))
    assert float(target_penalty(rows, 0.5)) == pytest.approx(float(target_penalty(rows, torch.full((2,), 0.5))))
