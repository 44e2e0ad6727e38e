"""Weights read per head are those that the modules compute with: by ablation, by whole blocks, by hand; other models are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM

from interp.errors import UnsupportedModelError
from interp.heads.parts import affine
from interp.heads.weights import check, read_weights
from interp.interventions.ablate import AblateHeads
from interp.models.hooked import wrap
from interp.models.toy import tiny, tiny_inputs

DECODERS = (
    "gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "gpt_oss",
)  # fmt: skip


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def output_of(model, module, ids):
    """What a module gives in one pass."""
    kept = []
    handle = module.register_forward_hook(lambda m, a, output: kept.append(first_of(output)))
    model.hf(torch.tensor([ids]))
    handle.remove()
    return kept[-1][0]


def ids_of(family, length=11):
    return tiny_inputs(family, batch=1, length=length)["input_ids"][0].tolist()


@pytest.mark.parametrize("family", DECODERS)
def test_what_a_head_writes_is_what_goes_missing_when_it_is_ablated(family):
    model, ids = tiny(family), ids_of(family)
    weights = read_weights(model)
    layer, head = model.layers - 1, model.heads - 2
    attention = weights.attention(layer)
    with torch.no_grad():
        z = model.head_outputs(ids)[layer][0, head]
    with_it = output_of(model, attention, ids)
    with model.edit(AblateHeads(heads=((layer, head),), kind="zero")):
        without = output_of(model, attention, ids)
    torch.testing.assert_close(z @ weights.layer(layer).outputs[head], with_it - without, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("family", DECODERS)
def test_a_block_whose_heads_look_at_the_token_itself_is_the_models_on_a_text_of_one_token(family):
    model = tiny(family)
    if family == "gpt_oss":  # its learned sinks would take some of the weight
        for block in model.hf.model.layers:
            block.self_attn.sinks.data.fill_(-1e4)
    for name, parameter in model.hf.named_parameters():
        if "wpe" in name or "embed_positions" in name:
            parameter.data.zero_()
    token = 101
    with torch.no_grad():
        states = model.hf(torch.tensor([[token]]), output_hidden_states=True).hidden_states
    weights = read_weights(model)
    torch.testing.assert_close(weights.effective_embedding([token], "embed"), states[0][0])
    torch.testing.assert_close(
        weights.effective_embedding([token], "embed+attn+mlp"), states[1][0], atol=2e-5, rtol=1e-4
    )


def test_the_other_embeddings_by_hand_on_llama():
    model = tiny("llama")
    hf, weights = model.hf, read_weights(model)
    block = hf.model.layers[0]
    with torch.no_grad():
        x = hf.model.embed_tokens.weight[[7, 53]]
        added = block.mlp(block.post_attention_layernorm(x))
    torch.testing.assert_close(weights.effective_embedding([7, 53], "mlp"), added)
    torch.testing.assert_close(weights.effective_embedding([7, 53], "embed+mlp"), x + added)


def test_grouped_heads_read_the_values_of_their_group():
    model = tiny("llama")  # 6 query heads on 2 key-value heads of size 10
    heads = read_weights(model).layer(1)
    matrix = model.hf.model.layers[1].self_attn.v_proj.weight
    assert heads.groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(heads.values[heads.groups[4]], matrix[10:20].T)


def test_fused_projections_of_phi3_are_cut_behind_queries_and_keys():
    config = Phi3Config(
        vocab_size=263, hidden_size=48, intermediate_size=67, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = wrap(Phi3ForCausalLM(config))
    weights = read_weights(model)
    assert weights.layout.name == "phi3"
    assert torch.equal(weights.layer(1).values[1], model.hf.model.layers[1].self_attn.qkv_proj.weight[48 + 16 + 8 :].T)


@pytest.mark.parametrize("family", ["bert", "vit", "whisper", "t5"])
def test_models_without_such_a_stack_are_refused(family):
    with pytest.raises(UnsupportedModelError, match=r"no layout of weights fits.*llama"):
        read_weights(tiny(family))


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("model.layers.1.self_attn.o_proj", "outputs"),
        ("model.layers.2.self_attn.v_proj", "values"),
        ("model.layers.0.mlp.down_proj", "logits|block"),
        ("model.embed_tokens", "embedding"),
        ("lm_head", "logits"),
    ],
)
def test_a_model_that_only_looks_like_a_layout_is_refused(path, part):
    model = tiny("llama")
    heads = read_weights(model)
    module = model.hf.get_submodule(path)
    if path.endswith("down_proj"):
        # the block's own output is changed, not the part of it that is read
        module = model.hf.model.layers[0]
    module.register_forward_hook(
        lambda m, a, output: (2 * output[0], *output[1:]) if isinstance(output, tuple) else 2 * output
    )
    if path == "model.embed_tokens":
        # as a model that scales outside its table would
        model.hf.model.embed_tokens._forward_hooks.clear()
        model.hf.model.layers[0].register_forward_pre_hook(lambda m, args: (2 * args[0], *args[1:]))
    with pytest.raises(UnsupportedModelError, match=rf"does not compute as it does.*({part})"):
        read_weights(model)
    assert heads.layout.name == "llama"


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_bridge_around_the_modules_changes_nothing(family):
    model = tiny(family)
    plain = read_weights(model)
    before = [plain.effective_embedding([7, 30], "embed+attn+mlp"), plain.layer(1).values.clone()]
    assert model.bridge is not None
    bridged = read_weights(model)
    after = [bridged.effective_embedding([7, 30], "embed+attn+mlp"), bridged.layer(1).values]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_is_read_within_the_tolerance():
    model = tiny("qwen2")
    model.hf.to(torch.bfloat16)
    errors = check(model, read_weights(model))
    assert 0 < max(errors.values()) < 0.02


@pytest.mark.parametrize("size", [12, 35])
def test_the_linear_part_of_norms(size):
    gain, bias = torch.randn(size), torch.randn(size)
    x = torch.randn(5, size)
    layer_norm = nn.LayerNorm(size)
    layer_norm.weight.data, layer_norm.bias.data = gain, bias
    found = affine(layer_norm, size)
    assert found.centred
    torch.testing.assert_close(found.gain.float(), gain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.bias.float(), bias)
    deviation = x.std(-1, keepdim=True, unbiased=False)
    torch.testing.assert_close(found.direction(x) / deviation + bias, layer_norm(x), atol=1e-4, rtol=1e-4)
    root = nn.RMSNorm(size, eps=1e-6)
    root.weight.data = gain
    found = affine(root, size)
    assert not found.centred and not found.bias.any()
    torch.testing.assert_close(found.gain.float(), gain, atol=1e-5, rtol=1e-5)


def test_gains_that_are_stored_less_one_are_read_as_they_act():
    model = tiny("gemma2")
    norm = model.hf.model.norm
    torch.testing.assert_close(affine(norm, 42).gain.float(), 1 + norm.weight, atol=1e-5, rtol=1e-5)


def test_transposing_the_linear_part():
    norm = nn.LayerNorm(11).double()
    norm.weight.data = torch.randn(11, dtype=torch.float64)
    linear = affine(norm, 11)
    x, u = torch.randn(3, 11, dtype=torch.float64), torch.randn(5, 11, dtype=torch.float64)
    torch.testing.assert_close(x @ linear.transposed(u).T, linear.direction(x) @ u.T)
