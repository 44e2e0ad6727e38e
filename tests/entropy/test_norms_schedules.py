"""QK-norm, soft cap and temperatures against dense attention; projections and spectral norms against the model's own tensors."""

from __future__ import annotations

import copy
import math

import pytest
import torch

TEXT = "the quick brown fox jumps over the lazy dog"
KNOWN = ("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "gpt_oss", "bert")


@pytest.mark.parametrize("family", KNOWN)
def test_projections_give_the_queries_and_keys_of_every_head(family: str) -> None:
    """Row 0 has the rotary angle 0, so its queries are x W_Q + b, up to a factor of all heads; norms of the model's own come after."""
    import interp
    from interp.entropy.projections import query_keys

    model = interp.tiny(family)
    found = query_keys(model.hf)
    assert sorted(found) == list(range(model.layers))
    normed = family in ("qwen3", "gemma3")
    assert all(x.normed == normed for x in found.values())
    if normed:
        return
    given, calls = {}, {}
    halves = {(layer, name): getattr(x, name) for layer, x in found.items() for name in ("q", "k")}
    handles = [
        half.module.register_forward_hook(lambda m, args, out, key=key: given.update({key: args[0].detach()}))
        for key, half in halves.items()
    ]
    with torch.no_grad():
        model.probe(TEXT, lambda call, attended: calls.update({call.site.layer: (call.q, call.k)}))
        for (layer, name), half in halves.items():
            heads = torch.einsum("d,hde->he", given[layer, name][0, 0], half.weight)
            bias = half.module.bias
            heads = heads if bias is None else heads + bias[half.rows]
            actual = calls[layer][0 if name == "q" else 1][0, :, 0]
            factor = float((actual * heads).sum() / heads.square().sum())
            torch.testing.assert_close(actual, factor * heads, atol=1e-4, rtol=1e-3)
            assert family == "gpt_oss" or abs(factor - 1) < 1e-4 or family == "opt"
    for handle in handles:
        handle.remove()
    w_q, w_k = found[0].weights()
    assert w_q.shape == w_k.shape
    assert w_q.shape[0] == model.heads


def test_spectral_norms_are_those_of_the_products() -> None:
    from interp.entropy.spectral import qk_norm_product, qk_spectral_norm

    for width, size in ((31, 7), (5, 11)):
        w_q, w_k = (torch.randn(3, width, size, dtype=torch.float64) for _ in range(2))
        wanted = torch.stack([torch.linalg.svdvals(a @ b.T)[0] for a, b in zip(w_q, w_k, strict=True)])
        torch.testing.assert_close(qk_spectral_norm(w_q, w_k), wanted, atol=1e-10, rtol=1e-10)
        product = torch.stack(
            [torch.linalg.svdvals(a)[0] * torch.linalg.svdvals(b)[0] for a, b in zip(w_q, w_k, strict=True)]
        )
        torch.testing.assert_close(qk_norm_product(w_q, w_k), product, atol=1e-10, rtol=1e-10)
        assert bool((product >= wanted).all())


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_qk_norm_bounds_every_logit(kind) -> None:
    from interp.entropy.norms import QKNorm

    norm = QKNorm(7, kind=kind)
    with torch.no_grad():
        norm.q.gain.copy_(torch.linspace(0.5, 2, 7))
        norm.k.gain.copy_(torch.linspace(1.5, 0.1, 7))
    q, k = norm(1e4 * torch.randn(2, 3, 101, 7), 1e4 * torch.randn(2, 3, 101, 7))
    logits = q @ k.mT / 7**0.5
    assert float(logits.detach().abs().max()) <= norm.bound()
    assert norm.bound() == pytest.approx(
        7**0.5 * float((torch.linspace(0.5, 2, 7) * torch.linspace(1.5, 0.1, 7)).max())
    )
    x = torch.randn(5, 7)
    wide = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    torch.testing.assert_close(norm.q(x), wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.q.gain)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "bert", "vit"])
def test_qk_norm_is_added_before_rotary_positions(family: str) -> None:
    import interp
    from interp.entropy.norms import add_qk_norm
    from interp.errors import UnsupportedModelError

    model = interp.tiny(family)
    inputs = torch.randn(1, 3, model.hf.config.image_size, model.hf.config.image_size) if family == "vit" else TEXT
    seen = {}
    assert add_qk_norm(model.hf) == tuple(range(model.layers))
    names = [n for n, _ in model.hf.named_parameters() if "query_norm" in n or "key_norm" in n]
    assert len(names) == 2 * model.layers
    with torch.no_grad():
        model.probe(inputs, lambda call, a: seen.update({call.site.layer: (call.q, call.k, call.v)}))
    for q, k, v in seen.values():
        size = q.shape[-1]
        torch.testing.assert_close(q.square().mean(-1), torch.ones(q.shape[:-1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(k.square().mean(-1), torch.ones(k.shape[:-1]), atol=1e-3, rtol=0)
        assert float((v.square().mean(-1) - 1).abs().max()) > 1e-2, "values are left alone"
        assert size == q.shape[-1]
    twin = copy.deepcopy(model.hf)
    with torch.no_grad():
        for name, p in twin.named_parameters():
            if "query_norm" in name:
                p.mul_(3.0)
    same = torch.stack([dict(model.hf.named_parameters())[n] for n in names if "query" in n])
    assert float(same.detach().max()) == 1.0, "the copy has norms of its own"
    with pytest.raises(UnsupportedModelError, match="already"):
        add_qk_norm(model.hf)


def test_models_with_a_norm_of_their_own_are_refused() -> None:
    import interp
    from interp.entropy.norms import add_qk_norm
    from interp.errors import UnsupportedModelError

    with pytest.raises(UnsupportedModelError, match="already"):
        add_qk_norm(interp.tiny("qwen3").hf)


def test_the_soft_cap_acts_in_the_kernel() -> None:
    import interp
    from interp.entropy.norms import SoftCap, soft_cap
    from interp.errors import EditError

    model = interp.tiny("llama")
    found = {}
    with torch.no_grad():
        model.probe(TEXT, lambda call, a: found.update(plain=(call, a)) if call.site.layer == 0 else None)
        with model.edit(SoftCap(cap=0.7, layers=(0,))):
            model.probe(TEXT, lambda call, a: found.update(capped=(call, a)) if call.site.layer == 0 else None)
    call, capped = found["plain"][0], found["capped"][1]
    k, v = (x[0].double().repeat_interleave(call.group, 0) for x in (call.k, call.v))
    s = soft_cap(call.q[0].double() @ k.mT * (call.scale or call.q.shape[3] ** -0.5), 0.7)
    assert 0.69 < float(s.abs().max()) <= 0.7
    p = s.masked_fill(torch.ones(s.shape[1:]).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(capped.out[0].double(), p @ v, atol=1e-5, rtol=1e-5)
    for wrong in ({"cap": 0.0}, {"cap": math.inf}, {"cap": 3.0, "heads": ((0, 1),)}):
        with pytest.raises(EditError, match="SoftCap"):
            SoftCap(**wrong)
    gemma = interp.tiny("gemma2")
    with pytest.raises(EditError, match="already"), gemma.edit(SoftCap(cap=3.0)):
        gemma.run(TEXT)


def test_ramps_start_and_end_where_they_say() -> None:
    from interp.entropy.schedules import SHAPES, Ramp
    from interp.errors import OptionError

    for shape in SHAPES:
        ramp = Ramp(start=0.25, end=4.0, steps=40, shape=shape)
        assert ramp(40) == ramp(4000) == pytest.approx(4.0)
        assert shape == "constant" or ramp(0) == pytest.approx(0.25)
        assert all(ramp(n) <= ramp(n + 1) for n in range(40))
    middle = {"constant": 4.0, "linear": 2.125, "cosine": 2.125, "exponential": 1.0}
    assert {s: Ramp(start=0.25, end=4.0, steps=40, shape=s)(20) for s in SHAPES} == pytest.approx(middle)
    for wrong in ({"steps": 0}, {"start": 0.0}, {"end": math.nan}):
        with pytest.raises(OptionError, match="Ramp"):
            Ramp(**wrong)


def test_temperatures_follow_the_step_and_learn() -> None:
    import interp
    from interp.entropy.schedules import LearnedTemperature, Ramp, ScheduledTemperature
    from interp.errors import EditError

    model = interp.tiny("llama")
    ids = model.encode(TEXT)
    step = [0]
    warm = ScheduledTemperature(schedule=Ramp(start=1e-6, end=1.0, steps=10), step=lambda: step[0])
    base = model.run(ids, collect=["normalised_entropy", "entropy"])
    with model.edit(warm):
        cold = model.run(ids, collect=["normalised_entropy"]).stats["normalised_entropy"]
        step[0] = 10
        torch.testing.assert_close(model.run(ids, collect=["entropy"]).stats["entropy"], base.stats["entropy"])
    torch.testing.assert_close(cold[..., 1:], torch.ones_like(cold[..., 1:]), atol=1e-4, rtol=0)
    learned = LearnedTemperature(model.layers, model.heads)
    with model.edit(learned):
        loss = model.hf(torch.tensor([ids]), labels=torch.tensor([ids]), use_cache=False).loss
    loss.backward()
    grad = learned.log_tau.grad
    assert grad is not None
    assert bool((grad != 0).all())
    moved, change = LearnedTemperature(model.layers, model.heads), 1e-2
    with torch.no_grad():
        moved.log_tau[1, 2] += change
        with model.edit(moved):
            after = model.hf(torch.tensor([ids]), labels=torch.tensor([ids]), use_cache=False).loss
        moved.log_tau[1, 2] -= 2 * change
        with model.edit(moved):
            before = model.hf(torch.tensor([ids]), labels=torch.tensor([ids]), use_cache=False).loss
    assert float(grad[1, 2]) == pytest.approx(float(after - before) / (2 * change), rel=0.05, abs=2e-5)
    with pytest.raises(EditError, match="layers x heads"), model.edit(LearnedTemperature(1, 1)):
        pass
