"""`observing`: torch's attention, its module, transformers' interface: what is heard equals the dense definition, and nothing is changed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dense_entropy(q: Tensor, k: Tensor, bias: Tensor | None, scale: float | None = None) -> Tensor:
    """Row entropies in float64; bias broadcasts to [B, H, Nq, Nk], -inf hides."""
    s = q.double() @ k.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    p = (s if bias is None else s + bias.double()).softmax(-1)
    return -(p * p.clamp_min(1e-300).log()).sum(-1)


def hidden(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)


class Heard:
    """Collects what an observer tells."""

    def __init__(self) -> None:
        from interp.capture.call import Collect

        self.entropies: list[Tensor] = []
        self.paths: list[str] = []
        self.layers: list[int] = []
        self.collect = Collect(entropy=True)

    def __call__(self, seen: Any) -> None:
        self.paths.append(seen.path)
        self.layers.append(seen.call.site.layer)
        self.entropies.append(seen.call.attend(self.collect).stats["entropy"].clone())


class Attends(nn.Module):
    """Calls torch's function with whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, **options)


class Two(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, *args: Tensor, **options: Any) -> Any:
        return self.second(*args, **options), self.first(*args, **options)


B, H, NQ, NK, D = 2, 3, 7, 11, 5
SEEN = torch.rand(B, 1, NQ, NK, generator=torch.Generator().manual_seed(1)) > 0.3
SEEN[..., 0] = True
KEYS = torch.ones(B, 1, 1, NK, dtype=torch.bool)
KEYS[0, ..., 9:] = False
CASES = {
    "full": ({}, None),
    "causal": ({"is_causal": True}, hidden(torch.ones(NQ, NK, dtype=torch.bool).tril())),
    "bool mask": ({"attn_mask": SEEN}, hidden(SEEN)),
    "additive mask, two axes": (
        {"attn_mask": torch.linspace(-2, 2, NQ * NK).view(NQ, NK)},
        torch.linspace(-2, 2, NQ * NK).view(NQ, NK),
    ),
    "keys only": ({"attn_mask": KEYS}, hidden(KEYS)),
    "scale and dropout": ({"scale": 0.9, "dropout_p": 0.5}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_calls_of_torchs_function_are_heard_exactly_and_unchanged(case: str) -> None:
    from interp.capture.observe import observing

    options, bias = CASES[case]
    q, k, v = torch.randn(B, H, NQ, D), torch.randn(B, H, NK, D), torch.randn(B, H, NK, D)
    model, heard = Attends(), Heard()
    torch.manual_seed(3)
    wanted = model(q, k, v, **options)
    torch.manual_seed(3)
    with observing(model, heard) as observer:
        got = model(q, k, v, **options)
    assert torch.equal(got, wanted), "an observer changes no number, dropout included"
    assert observer.heard == 1 and not observer.unseen
    torch.testing.assert_close(
        heard.entropies[0].double(), dense_entropy(q, k, bias, options.get("scale")), atol=2e-6, rtol=1e-5
    )


def test_layers_are_numbered_by_first_call_and_named_by_path() -> None:
    from interp.capture.observe import observing

    model, heard, layers = Two(Attends(), Attends()), Heard(), {}
    x = torch.randn(1, 2, 5, 3)
    for _ in range(2):
        with observing(model, heard, layers=layers):
            model(x, x, x)
    assert heard.paths == ["second", "first"] * 2
    assert heard.layers == [0, 1] * 2


def test_grouped_queries_and_three_axes() -> None:
    from interp.capture.observe import observing

    q, k = torch.randn(B, 6, NQ, D), torch.randn(B, 3, NQ, D)
    heard = Heard()
    with observing(Attends(), heard):
        F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
        F.scaled_dot_product_attention(q[:, 0], k[:, 0], k[:, 0])
    torch.testing.assert_close(
        heard.entropies[0].double(), dense_entropy(q, k.repeat_interleave(2, 1), None), atol=2e-6, rtol=1e-5
    )
    assert heard.entropies[1].shape == (B, 1, NQ)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["plain", "masked", "separate", "extra keys"])
def test_the_module_is_heard_on_every_path(kind: str, training: bool, need_weights: bool) -> None:
    from interp.capture.observe import observing

    width, heads = 12, 3
    options: dict[str, Any] = {
        "separate": {"kdim": 7, "vdim": 5},
        "extra keys": {"add_bias_kv": True, "add_zero_attn": True},
    }.get(kind, {})
    module = nn.MultiheadAttention(width, heads, batch_first=True, **options).train(training)
    query = torch.randn(2, 5, width)
    key, value = (torch.randn(2, 5, 7), torch.randn(2, 5, 5)) if kind == "separate" else (query, query)
    masks: dict[str, Any] = {}
    if kind == "masked":
        padding = torch.zeros(2, 5, dtype=torch.bool)
        padding[1, 3:] = True
        masks = {"attn_mask": ~torch.ones(5, 5, dtype=torch.bool).tril(), "key_padding_mask": padding}
    with torch.no_grad():
        _, weights = module(query, key, value, average_attn_weights=False, **masks)
        assert torch.backends.mha.get_fastpath_enabled()
        heard = Heard()
        with observing(module, heard) as observer:
            module(query, key, value, need_weights=need_weights, **masks)
    assert torch.backends.mha.get_fastpath_enabled(), "the fast path is back"
    assert observer.heard == 1 and not observer.unseen
    wanted = -(weights.double() * weights.double().clamp_min(1e-300).log()).sum(-1)
    torch.testing.assert_close(heard.entropies[0].double(), wanted, atol=5e-6, rtol=1e-4)


def test_torchs_encoder_is_heard_in_evaluation() -> None:
    from interp.capture.observe import observing

    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 17, batch_first=True), 2).eval()
    heard = Heard()
    with torch.no_grad(), observing(encoder, heard):
        encoder(torch.randn(2, 5, 12))
    assert heard.paths == ["layers.0.self_attn", "layers.1.self_attn"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_oss", "gemma2", "vit", "bert"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_transformers_models_are_heard_on_their_own_implementation(family: str, implementation: str) -> None:
    import interp
    from interp.capture.observe import observing

    if implementation == "sdpa" and family in ("gpt_oss", "gemma2"):
        implementation = "interp"
    model = interp.tiny(family)
    hf = model.hf if implementation == "interp" else model.release()
    if implementation != "interp":
        hf.set_attn_implementation(implementation)
    given: dict[str, Tensor] = (
        {"pixel_values": torch.randn(2, hf.config.num_channels, hf.config.image_size, hf.config.image_size)}
        if family == "vit"
        else {"input_ids": torch.randint(5, 40, (2, 19))}
    )
    heard = Heard()
    with torch.no_grad():
        before = hf(**given)[0]
        with observing(hf, heard) as observer:
            after = hf(**given)[0]
    assert torch.equal(before, after)
    assert hf.config._attn_implementation == implementation, "the config is as it was"
    assert not observer.unseen
    assert len(heard.paths) == hf.config.num_hidden_layers
    if implementation == "eager":
        maps = hf(**given, output_attentions=True).attentions
        for got, p in zip(heard.entropies, maps, strict=True):
            p = p.double()
            rest = 1 - p.sum(-1)  # a learned sink's share; an outcome of its own
            wanted = -(p * p.clamp_min(1e-300).log()).sum(-1)
            wanted = wanted - torch.where(rest > 1e-6, rest * rest.clamp_min(1e-300).log(), 0.0)
            torch.testing.assert_close(got.double(), wanted, atol=2e-5, rtol=1e-4)


class HandmadeAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj((x @ x.mT).softmax(-1) @ x)


def test_what_cannot_be_seen_is_named() -> None:
    from interp.capture.observe import observing

    heard = Heard()
    with observing(nn.Sequential(HandmadeAttention()), heard) as observer:
        nn.Sequential(HandmadeAttention())(torch.randn(1, 3, 4))  # another model: nothing of ours ran
    assert not observer.unseen
    model = nn.Sequential(HandmadeAttention())
    with observing(model, heard) as observer:
        model(torch.randn(1, 3, 4))
    assert list(observer.unseen) == ["0"] and "by hand" in observer.unseen["0"]
    assert not heard.entropies


def test_an_error_of_the_model_leaves_everything_as_it_was() -> None:
    from interp.capture.observe import observing

    model = Two(Attends(), Attends())
    with pytest.raises(RuntimeError), observing(model, Heard()):
        model(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 5), torch.randn(1, 2, 3, 5))
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert (
        torch.overrides._len_torch_function_stack() == 0
        if hasattr(torch.overrides, "_len_torch_function_stack")
        else True
    )


def test_gradients_are_those_of_the_model_alone() -> None:
    from interp.capture.observe import observing

    module = nn.MultiheadAttention(12, 3, batch_first=True)
    x = torch.randn(2, 5, 12)

    def gradients() -> list[Tensor]:
        module.zero_grad()
        module(x, x, x)[0].square().sum().backward()
        return [p.grad.clone() for p in module.parameters() if p.grad is not None]

    plain = gradients()
    with observing(module, Heard()):
        watched = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
