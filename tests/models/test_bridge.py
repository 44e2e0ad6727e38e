"""The TransformerLens bridge of a hooked model: hooks fire and edit on our kernels, and the pattern is there when it is asked for."""

from __future__ import annotations

import pytest
import torch
from attention_truth import FOX, dense, eager_twin, hear, hooked, padded_inputs, probe, run_kwargs
from transformers import DynamicCache

from interp.errors import CaptureError
from interp.models.families import FAMILIES
from interp.models.hooked import wrap
from interp.models.toy import tiny_inputs, tiny_parts
from interp_kernels.dispatch import launches

RECONSTRUCTED = ["llama", "gpt2", "gpt_neox", "mistral", "gemma2", "gpt_oss"]
"""Families whose pattern can be edited, because the bridge computes attention itself when it is hooked."""
READ_OFF = ["opt", "bert"]
"""Families whose bridge reads the pattern off Hugging Face's eager attention."""


def ids_of(model, text=FOX):
    return torch.tensor([model.encode(text)])


def attention_launches():
    return sum(count for (operation, _), count in launches.items() if operation == "attention")


@torch.no_grad()
def with_hooks(model, ids, hooks):
    return model.bridge.run_with_hooks(ids, fwd_hooks=hooks)


@torch.no_grad()
def cached(model, ids, *names, **kwargs):
    return model.bridge.run_with_cache(ids, names_filter=lambda name: name in names, **kwargs)[1]


def test_families_with_and_without_an_adapter():
    without = [family for family in FAMILIES if hooked(family).bridge is None]
    assert without == ["whisper"]


def test_the_bridge_is_built_once_and_without_a_tokenizer_too():
    model = wrap(tiny_parts("llama").hf)
    bridge = model.bridge
    assert model.bridge is bridge and bridge.tokenizer is None
    assert model.hf.config._attn_implementation == "interp"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_runs_are_the_same_with_and_without_the_bridge(family):
    plain, model = hooked(family), hooked(family)
    assert plain._bridge_built is False and (model.bridge is not None or family == "whisper")
    kwargs = run_kwargs(family, count=2)
    a, b = plain.run(**kwargs), model.run(**kwargs)
    assert a.layers == b.layers
    assert float((a.logits - b.logits).abs().nan_to_num().max()) <= 1e-4
    for one, two in ((a, b), (a.encoder, b.encoder), (a.cross, b.cross)):
        for name, values in one.stats.items() if one is not None else ():
            torch.testing.assert_close(two.stats[name], values, rtol=1e-4, atol=1e-4, equal_nan=True)


# ---------------------------------------------------------------------- hooks on the fused path
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("point", ["hook_q", "hook_k", "hook_v", "hook_z"])
def test_hooks_fire_and_edit(family, point):
    model = hooked(family)
    ids = ids_of(model)
    with torch.no_grad():
        plain = model.hf(ids).logits
    shapes = []

    def look(x, hook):
        shapes.append(tuple(x.shape))

    def swap(x, hook):
        return x.flip(2)  # heads; a factor would be lost in a norm on queries and keys

    name = f"blocks.1.attn.{point}"
    assert float((with_hooks(model, ids, [(name, look)]) - plain).abs().max()) <= 1e-4
    heads = 2 if family == "llama" or family == "qwen3" else model.heads
    assert shapes == [(1, ids.shape[1], heads if point in ("hook_k", "hook_v") else model.heads, shapes[0][3])]
    assert float((with_hooks(model, ids, [(name, swap)]) - plain).abs().max()) > 1e-2
    with torch.no_grad():
        assert float((model.hf(ids).logits - plain).abs().max()) <= 1e-4, "the edit stayed after its context"


@pytest.mark.parametrize(("family", "projection"), [("llama", "o_proj"), ("gpt2", "c_proj")])
def test_zeroing_z_of_a_head_is_that_change_on_eager_attention(family, projection):
    model, twin = hooked(family), eager_twin(family)
    ids, head = ids_of(model), 3

    def zero(z, hook):
        z[:, :, head] = 0.0
        return z

    layers = twin.model.layers if family == "llama" else twin.transformer.h
    attention = layers[1].self_attn if family == "llama" else layers[1].attn
    size = attention.head_dim

    def zero_columns(module, args):
        x = args[0].clone()
        x[..., head * size : (head + 1) * size] = 0.0
        return (x,)

    getattr(attention, projection).register_forward_pre_hook(zero_columns)
    with torch.no_grad():
        wanted = twin(ids).logits
        plain = model.hf(ids).logits
    got = with_hooks(model, ids, [("blocks.1.attn.hook_z", zero)])
    assert float((got - wanted).abs().max()) <= 1e-4
    assert float((got - plain).abs().max()) > 1e-2


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "opt"])
def test_cached_z_is_what_our_kernels_put_out(family):
    model = hooked(family)
    ids = ids_of(model)
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.layers)]
    before = attention_launches()
    cache = cached(model, ids, *names)
    assert attention_launches() == before + model.layers, "z alone must not leave the kernels"
    for layer, (_, attended) in enumerate(hear(model, {"input_ids": ids})):
        z = cache[names[layer]]
        torch.testing.assert_close(z, attended.out.transpose(1, 2), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------- the pattern
@pytest.mark.parametrize("family", RECONSTRUCTED + READ_OFF)
def test_the_pattern_is_the_attention_map(family):
    model = hooked(family)
    ids = ids_of(model)
    assert ids.shape[1] > 3 * 8, "longer than the sliding windows"
    run = model.run(ids[0])
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.layers)]
    before = attention_launches()
    cache = cached(model, ids, *names)
    assert attention_launches() == before
    for layer, name in enumerate(names):
        for head in range(model.heads):
            wanted = run.attention[layer, head].dense()
            torch.testing.assert_close(cache[name][0, head], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "bert"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_pattern_of_a_padded_batch_is_the_map(family, side):
    model = hooked(family)
    inputs, real = padded_inputs(family, side)
    name = "blocks.1.attn.hook_pattern"
    pattern = cached(model, inputs["input_ids"], name, attention_mask=inputs["attention_mask"])[name]
    if side == "left":  # the bridge counts positions from the first real token
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    wanted, (call, _) = probe(eager_twin(family), inputs)[1], hear(model, inputs)[1]
    wanted.q, wanted.k, wanted.v = call.q, call.k, call.v
    gap = (pattern - dense(wanted).weights).transpose(1, 2)[real]
    assert float(gap.abs().max()) <= 1e-5


@pytest.mark.parametrize("family", ["vit", "t5"])
def test_the_pattern_of_the_other_kinds_of_models(family):
    model = hooked(family)
    inputs = tiny_inputs(family, batch=1)
    seen = []
    points = {name: point for name, point in model.bridge.hook_dict.items() if name.endswith("attn.hook_pattern")}
    assert points
    for name, point in points.items():
        point.add_hook(lambda x, hook, name=name: seen.append((name, x.detach())))
    with torch.no_grad():
        model.hf(**inputs)
    model.bridge.reset_hooks()
    assert len(seen) == len(points)
    run = model.run(**({"inputs": inputs["pixel_values"]} if family == "vit" else
                       {"inputs": inputs["input_ids"], "target": inputs["decoder_input_ids"]}))  # fmt: skip
    run = run if run._item is not None else run[0]
    maps = {"encoder_blocks": run.encoder, "decoder_blocks": run, "blocks": run}
    for name, pattern in seen:
        stack, layer, kind = name.split(".")[:3]
        side = run.cross if "cross" in kind else maps[stack]
        torch.testing.assert_close(pattern[0, 3], side.attention[int(layer), 3].dense(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", RECONSTRUCTED)
def test_editing_the_pattern_changes_the_logits_and_one_layer_alone_leaves_the_kernels(family):
    model = hooked(family)
    ids = ids_of(model)
    with torch.no_grad():
        plain = model.bridge(ids)
    before = attention_launches()
    edited = with_hooks(model, ids, [("blocks.0.attn.hook_pattern", lambda p, hook: torch.ones_like(p) / p.shape[-1])])
    assert attention_launches() == before + model.layers - 1
    assert float((edited - plain).abs().max()) > 1e-2
    same = with_hooks(model, ids, [("blocks.0.attn.hook_attn_scores", lambda s, hook: s)])
    assert float((same - plain).abs().max()) <= 1e-4


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "gemma2", "gpt_neox", "opt"])
def test_the_pattern_while_decoding_with_a_cache(family):
    model = hooked(family)
    ids = ids_of(model)
    hf = model.hf
    shapes = []
    with torch.no_grad():
        whole = hf(ids, use_cache=False).logits
        cache = DynamicCache(config=hf.config)
        steps = [hf(ids[:, :19], past_key_values=cache, use_cache=True).logits]
        model.bridge.add_hook("blocks.1.attn.hook_pattern", lambda p, hook: shapes.append(tuple(p.shape)))
        for part in ids[:, 19:].split([3] + [1] * (ids.shape[1] - 22), dim=1):
            steps.append(hf(part, past_key_values=cache, use_cache=True).logits)
    assert float((torch.cat(steps, 1) - whole).abs().max()) <= 1e-4
    assert len(shapes) == len(steps) - 1 and shapes[0][:3] == (1, model.heads, 3)


def test_a_run_beside_pattern_hooks_is_refused():
    model = hooked("llama")
    model.bridge.add_hook("blocks.1.attn.hook_pattern", lambda p, hook: None)
    with pytest.raises(CaptureError, match="reset_hooks"):
        model.run(FOX)
    model.bridge.reset_hooks()
    assert model.run(FOX).layers == (0, 1, 2)


# ---------------------------------------------------------------------- the first token
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bert", "t5"])
def test_the_bridge_tokenises_as_the_model_does(family):
    model = hooked(family)
    assert model.bridge.to_tokens("a b").tolist() == [model.encode("a b")]
    assert model.tokenizer.init_kwargs.get("add_bos_token") is None, "the model's own tokenizer was changed"


def test_the_bridge_puts_nothing_before_the_text_of_a_run():
    model = hooked("gpt2")
    before = model.run("a b").ids.tolist()
    with torch.no_grad():
        logits = model.bridge("a b")
    assert model.run("a b").ids.tolist() == before == model.encode("a b")
    assert logits.shape[1] == len(before)
    assert float((logits[0] - model.run("a b").logits).abs().max()) <= 1e-4


@pytest.mark.medium
def test_the_bridge_of_the_default_model():
    import interp

    model = interp.load("smollm2-135m")
    text = "The default model's tokenizer adds no first token, and neither does the bridge."
    run = model.run(text)
    with torch.no_grad():
        logits, cache = model.bridge.run_with_cache(
            text, names_filter=lambda name: name in ("blocks.7.attn.hook_z", "blocks.7.attn.hook_pattern")
        )
    assert float((logits[0] - run.logits).abs().max()) <= 1e-3
    torch.testing.assert_close(
        cache["blocks.7.attn.hook_pattern"][0, 5], run.attention[7, 5].dense(), rtol=0, atol=1e-5
    )
    released = model.release()
    released.set_attn_implementation("eager")
    with torch.no_grad():
        eager = released(torch.tensor([run.ids.tolist()])).logits[0]
    assert float((eager - run.logits).abs().max()) <= 1e-3
