"""Every family against transformers' own eager attention: logits, padding, caches; attention outputs against dense float64."""

from __future__ import annotations

import pytest
import torch
from attention_truth import dense, eager_twin, hear, hooked, padded_inputs, probe
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from interp.errors import OptionError
from interp.models.families import FAMILIES
from interp.models.toy import tiny_inputs
from interp_kernels.dispatch import launches

LOGITS = 1e-4
"""Largest difference of logits (demanded: 1e-3; the logits reach 50)."""
OUTPUTS = 1e-5
"""Largest difference of attention outputs."""

every_family = pytest.mark.parametrize("family", list(FAMILIES))
DECODERS = [name for name, row in FAMILIES.items() if row.kind == "decoder"]
SEQ2SEQ = [name for name, row in FAMILIES.items() if row.kind == "encoder-decoder"]
NEW_TOKENS = 13
# A token is never said twice: random weights tend to repeat one for ever, which would hide a wrong cache.
GREEDY = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "no_repeat_ngram_size": 1}


def inputs_of(family, side):
    if side != "none":
        return padded_inputs(family, side)
    inputs = tiny_inputs(family, batch=1)
    ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
    return inputs, torch.ones(1 if ids is None else ids.shape, dtype=torch.bool)


@every_family
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_logits_equal_eager_attention(family, side):
    inputs, real = inputs_of(family, side)
    with torch.no_grad():
        ours = hooked(family).hf(**inputs).logits
        theirs = eager_twin(family)(**inputs).logits
    assert float(theirs[real].std()) > 0.1
    assert float((ours - theirs)[real].abs().max()) <= LOGITS


@every_family
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_attention_outputs_equal_dense_float64(family, side):
    inputs, _ = inputs_of(family, side)
    calls, heard = probe(eager_twin(family), inputs), hear(hooked(family), inputs)
    assert len(calls) == len(heard) > 0
    for wanted, (call, attended) in zip(calls, heard, strict=True):
        # The mask, scale, soft-cap, sinks and bias are those that transformers gave to the probe; q, k, v are what our kernel got.
        wanted.q, wanted.k, wanted.v = call.q, call.k, call.v
        truth = dense(wanted)
        sees_something = truth.allowed.any(-1)
        gap = (attended.out.double() - truth.out)[sees_something]
        assert float(gap.abs().max()) <= OUTPUTS
        assert float((attended.lse.double() - truth.lse)[sees_something].abs().max()) <= OUTPUTS
        assert not attended.out.isnan().any()


@every_family
def test_the_first_layer_gets_the_same_tensors_as_transformers_gives_to_any_attention(family):
    inputs, _ = inputs_of(family, "right")
    wanted, (call, _) = probe(eager_twin(family), inputs)[0], hear(hooked(family), inputs)[0]
    for name in ("q", "k", "v"):
        torch.testing.assert_close(getattr(call, name), getattr(wanted, name), rtol=0, atol=1e-6)
    assert (call.softcap, call.sink_logits is None) == (wanted.softcap, wanted.sink is None)


@pytest.mark.parametrize("family", DECODERS)
def test_greedy_generation_with_a_cache_is_eagers_token_by_token(family):
    model, twin = hooked(family), eager_twin(family)
    texts = ["The quick brown fox jumps", "over", "the lazy dog."]
    ids = [model.encode(text) for text in texts]
    longest = max(map(len, ids))
    left = torch.tensor([[0] * (longest - len(x)) + x for x in ids])
    real = torch.tensor([[0] * (longest - len(x)) + [1] * len(x) for x in ids])
    before = sum(launches.values())
    ours = model.generate(texts, **GREEDY)
    ran = sum(launches.values()) - before
    with torch.no_grad():
        theirs = twin.generate(input_ids=left, attention_mask=real, **GREEDY)
    assert torch.equal(ours, theirs)
    assert ran == model.layers * NEW_TOKENS, "attention did not run through the kernels at every step"
    assert len(set(ours[0, longest:].tolist())) == NEW_TOKENS


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_a_static_cache_longer_than_the_text_gives_the_whole_pass(family):
    hf = hooked(family).hf
    ids = tiny_inputs(family, batch=2, length=19)["input_ids"]
    cache = StaticCache(config=hf.config, max_cache_len=31)
    with torch.no_grad():
        steps = [hf(part, past_key_values=cache, use_cache=True).logits for part in ids.split([11, 4, 3, 1], dim=1)]
        whole = hf(ids, use_cache=False).logits
    assert float((torch.cat(steps, 1) - whole).abs().max()) <= LOGITS


def test_generation_refuses_static_caches_which_want_mask_tensors():
    with pytest.raises(OptionError, match="static"):
        hooked("llama").generate("abc", cache_implementation="static", max_new_tokens=1)


def test_t5_generates_as_eager_does():
    model, twin = hooked("t5"), eager_twin("t5")
    ids = torch.tensor([model.encode("translate this")])
    with torch.no_grad():
        theirs = twin.generate(input_ids=ids, past_key_values=two_caches(), **GREEDY)
    assert torch.equal(model.generate("translate this", past_key_values=two_caches(), **GREEDY), theirs)


def two_caches():
    # transformers sizes the cache of T5 by its encoder's layers when it has the config, and this decoder has more.
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


@pytest.mark.parametrize("family", DECODERS)
def test_step_by_step_logits_equal_the_whole_pass(family):
    hf = hooked(family).hf
    ids = tiny_inputs(family, batch=2, length=23)["input_ids"]
    cache = DynamicCache(config=hf.config)
    steps = []
    with torch.no_grad():
        whole = hf(ids, use_cache=False).logits
        # Longer than the sliding window (8) in one go, several tokens on top of a full cache, then one by one.
        for part in ids.split([11, 4, 3, 1, 1, 1, 1, 1], dim=1):
            steps.append(hf(part, past_key_values=cache, use_cache=True).logits)
    assert float((torch.cat(steps, 1) - whole).abs().max()) <= LOGITS


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_step_by_step_decoder_logits_equal_the_whole_pass_and_eager(family):
    hf, twin = hooked(family).hf, eager_twin(family)
    inputs = tiny_inputs(family, batch=2, length=23)
    ids = inputs.pop("decoder_input_ids")
    steps = {}
    with torch.no_grad():
        whole = hf(**inputs, decoder_input_ids=ids, use_cache=False).logits
        for name, one in (("ours", hf), ("eager", twin)):
            cache = two_caches()
            encoded = one.get_encoder()(**inputs)
            steps[name] = torch.cat(
                [
                    one(encoder_outputs=encoded, decoder_input_ids=part, past_key_values=cache, use_cache=True).logits
                    for part in ids.split([ids.shape[1] - 5, 3, 1, 1], dim=1)
                ],
                1,
            )
    assert float((steps["ours"] - whole).abs().max()) <= LOGITS
    assert float((steps["ours"] - steps["eager"]).abs().max()) <= LOGITS


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gemma2", "gpt_oss", "bert", "whisper", "t5"])
def test_gradients_are_eagers(family):
    inputs, _ = inputs_of(family, "none")
    found = []
    for hf in (hooked(family).hf, eager_twin(family)):
        hf(**inputs).logits.square().mean().backward()
        found.append({name: p.grad for name, p in hf.named_parameters() if p.grad is not None})
    ours, theirs = found
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).abs().max()) <= LOGITS * max(1.0, float(gradient.abs().max())), name


def test_a_4d_mask_of_the_users_own_is_honoured():
    torch.manual_seed(0)
    ids = tiny_inputs("llama", batch=2, length=19)["input_ids"]
    allowed = (torch.rand(2, 1, 19, 19) < 0.5).tril() | torch.eye(19, dtype=torch.bool)
    additive = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        ours, theirs = (hf(ids, attention_mask=additive).logits for hf in (hooked("llama").hf, eager_twin("llama")))
        causal = eager_twin("llama")(ids).logits
    assert float((ours - theirs).abs().max()) <= LOGITS
    assert float((theirs - causal).abs().max()) > 0.1


def test_packed_documents_equal_the_documents_alone():
    ids = tiny_inputs("mistral", batch=1, length=29)["input_ids"]
    hf = hooked("mistral").hf
    positions = torch.cat([torch.arange(17), torch.arange(12)])[None]
    with torch.no_grad():
        packed = hf(ids, position_ids=positions, use_cache=False).logits
        alone = torch.cat([hf(part, use_cache=False).logits for part in ids.split([17, 12], 1)], 1)
    assert float((packed - alone).abs().max()) <= LOGITS


@pytest.mark.medium
def test_the_default_model_equals_eager_on_real_text():
    import interp

    model = interp.load("smollm2-135m")
    text = " ".join(f"{word} is what the {n}th line of this text says;" for n, word in enumerate(2 * TOPIC.split()))
    ids = torch.tensor([model.encode(text)[:307]])
    assert ids.shape == (1, 307)
    heard = hear(model, {"input_ids": ids})
    with torch.no_grad():
        ours = model.hf(ids, use_cache=False).logits
        masks = probe_masks(model, ids)
        model.hf.set_attn_implementation("eager")
        eager = model.hf(ids, use_cache=False).logits
        model.hf.set_attn_implementation("interp")
    assert len(heard) == len(masks) == model.layers
    assert float((ours - eager).abs().max()) <= 1e-3
    for wanted, (call, attended) in zip(masks, heard, strict=True):
        wanted.q, wanted.k, wanted.v = call.q, call.k, call.v
        truth = dense(wanted).out
        assert float((attended.out.double() - truth).abs().max()) <= OUTPUTS * float(truth.abs().max())


TOPIC = "attention entropy sink needle window token layer head query key value context cache rotary norm softmax"


def probe_masks(model, ids):
    """What transformers gives a probe in place of our attention, on the hooked model itself."""
    model.hf.set_attn_implementation("sdpa")
    try:
        return probe(model.hf, {"input_ids": ids, "use_cache": False})
    finally:
        model.hf.set_attn_implementation("interp")
