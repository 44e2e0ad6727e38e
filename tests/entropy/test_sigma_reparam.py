"""sigmaReparam against its formula with an exact SVD; conversion, removal and checkpoints in both directions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn


def top(weight: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().double().flatten(1), ord=2))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.conv = nn.Conv2d(2, 3, (2, 1))
        self.attention = nn.MultiheadAttention(14, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = torch.cat([y, y.tanh()], -1)
        z = self.attention(y, y, y, need_weights=False)[0]
        return self.conv(torch.stack([y, z], 1)).sum(1)


def test_conversion_and_removal_leave_the_function_as_it_is() -> None:
    from interp.entropy.sigma_reparam import convert, remove, spectral_norms

    model = Small().eval()
    x = torch.randn(3, 11, 5)
    before = model(x)
    names = [n for n, _ in model.named_parameters()]
    done = convert(model)
    assert set(done.names) == {"first.weight", "conv.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    torch.testing.assert_close(model(x), before, atol=1e-6, rtol=1e-5)
    for name, gammas in spectral_norms(model).items():
        path, _, key = name.rpartition(".")
        assert gammas[0] == pytest.approx(top(getattr(model.get_submodule(path), key)), rel=1e-5)
    now = model(x)
    assert set(remove(model)) == set(done.names)
    assert torch.equal(model(x), now), "to the bit"
    assert sorted(n for n, _ in model.named_parameters()) == sorted(names)
    assert type(model.first) is nn.Linear


def test_the_gradient_goes_through_sigma_and_not_through_u_and_v() -> None:
    from interp.entropy.sigma_reparam import SigmaReparam, convert

    layer = nn.Linear(4, 6, bias=False).double().eval()
    plain = layer.weight.detach().clone()
    convert(layer, start="one")
    made = layer.parametrizations.weight[0]
    assert isinstance(made, SigmaReparam)
    with torch.no_grad():
        made.gamma.fill_(1.7)
    x = torch.randn(9, 4, dtype=torch.float64)
    layer(x).square().sum().backward()
    w = plain.clone().requires_grad_()
    u, _, vh = torch.linalg.svd(plain)
    sigma = u[:, 0] @ w @ vh[0]
    gamma = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    (x @ (gamma / sigma * w).T).square().sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, w.grad, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(made.gamma.grad, gamma.grad[None], atol=1e-10, rtol=1e-10)
    assert float(sigma.detach()) == pytest.approx(top(plain))
    assert top(layer.weight) == pytest.approx(1.7, rel=1e-10)


def test_power_iteration_follows_a_moving_weight_in_training_only() -> None:
    from interp.entropy.sigma_reparam import convert

    layer = nn.Linear(17, 13).train()
    convert(layer)
    made = layer.parametrizations.weight[0]
    stored = layer.parametrizations.weight.original
    with torch.no_grad():
        stored.add_(0.3 * torch.randn_like(stored))
    u = made.u.clone()
    with torch.no_grad():
        layer(torch.randn(2, 17))
    layer.eval()(torch.randn(2, 17))
    assert torch.equal(made.u, u), "neither evaluation nor a look without gradients moves it"
    layer.train()
    losses = [layer(torch.randn(2, 17)).sum() for _ in range(60)]
    sum(losses).backward()  # earlier graphs are good although u and v have moved on
    assert float(made.sigma(stored)) == pytest.approx(top(stored), rel=1e-4)
    assert top(layer.weight) == pytest.approx(float(made.gamma.detach()), rel=1e-4)


def test_bfloat16_keeps_sigma_in_float32() -> None:
    from interp.entropy.sigma_reparam import convert

    layer = nn.Linear(33, 29).to(torch.bfloat16)
    convert(layer)
    made = layer.parametrizations.weight[0]
    assert made.u.dtype == torch.float32
    assert layer.weight.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sigma = made.sigma(layer.parametrizations.weight.original)
    assert sigma.dtype == torch.float32
    assert float(sigma) == pytest.approx(top(layer.parametrizations.weight.original), rel=1e-5)


@pytest.mark.parametrize("start", ["spectral", "one"])
def test_checkpoints_load_both_ways(start) -> None:
    from interp.entropy.sigma_reparam import convert, plain_state

    x = torch.randn(3, 11, 5)
    trained, fresh = Small().eval(), Small().eval()
    convert(fresh, start=start)
    fresh.load_state_dict(trained.state_dict())  # plain into converted, strictly
    torch.testing.assert_close(fresh(x), trained(x), atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        for p in fresh.parameters():
            p.mul_(1.1)
    plain = Small().eval()
    plain.load_state_dict(plain_state(fresh))  # converted into plain, strictly
    torch.testing.assert_close(plain(x), fresh(x), atol=1e-6, rtol=1e-5)
    twin = Small().eval()
    convert(twin, start=start)
    twin.load_state_dict(fresh.state_dict())  # converted into converted
    assert torch.equal(twin(x), fresh(x))
    copied = copy.deepcopy(fresh)
    copied.load_state_dict(trained.state_dict())
    torch.testing.assert_close(copied(x), trained(x), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plain(x), fresh(x), atol=1e-6, rtol=1e-5)


def test_parts_of_a_joint_projection_are_normed_apart() -> None:
    import interp
    from interp.entropy.sigma_reparam import convert, spectral_norms

    hf = interp.tiny("gpt2").release()
    ids = torch.arange(7, 18)[None]
    with torch.no_grad():
        before = hf(ids).logits
    hf.transformer.h[0].attn.c_attn.weight.data[:, : hf.config.hidden_size] *= 5
    with torch.no_grad():
        before = hf(ids).logits
    done = convert(hf, where=lambda name, m: "attn" in name, split_fused=True)
    assert len(done.names) == 2 * hf.config.num_hidden_layers
    norms = spectral_norms(hf)["transformer.h.0.attn.c_attn.weight"]
    weight = hf.transformer.h[0].attn.c_attn.weight.detach()
    assert norms == pytest.approx([top(w) for w in weight.chunk(3, 1)], rel=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(hf(ids).logits, before, atol=2e-5, rtol=1e-5)
    again = convert(hf, where=lambda name, m: "h.0" in name)
    assert "transformer.h.0.attn.c_attn.weight" in again.skipped


def test_shared_weights_are_left_alone_and_zero_weights_refused() -> None:
    from interp.entropy.sigma_reparam import convert
    from interp.errors import OptionError

    model = nn.Sequential(nn.Embedding(11, 3), nn.Linear(3, 11, bias=False), nn.Linear(11, 2))
    model[1].weight = model[0].weight
    done = convert(model)
    assert (done.names, done.skipped) == (("2.weight",), ("1.weight",))
    empty = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    nn.init.zeros_(empty[1].weight)
    with pytest.raises(OptionError, match=r"1\.weight: .*all zero.*where="):
        convert(empty)
    assert type(empty[0]) is nn.Linear, "nothing was changed"
    with pytest.raises(OptionError, match="no linear layer"):
        convert(nn.LayerNorm(3))


def test_a_hooked_model_runs_converted() -> None:
    import interp
    from interp.entropy.sigma_reparam import convert, remove

    model = interp.tiny("llama")
    ids = model.encode("converted in place")
    before = model.run(ids, collect=["entropy"]).stats["entropy"]
    convert(model.hf)
    torch.testing.assert_close(model.run(ids, collect=["entropy"]).stats["entropy"], before, atol=1e-4, rtol=1e-4)
    remove(model.hf)
    torch.testing.assert_close(model.run(ids, collect=["entropy"]).stats["entropy"], before, atol=1e-4, rtol=1e-4)
