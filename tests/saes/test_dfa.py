"""DFA against dense float64 attention of the plain Hugging Face model, grouped heads and learned sinks included; its identities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.errors import EditError, OptionError
from interp.interventions import GateHeads
from interp.models.toy import tiny, tiny_parts
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.dfa import attribute, attribution_map, firing, text_heads

LAYER, FEATURES, TOKENS = 1, 23, 29
IDS = torch.randint(7, 260, (TOKENS,), generator=torch.Generator().manual_seed(6)).tolist()


def build(d_in: int, dtype: str = "float32") -> SAE:
    generator = torch.Generator().manual_seed(5)
    weights = {
        "W_enc": torch.randn(d_in, FEATURES, generator=generator) * 0.3,
        "W_dec": torch.randn(FEATURES, d_in, generator=generator) * 0.2,
        "b_dec": torch.randn(d_in, generator=generator) * 0.1,
        "b_enc": torch.randn(FEATURES, generator=generator) * 0.2,
    }
    config = SAEConfig(architecture="topk", k=5, d_in=d_in, d_sae=FEATURES, dtype=dtype)
    return SAE(config, weights)


def dense(family: str, sae: SAE, pairs: list[tuple[int, int]]) -> list[Tensor]:
    """a_h(t, s) of pairs (t, feature), from the plain model's own eager attention in float64: [head, source] each."""
    hf = tiny_parts(family).hf.double()
    hf.set_attn_implementation("eager")
    kept: list[Tensor] = []
    modules = {"llama": "model.layers.1.self_attn.v_proj", "gpt2": "transformer.h.1.attn.c_attn"}
    hook = hf.get_submodule(modules[family]).register_forward_hook(lambda m, args, out: kept.append(out[0]))
    with torch.no_grad():
        pattern = hf(input_ids=torch.tensor([IDS]), output_attentions=True).attentions[LAYER][0]
    hook.remove()
    heads = pattern.shape[0]
    groups = {"llama": 2, "gpt2": heads}[family]
    v = kept[0][:, -kept[0].shape[1] // 3 :] if family == "gpt2" else kept[0]
    v = v.unflatten(1, (groups, -1))
    found = []
    for token, feature in pairs:
        column = sae.W_enc.detach().double()[:, feature].unflatten(0, (heads, -1))
        a = torch.zeros(heads, TOKENS, dtype=torch.float64)
        for h in range(heads):
            for s in range(TOKENS):
                a[h, s] = pattern[h, token, s] * (v[s, h // (heads // groups)] @ column[h])
        found.append(a)
    return found


@pytest.mark.parametrize(("family", "dtype"), [("llama", "float32"), ("gpt2", "float32"), ("gpt2", "float64")])
def test_dfa_is_the_dense_definition(family: str, dtype: str) -> None:
    model = tiny(family)
    model.hf.to(getattr(torch, dtype))
    text = text_heads(model, IDS, LAYER)
    sae = build(text.flat.shape[1], dtype)
    pairs = [(17, 3), (28, 19), (0, 3), (17, 11)]
    found = attribute(sae, text, [t for t, _ in pairs], [f for _, f in pairs], sinks=(0, 2))
    # Rows of a map come back in float32, whatever the model's dtype; what z itself gives does not.
    close = {"atol": 3e-6, "rtol": 0.0}
    exact = {"atol": 1e-10 if dtype == "float64" else 3e-6, "rtol": 0.0}
    for p, wanted in enumerate(dense(family, sae, pairs)):
        torch.testing.assert_close(found.by_source[p].double(), wanted.sum(0), **close)
        torch.testing.assert_close(found.sinks_by_head[p].double(), wanted[:, [0, 2]].sum(1), **close)
        torch.testing.assert_close(attribution_map(sae, text, *pairs[p]).double(), wanted, **close)
        torch.testing.assert_close(found.by_head[p].double(), wanted.sum(1), **exact)
        share = wanted.sum(0).abs()
        assert float(found.sink_share[p]) == pytest.approx(float(share[[0, 2]].sum() / share.sum()), abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gemma2", "gpt_oss"])
def test_heads_and_sources_and_bias_make_what_fires(family: str) -> None:
    text = text_heads(tiny(family), IDS, LAYER)
    sae = build(text.flat.shape[1])
    tokens, features, values = firing(sae, text)
    assert int(tokens.min()) == 1 and len(tokens) > 4 * (TOKENS - 1)
    found = attribute(sae, text, tokens, features)
    assert float((found.pre_activation - values).abs().max()) < 1e-5
    assert float((found.by_source.sum(1) + found.bias - values).abs().max()) < 1e-5
    assert float(found.remainder.abs().max()) < 1e-5


def test_the_identity_is_that_of_float64_where_the_model_is() -> None:
    model = tiny("llama")
    model.hf.double()
    text = text_heads(model, IDS, LAYER)
    sae = build(text.flat.shape[1], "float64")
    tokens, features, values = firing(sae, text)
    found = attribute(sae, text, tokens, features)
    assert float((found.pre_activation - values).abs().max()) < 1e-10


def test_views_without_sinks_lose_exactly_the_sinks() -> None:
    text = text_heads(tiny("llama"), IDS, LAYER)
    sae = build(text.flat.shape[1])
    found = attribute(sae, text, [13, 7], [2, 3], sinks=(0, 5))
    left = found.by_source_without_sinks
    assert torch.equal(left[:, [0, 5]], torch.zeros(2, 2))
    torch.testing.assert_close(left.sum(1), found.by_head_without_sinks.sum(1), atol=1e-5, rtol=0)
    assert float(found.sinks_by_head.abs().max()) > 1e-3
    assert torch.equal(attribute(sae, text, [13], [2], sinks=()).by_source_without_sinks[0], found.by_source[0])


def test_only_the_rows_asked_for_are_computed() -> None:
    text = text_heads(tiny("llama"), IDS, LAYER)
    whole = torch.stack([m.dense() for m in text.maps], 1)
    torch.testing.assert_close(text.weights([3, 4, 5, 11]), whole[[3, 4, 5, 11]])
    assert text.weights([28]).shape == (1, 6, TOKENS)


def test_an_edit_behind_the_softmax_is_refused() -> None:
    model = tiny("llama")
    with model.edit(GateHeads(gate={(LAYER, 2): 0.5})), pytest.raises(EditError, match="behind the softmax"):
        text_heads(model, IDS, LAYER)


def test_pairs_that_do_not_exist_are_refused() -> None:
    text = text_heads(tiny("llama"), IDS, LAYER)
    sae = build(text.flat.shape[1])
    with pytest.raises(OptionError, match="pairs"):
        attribute(sae, text, [TOKENS], [0])
    with pytest.raises(OptionError, match="sinks"):
        attribute(sae, text, [3], [0], sinks=(TOKENS,))
    with pytest.raises(OptionError, match="token"):
        attribution_map(sae, text, -1, 0)
