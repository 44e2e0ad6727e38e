"""Recursive DFA: parts against a float64 decomposition of the stream written out by hand, sums on every family, planted composition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from interp.errors import OptionError, UnsupportedModelError
from interp.models.planted import planted
from interp.models.toy import tiny, tiny_parts
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.dfa import attribution_map, text_heads
from interp.saes.dfa_recursive import recursive_dfa
from interp.saes.stream import Stream

FEATURES, TOKENS = 13, 23
IDS = torch.randint(7, 260, (TOKENS,), generator=torch.Generator().manual_seed(8)).tolist()


def build(d_in: int) -> SAE:
    generator = torch.Generator().manual_seed(9)
    weights = {
        "W_enc": torch.randn(d_in, FEATURES, generator=generator) * 0.3,
        "W_dec": torch.randn(FEATURES, d_in, generator=generator),
        "b_dec": torch.zeros(d_in),
        "b_enc": torch.zeros(FEATURES),
    }
    return SAE(SAEConfig(architecture="standard", d_in=d_in, d_sae=FEATURES), weights)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt", "phi", "qwen2", "gpt_oss"])
def test_every_step_adds_up(family: str) -> None:
    model = tiny(family)
    layer = model.layers - 1
    sae = build(text_heads(model, IDS, layer).flat.shape[1])
    result = recursive_dfa(model, sae, layer, IDS, 17, 5, steps=3)
    by_source = attribution_map(sae, text_heads(model, IDS, layer), 17, 5).sum(0)
    first = result.manifest["steps"][0]
    assert first["source"] == 1 + int(by_source[1:18].argmax())
    assert first["value"] == pytest.approx(float(by_source[first["source"]]), abs=1e-5)
    for step in result.manifest["steps"]:
        assert abs(step["remainder"]) < 1e-5 < abs(step["value"])
    for step, rows in result.table.groupby("step"):
        assert float(rows["score"].sum()) == pytest.approx(result.manifest["steps"][step]["value"], abs=1e-6)
    assert (result.table["part"] == "remainder").sum() == len(result.manifest["steps"]) >= 2


def test_parts_of_a_llama_by_hand() -> None:
    layer, token, feature = 1, 19, 4
    model = tiny("llama")
    sae = build(60)
    result = recursive_dfa(model, sae, layer, IDS, token, feature, steps=1)
    (step,) = result.manifest["steps"]
    s = step["source"]
    hf = tiny_parts("llama").hf
    hf.set_attn_implementation("eager")
    seen: dict[str, Tensor] = {}
    watched = {
        "z": hf.model.layers[0].self_attn.o_proj, "mlp": hf.model.layers[0].mlp, "embedding": hf.model.layers[0],
        "norm": hf.model.layers[layer].input_layernorm,
    }  # fmt: skip
    for name, module in watched.items():
        module.register_forward_hook(
            lambda m, args, kwargs, out, name=name: seen.update({name: out[0] if name == "mlp" else args[0][0]}),
            with_kwargs=True,
        )
    with torch.no_grad():
        pattern = hf(input_ids=torch.tensor([IDS]), output_attentions=True).attentions[layer][0].double()
        x = seen["norm"][s].double()
        norm = hf.model.layers[layer].input_layernorm
        scale = norm.weight.double() / (x.square().mean() + norm.variance_epsilon).sqrt()
        w_v = hf.model.layers[layer].self_attn.v_proj.weight.double().unflatten(0, (2, 10))
        column = sae.W_enc.detach().double()[:, feature].unflatten(0, (6, 10))
        g = sum(pattern[h, token, s] * (column[h] @ w_v[h // 3]) for h in range(6)) * scale
        w_o = hf.model.layers[0].self_attn.o_proj.weight.double().T.unflatten(0, (6, 10))
        heads = [float(seen["z"][s].double()[10 * h : 10 * h + 10] @ w_o[h] @ g) for h in range(6)]
        mlp, embedding = (float(seen[name][s].double() @ g) for name in ("mlp", "embedding"))
    rows = result.table.set_index(["part", "layer", "head"])["score"]
    assert [rows["head", 0, h] for h in range(6)] == pytest.approx(heads, abs=1e-5)
    assert rows["mlp", 0, -1] == pytest.approx(mlp, abs=1e-5)
    assert rows["embedding", -1, -1] == pytest.approx(embedding, abs=1e-5)
    assert rows["norm bias", -1, -1] == rows["value bias", -1, -1] == 0.0


def test_a_planted_composition_is_followed_to_the_head_that_wrote() -> None:
    model, places = planted("retrieval")
    layer, head = places["retrieval"]
    word = 41
    ids = [3, 17, word, 29, 5, 83, 7, 61, 13, 17]  # the last token's earlier copy is followed by `word` at 2
    # A feature that reads what the retrieval head copies of `word`: the head's values hold the token's one-hot code.
    size = model.hf.config.n_embd // model.heads
    column = torch.zeros(model.heads, size)
    column[head, word] = 1.0
    weights = {
        "W_enc": column.flatten()[:, None], "W_dec": column.flatten()[None], "b_dec": torch.zeros(column.numel()),
        "b_enc": torch.zeros(1),
    }  # fmt: skip
    sae = SAE(SAEConfig(architecture="standard", d_in=column.numel(), d_sae=1), weights)
    text = text_heads(model, ids, layer)
    assert float(sae.encode(text.flat).detach()[9, 0]) > 0.5
    result = recursive_dfa(model, sae, layer, ids, 9, 0, steps=1)
    (step,) = result.manifest["steps"]
    assert (step["query"], step["source"], step["tokens"]) == (9, 2, ["w17", f"w{word}"])
    best = result.table.loc[result.table["score"].idxmax()]
    assert best["part"] == "embedding"
    assert best["score"] == pytest.approx(step["value"], rel=0.05)
    assert abs(best["control"]) < 0.05 * best["score"]


def test_streams_of_every_family_are_found_with_and_without_a_bridge() -> None:
    for family in ("gpt2", "llama"):
        plain, bridged = tiny(family), tiny(family)
        assert bridged.bridge is not None
        found = [Stream(m) for m in (plain, bridged)]
        z = torch.randn(3, found[0].layers[1].written(plain.heads).flatten(0, 1).shape[0])
        torch.testing.assert_close(found[0].lens(1, z), found[1].lens(1, z))


def test_the_lens_is_w_o_the_gain_and_the_unembedding() -> None:
    model = tiny("llama")
    hf = model.hf
    z = torch.randn(3, 60, generator=torch.Generator().manual_seed(1))
    wanted = (z @ hf.model.layers[1].self_attn.o_proj.weight.T * hf.model.norm.weight) @ hf.lm_head.weight.T
    torch.testing.assert_close(Stream(model).lens(1, z), wanted.detach(), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="norm behind"):
        Stream(tiny("gemma2"))
    sae = build(60)
    with pytest.raises(OptionError, match="token"):
        recursive_dfa(tiny("llama"), sae, 1, IDS, TOKENS, 0)
    with pytest.raises(OptionError, match="sinks"):
        recursive_dfa(tiny("llama"), sae, 1, IDS, 0, 0)
