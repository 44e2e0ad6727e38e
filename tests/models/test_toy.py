"""The tiny families: they build, differ in every axis, attend far from uniformly, and call attention as transformers' families do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.errors import OptionError
from interp.models.families import FAMILIES, WINDOW
from interp.models.toy import byte_tokenizer, tiny_inputs, tiny_parts

CALLS = {
    "gpt2": 3, "gpt_neox": 2, "opt": 3, "llama": 3, "mistral": 2, "qwen2": 3, "qwen3": 3, "gemma2": 3, "gemma3": 3,
    "phi": 2, "gpt_oss": 2, "bert": 3, "vit": 3, "whisper": 2 + 3 + 3, "t5": 2 + 3 + 3,
}  # fmt: skip
"""Attention calls in one forward pass: layers; encoder, decoder and cross-attention for the encoder-decoders."""
every_family = pytest.mark.parametrize("family", list(FAMILIES))


def eager(family, *, seed=0):
    parts = tiny_parts(family, seed=seed)
    parts.hf.set_attn_implementation("eager")
    return parts.hf


@torch.no_grad()
def maps(hf, inputs):
    """Every attention map [batch, head, query, key] that transformers' eager attention gives."""
    out = hf(**inputs, output_attentions=True)
    names = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
    return [pattern for name in names for pattern in (getattr(out, name, None) or ())]


@every_family
def test_one_seed_gives_one_model_and_leaves_the_global_random_state_alone(family):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (tiny_parts(family, seed=seed).hf.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    # sinusoids apart, no weight is one constant: a bias or norm that does nothing could hide that it is dropped
    assert all(value.flatten().unique().numel() > 1 for value in tiny_parts(family).hf.parameters())


@every_family
@torch.no_grad()
def test_logits_are_finite_and_follow_the_input(family):
    hf = tiny_parts(family).hf
    assert not hf.training
    one, two = (hf(**tiny_inputs(family, seed=seed)).logits for seed in (0, 1))
    assert torch.isfinite(one).all()
    assert (one - two).abs().max() > 0.5
    assert torch.equal(one, hf(**tiny_inputs(family, seed=0)).logits)


@every_family
def test_attention_is_far_from_uniform(family):
    patterns = maps(eager(family), tiny_inputs(family))
    assert len(patterns) == CALLS[family]
    for pattern in patterns:
        row = pattern[:, :, -1].double()  # the last query sees a full set of keys, in every family
        visible = row > 0
        logits = torch.where(visible, row.clamp_min(1e-300).log(), 0.0)
        count = visible.sum(-1)
        mean = logits.sum(-1) / count
        spread = (torch.where(visible, logits - mean[..., None], 0.0).square().sum(-1) / count).sqrt()
        assert 1.0 < spread.mean() < 5.0
        width = torch.where(visible, logits, -torch.inf).amax(-1) - torch.where(visible, logits, torch.inf).amin(-1)
        assert width.mean() > 4.0


@every_family
def test_every_attention_goes_through_transformers_interface(family, monkeypatch):
    hf = eager(family)
    inputs = tiny_inputs(family)
    with torch.no_grad():
        expected = hf(**inputs).logits
    calls = []

    def dense(module, q, k, v, mask, *, scaling, dropout, softcap=None, s_aux=None, position_bias=None, **_):
        calls.append((q.shape, k.shape, scaling))
        assert dropout == 0.0
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        scores = scaling * torch.einsum("bhqd,bhkd->bhqk", q, k)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores + (0.0 if position_bias is None else position_bias) + (0.0 if mask is None else mask)
        weights = scores.exp()
        total = weights.sum(-1, keepdim=True)
        if s_aux is not None:
            total = total + s_aux.exp().view(1, -1, 1, 1)
        return torch.einsum("bhqk,bhkd->bqhd", weights / total, v), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "eager", dense)
    with torch.no_grad():
        again = hf(**inputs).logits
    assert len(calls) == CALLS[family]
    assert (again - expected).abs().max() < 1e-3
    own = {"gpt_neox": 12, "phi": 12, "whisper": None, "t5": 7, "bert": 7, "vit": 7, "gpt2": 7, "opt": 7}.get(
        family, 10
    )
    if own is not None:
        assert {shape[-1] for shape, _, _ in calls} == {own}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma2", "gemma3", "gpt_oss"])
def test_axes_of_the_grouped_families_are_all_different(family):
    config = tiny_parts(family).hf.config
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    assert heads % groups == 0
    assert (
        len({heads, groups, size, config.hidden_size, config.intermediate_size, heads * size, config.vocab_size}) == 7
    )
    assert size != config.hidden_size // heads


@pytest.mark.parametrize(("family", "windowed"), [("mistral", [1, 1]), ("gemma2", [1, 0, 1]), ("gemma3", [1, 1, 0]),
                                                   ("gpt_oss", [1, 0])])  # fmt: skip
def test_windows_hide_what_lies_further_back(family, windowed):
    for pattern, has_window in zip(maps(eager(family), tiny_inputs(family)), windowed, strict=True):
        far = pattern[:, :, -1, :-WINDOW]
        assert (far == 0).all() == bool(has_window)
        assert (pattern[:, :, -1, -WINDOW:] > 0).all()


def test_learned_sinks_take_part_of_every_row():
    for pattern in maps(eager("gpt_oss"), tiny_inputs("gpt_oss")):
        mass = pattern.sum(-1)
        assert ((mass > 0) & (mass < 1)).all()
        assert mass.min() < 0.8


@torch.no_grad()
def test_soft_cap_is_felt():
    hf, inputs = eager("gemma2"), tiny_inputs("gemma2")
    capped = hf(**inputs).logits
    for layer in hf.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (hf(**inputs).logits - capped).abs().max() > 0.1


def test_encoders_see_both_ways_and_decoders_do_not():
    for family, row in FAMILIES.items():
        for pattern in maps(eager(family), tiny_inputs(family)):
            square = pattern.shape[-1] == pattern.shape[-2]
            future = pattern.triu(1) if square else None
            if row.kind == "decoder":
                assert (future == 0).all(), family
            elif row.kind in {"encoder", "vision"}:
                assert future.sum() > 1, family


def test_encoder_decoders_have_other_lengths_and_layers_on_each_side():
    shapes = [tuple(pattern.shape[1:]) for pattern in maps(eager("whisper"), tiny_inputs("whisper"))]
    assert shapes == 2 * [(5, 31, 31)] + 3 * [(3, 29, 29)] + 3 * [(3, 29, 31)]
    shapes = [tuple(pattern.shape[1:]) for pattern in maps(eager("t5"), tiny_inputs("t5"))]
    assert shapes == 2 * [(5, 29, 29)] + 3 * [(5, 14, 14)] + 3 * [(5, 14, 29)]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_the_byte_tokenizer(text):
    ids = byte_tokenizer()(text, add_special_tokens=False).input_ids
    if not any(token in text for token in ("<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<cls>", "<sep>")):
        assert len(ids) == len(text.encode())
    assert byte_tokenizer().decode(ids, clean_up_tokenization_spaces=False) == text


def test_templates_put_special_tokens_around_a_text():
    hi = byte_tokenizer()("hi").input_ids
    assert len(hi) == 2
    assert min(hi) >= 7
    assert byte_tokenizer("bos")("hi").input_ids == [1, *hi]
    assert byte_tokenizer("eos")("hi").input_ids == [*hi, 2]
    assert byte_tokenizer("cls-sep")("hi").input_ids == [5, *hi, 6]
    assert byte_tokenizer()("<mask>hi").input_ids == [4, *hi]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "t5", "bert"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_on_either_side_keeps_the_logits_of_real_tokens(family, side):
    parts = tiny_parts(family)
    texts = ["a", "three little pigs"]
    extra = {"decoder_input_ids": torch.tensor([[0, 9, 10], [0, 9, 10]])} if family == "t5" else {}
    batch = parts.tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
    kept = batch.attention_mask.bool()
    # GPT-2, Llama and BERT count positions from the start of the row unless told otherwise
    if side == "left" and family in {"gpt2", "llama", "bert"}:
        extra["position_ids"] = (batch.attention_mask.cumsum(-1) - 1).clamp_min(0)
    together = parts.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **extra).logits
    for i, text in enumerate(texts):
        alone = {name: value[:1] for name, value in extra.items() if name == "decoder_input_ids"}
        ids = parts.tokenizer(text, return_tensors="pt").input_ids
        assert torch.equal(batch.input_ids[i][kept[i]], ids[0])
        logits = parts.hf(input_ids=ids, **alone).logits[0]
        ours = together[i] if family == "t5" else together[i][kept[i]]
        assert (ours - logits).abs().max() < 1e-3


def test_an_unknown_family_names_the_close_one_and_all_others():
    with pytest.raises(OptionError, match="Did you mean 'llama'") as caught:
        tiny_parts("lama")
    assert all(name in str(caught.value) for name in FAMILIES)


def test_byte_ids_lie_within_every_text_vocabulary():
    for family, row in FAMILIES.items():
        if row.kind != "vision":
            parts = tiny_parts(family)
            assert len(parts.tokenizer) == parts.hf.config.vocab_size == 263
