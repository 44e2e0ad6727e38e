"""Rollout, norm-weighted attention and gradient x attention against dense float64 products, brute force and autograd on the eager map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

import interp
from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.explain.gradient import effects, gradient
from interp.explain.norms import norms, together
from interp.explain.question import ask, calls_of, map_rows, weighted_columns
from interp.explain.rollout import push, rollout
from interp.models.outputs import output_weights

TEXT = "attention is a claim"  # <bos> and 20 bytes under llama, 20 bytes under gpt2
FAMILIES = ("llama", "gpt2", "mistral", "gemma2")


def double(family: str):
    model = interp.tiny(family)
    model.hf.double()
    return model


def explicit(family: str, ids: list[int]):
    """Logits of the last row and the maps of a float64 model, every map a tensor that its output is made of.

    (The models' own eager attention takes its softmax in float32.)
    """
    maps: list[torch.Tensor] = []

    def attend(module, query, key, value, mask, scaling=None, softcap=None, **kwargs):
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scores = scaling * query @ key.mT
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        p = (scores + mask).softmax(-1)
        maps.append(p)
        return (p @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("explicit_map", attend)
    AttentionMaskInterface.register("explicit_map", eager_mask)
    plain = interp.tiny(family).release().double()
    plain.set_attn_implementation("explicit_map")
    return plain(torch.tensor([ids]), use_cache=False).logits[0, -1], maps


@pytest.fixture(scope="module", params=FAMILIES)
def dense(request):
    """A float64 model, its tokens, and its maps [layer, head, query, key]."""
    model = double(request.param)
    ids = model.encode(TEXT)
    return model, ids, torch.cat(explicit(request.param, ids)[1]).detach()


def product(maps: torch.Tensor, stay: float = 0.5) -> torch.Tensor:
    """The whole rollout, multiplied out."""
    n = maps.shape[-1]
    whole = torch.eye(n, dtype=maps.dtype)
    for layer in maps:
        whole = (stay * torch.eye(n, dtype=maps.dtype) + (1 - stay) * layer.mean(0)) @ whole
    return whole


def uniform(maps: torch.Tensor) -> torch.Tensor:
    seen = (maps > 0).to(maps)
    return seen / seen.sum(-1, keepdim=True)


def without(maps: torch.Tensor, keys: list[int]) -> torch.Tensor:
    cut = maps.clone()
    cut[..., keys] = 0
    total = cut.sum(-1, keepdim=True)
    return torch.where(total > 0, cut / total, 0.0)


def test_rollout_is_the_row_of_the_product(dense):
    model, ids, maps = dense
    table = rollout(model, ids, 11, sinks=(0, 3)).table
    for column, which in (("score", maps), ("control", uniform(maps)), ("masked", without(maps, [0, 3]))):
        np.testing.assert_allclose(table[column], product(which)[-1], atol=1e-12, err_msg=column)
    np.testing.assert_allclose(table["ratio"], table["score"] / table["control"])
    # Another row, another share, and every layer's row vector.
    rows = push(calls_of(model, ids), 7, 0.3)
    np.testing.assert_allclose(rows[0], product(maps, 0.3)[7], atol=1e-12)
    np.testing.assert_allclose(rows[-1], product(maps[-1:], 0.3)[7], atol=1e-12)


def test_rollout_in_float32_by_the_fused_kernel():
    model = interp.tiny("llama")
    exact = rollout(double("llama"), TEXT).table
    ours = rollout(model, TEXT).table
    for column in ("score", "control", "masked"):
        np.testing.assert_allclose(ours[column], exact[column], atol=2e-6)
    call, attended = calls_of(model, model.encode(TEXT))[1]
    weights = torch.linspace(0, 1e-3, call.queries) ** 3  # from 0 over tiny to small
    found = weighted_columns(call, attended, weights)
    rows = map_rows(call, attended, range(call.queries))
    torch.testing.assert_close(found, torch.einsum("i,hij->hj", weights, rows), rtol=1e-4, atol=1e-14)


def test_a_learned_sinks_share_leaves_the_text_and_the_masked_rollout_has_none():
    result = rollout(interp.tiny("gpt_oss"), TEXT)
    assert result.manifest["kept"] == pytest.approx(result.table["score"].sum())
    assert result.manifest["kept"] < 0.99
    assert result.table["masked"].sum() == pytest.approx(1.0, abs=1e-5)
    assert result.table["masked"][0] == 0


def values_and_outputs(model, ids):
    """v [layer, head, key, value] with groups repeated, and W_O [layer, head, value, d] read off the module by its name."""
    layers = model.hf.model.layers if hasattr(model.hf, "model") else model.hf.transformer.h
    calls = calls_of(model, ids)
    v = torch.stack([c.v[0].repeat_interleave(c.heads // c.v.shape[1], 0) for c, _ in calls.values()])
    weights = [x.attn.c_proj.weight if hasattr(x, "attn") else x.self_attn.o_proj.weight.T for x in layers]
    return v, torch.stack([w.detach().view(v.shape[1], v.shape[3], -1) for w in weights])


def test_norms_are_those_of_the_vectors(dense):
    model, ids, maps = dense
    v, w = values_and_outputs(model, ids)
    found = norms(model, ids, top=5).arrays
    vectors = torch.einsum("lhij,lhjv,lhvd->lhijd", maps, v, w)  # [layer, head, query, key, d]
    size = vectors.norm(dim=-1)
    np.testing.assert_allclose(found["weights"], maps[:, :, -1], atol=1e-12)
    np.testing.assert_allclose(found["weighted"], size[:, :, -1], atol=1e-12)
    np.testing.assert_allclose(found["received"], size.sum(2), atol=1e-11)
    np.testing.assert_allclose(found["together"], vectors.sum(1)[:, -1].norm(dim=-1), atol=1e-11)
    best = size.sort(-1, descending=True)
    seen = torch.arange(len(ids))[:, None].clamp(max=4) >= torch.arange(
        5
    )  # row i sees i + 1 keys (or its window, 5 and more)
    np.testing.assert_allclose(
        torch.from_numpy(found["top_norm"])[:, :, seen], best.values[..., :5][:, :, seen], rtol=1e-6, atol=1e-12
    )
    picked = size.gather(-1, torch.from_numpy(found["top_index"]).clamp(min=0))
    np.testing.assert_allclose(picked[:, :, seen], best.values[..., :5][:, :, seen], rtol=1e-6, atol=1e-12)


def test_the_disagreement_of_norms_by_hand(dense):
    model, ids, maps = dense
    v, w = values_and_outputs(model, ids)
    sizes = torch.einsum("lhjv,lhvd->lhjd", v, w).norm(dim=-1)
    weighted = maps[:, :, -1] * sizes
    shares = weighted / weighted.sum(-1, keepdim=True)
    table = norms(model, ids).table
    np.testing.assert_allclose(table["score"], (0.5 * (maps[:, :, -1] - shares).abs().sum(-1)).flatten(), atol=1e-12)
    np.testing.assert_allclose(table["first_norm"], shares[..., 0].flatten(), atol=1e-12)
    np.testing.assert_allclose(table["first_weight"], maps[:, :, -1, 0].flatten(), atol=1e-12)


def test_equal_norms_change_nothing_and_their_control_neither():
    model = interp.tiny("llama")
    for layer in model.hf.model.layers:  # every value the same vector
        with torch.no_grad():
            layer.self_attn.v_proj.weight.zero_()
        bias = torch.nn.Parameter(torch.linspace(1, 2, layer.self_attn.v_proj.out_features))
        layer.self_attn.v_proj.bias = bias
    table = norms(model, TEXT).table
    assert table["score"].max() < 1e-6
    assert table["control"].max() < 1e-6


def test_heads_summed_as_vectors_in_any_rows(dense):
    model, ids, maps = dense
    v, w = values_and_outputs(model, ids)
    calls = calls_of(model, ids)
    found = together(*calls[1], output_weights(model)[1], [5, 9])
    vectors = torch.einsum("hij,hjv,hvd->ijd", maps[1], v[1], w[1])
    torch.testing.assert_close(found, vectors[[5, 9]].norm(dim=-1), atol=1e-11, rtol=1e-9)
    alone = torch.einsum("hij,hjv,hvd->hijd", maps[1], v[1], w[1]).norm(dim=-1).sum(0)[[5, 9]]
    assert bool((found <= alone + 1e-12).all())
    assert found.sum() < 0.9 * alone.sum(), "vectors of different heads cancel in part"


def test_gradient_is_the_derivative_by_the_weights_of_the_map():
    """a_j and do.o of float64 against autograd through an explicit map in place of the fused one."""
    model = double("llama")
    ids = model.encode(TEXT)
    question = ask(model, ids, 61)
    keys, rows = effects(model, question)
    logits, maps = explicit("llama", ids)
    f = logits.log_softmax(-1)[61]
    slopes = torch.autograd.grad(f, maps)
    weighted = torch.stack([(p * dp)[0] for p, dp in zip(maps, slopes, strict=True)]).detach()
    np.testing.assert_allclose(keys, weighted.sum(2), atol=1e-10)
    np.testing.assert_allclose(rows, weighted.sum(3), atol=1e-10)


def test_gradient_totals_agree_and_the_controls_are_other_targets():
    result = gradient(interp.tiny("gpt2"), TEXT, draws=4, seed=2)
    assert result.manifest["check"] < 1e-5
    np.testing.assert_allclose(result.table["score"], result.arrays["keys"].sum(-1).flatten(), rtol=1e-6)
    np.testing.assert_allclose(result.table["positive"] + result.table["negative"], result.table["score"], atol=1e-9)
    others = result.manifest["settings"]["control_targets"]
    assert len(set(others)) == 4
    assert result.manifest["question"]["target"] not in others


def test_gradient_of_frozen_parameters_and_nothing_left_behind():
    model = interp.tiny("llama")
    free = effects(model, ask(model, TEXT, 61))[0]
    model.hf.requires_grad_(False)
    frozen = effects(model, ask(model, TEXT, 61))[0]
    torch.testing.assert_close(free, frozen)
    assert all(p.grad is None for p in model.hf.parameters())


def test_questions_that_make_no_sense_are_refused():
    model = interp.tiny("llama")
    with pytest.raises(UnsupportedModelError, match="decoder"):
        ask(interp.tiny("t5"), TEXT)
    with pytest.raises(UnsupportedModelError, match="later tokens"):
        rollout(interp.tiny("bert"), TEXT)
    with pytest.raises(InputDataError, match="at least two"):
        ask(model, [5])
    with pytest.raises(InputDataError, match="no token"):
        ask(model, TEXT, "")
    with pytest.raises(OptionError, match="vocabulary"):
        ask(model, TEXT, 10**6)
    with pytest.raises(OptionError, match="before the last token"):
        rollout(model, TEXT, sinks=(20,))
    with pytest.raises(OptionError, match="stay"):
        rollout(model, TEXT, stay=1.0)
    question = ask(model, TEXT, "!?")
    assert question.target == model.encode("!", bos=False)[0]
    assert not question.predicted
    logits = model.run(TEXT, collect=[], logits="last").logits
    assert ask(model, TEXT).target == int(logits.argmax())
