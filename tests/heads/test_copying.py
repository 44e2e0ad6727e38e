"""The OV copying score: written out in float64, on planted copying and anti-copying heads, and on the eigenvalues of the whole circuit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputDataError, OptionError
from interp.heads.copying import TOKENS, copying
from interp.heads.weights import read_weights
from interp.models.hooked import wrap
from interp.models.planted import planted, planted_parts
from interp.models.toy import tiny
from interp.tasks.prompt import generator


def layer_norm(x, module):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + module.eps)
    return x * array(module.weight) + array(module.bias)


def rms_norm(x, module, eps):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * (1 + array(module.weight))


def array(x):
    return x.detach().double().numpy()


def gpt2_raises(hf, layer, head, ids):
    """Logits [token, vocabulary] that a head raises from the bare embedding, with every norm; written for GPT-2 (35 wide, heads of 7)."""
    block = hf.transformer.h[layer]
    mine = slice(7 * head, 7 * (head + 1))
    x = layer_norm(array(hf.transformer.wte.weight)[ids], block.ln_1)
    values = x @ array(block.attn.c_attn.weight)[:, 70:][:, mine] + array(block.attn.c_attn.bias)[70:][mine]
    out = values @ array(block.attn.c_proj.weight)[mine]
    out = (out - out.mean(-1, keepdims=True)) * array(hf.transformer.ln_f.weight)
    return out @ array(hf.lm_head.weight).T


def gemma2_raises(hf, layer, head, ids):
    """The same for Gemma 2: 6 heads of 10 on 3 key-value heads, embedding times sqrt(42), gains 1 + w, a norm behind the attention."""
    block, eps = hf.model.layers[layer], hf.config.rms_norm_eps
    group = head // 2
    x = rms_norm(array(hf.model.embed_tokens.weight)[ids] * 42**0.5, block.input_layernorm, eps)
    values = x @ array(block.self_attn.v_proj.weight)[10 * group : 10 * (group + 1)].T
    out = values @ array(block.self_attn.o_proj.weight)[:, 10 * head : 10 * (head + 1)].T
    out = out * (1 + array(block.post_attention_layernorm.weight)) * (1 + array(hf.model.norm.weight))
    return out @ array(hf.lm_head.weight).T


def drawn(samples, seed):
    """The tokens of the byte tokenizer's sequences: ids 7 to 262 less 2 at each end."""
    pool = np.arange(9, 261)
    return [generator(seed, i).choice(pool, size=TOKENS, replace=False) for i in range(samples)]


def share(raised, ids, target, candidates):
    """Mean over attended tokens of the share of the raise that lands on `target`, by loops."""
    shares = []
    for k in range(len(ids)):
        total = sum(max(raised[k, t], 0.0) for t in candidates)
        shares.append(max(raised[k, target[k]], 0.0) / total if total > 0 else 0.0)
    return np.mean(shares)


@pytest.mark.parametrize("candidates", ["sequence", "vocabulary"])
@pytest.mark.parametrize(("family", "raises"), [("gpt2", gpt2_raises), ("gemma2", gemma2_raises)])
def test_scores_written_out(family, raises, candidates):
    model = tiny(family)
    result = copying(model, embedding="embed", candidates=candidates, samples=2, seed=3)
    frame = result.frame.set_index(["layer", "head"])
    for layer, head in ((0, 1), (2, 4)):
        scores, controls, lowered = [], [], []
        for ids in drawn(2, 3):
            logits = raises(model.hf, layer, head, ids)
            logits = logits - logits.mean(-1, keepdims=True)
            options = range(263) if candidates == "vocabulary" else ids
            scores.append(share(logits, ids, ids, options))
            controls.append(share(logits, ids, np.roll(ids, -1), options))
            lowered.append(share(-logits, ids, ids, options))
        row = frame.loc[layer, head]
        assert row.score == pytest.approx(np.mean(scores), abs=1e-5)
        assert row.spread == pytest.approx(np.std(scores, ddof=1), abs=1e-5)
        assert row.control == pytest.approx(np.mean(controls), abs=1e-5)
        assert row.suppression == pytest.approx(np.mean(lowered), abs=1e-5)


def test_eigenvalues_are_those_of_the_circuit_over_all_tokens():
    model = tiny("llama")
    weights = read_weights(model)
    frame = copying(model, norms="none", samples=2).frame.set_index(["layer", "head"])
    pool = list(range(9, 261))
    e = array(weights.effective_embedding(pool, "embed+attn+mlp"))
    u = array(model.hf.lm_head.weight)[pool]
    attention = model.hf.model.layers[1].self_attn
    value, output = array(attention.v_proj.weight)[10:20].T, array(attention.o_proj.weight)[:, 40:50].T
    values = np.linalg.eigvals(e @ value @ output @ u.T)
    assert frame.eigenvalues[1, 4] == pytest.approx(values.real.sum() / np.abs(values).sum(), abs=1e-4)


@pytest.mark.parametrize("candidates", ["sequence", "vocabulary"])
def test_the_planted_copying_head_scores_one_and_the_others_like_chance(candidates):
    model, places = planted()
    result = copying(model, embedding="embed", candidates=candidates)
    frame = result.frame.set_index(["layer", "head"])
    copier = places["retrieval"]
    assert frame.score[copier] > 0.95
    assert frame.eigenvalues[copier] > 0.99
    assert frame.suppression[copier] == 0.0
    # induction heads and the like attend where it does, and copy nothing
    assert frame.score.drop([copier]).max() < 0.1
    assert frame.control.max() < 0.1
    assert result.top(1)[0][:2] == copier


def test_a_head_that_lowers_what_it_attends_to_shows_as_suppression():
    parts, places = planted_parts("retrieval")
    layer, head = places["retrieval"]
    parts.hf.transformer.h[layer].attn.c_proj.weight.data[head * 120 : (head + 1) * 120] *= -1
    frame = copying(wrap(parts.hf, parts.tokenizer), embedding="embed").frame.set_index(["layer", "head"])
    assert frame.score[layer, head] == 0.0
    assert frame.suppression[layer, head] > 0.95
    assert frame.eigenvalues[layer, head] < -0.99


def test_a_head_that_raises_nothing_scores_zero_and_not_nan():
    parts, places = planted_parts("retrieval")
    layer, head = places["retrieval"]
    parts.hf.transformer.h[layer].attn.c_proj.weight.data[head * 120 : (head + 1) * 120] = 0.0
    frame = copying(wrap(parts.hf, parts.tokenizer), embedding="embed", samples=2).frame.set_index(["layer", "head"])
    assert frame.score[layer, head] == frame.suppression[layer, head] == frame.eigenvalues[layer, head] == 0.0


def test_samples_depend_on_the_seed_and_not_on_how_many_there_are():
    model = tiny("qwen2")
    few, many = copying(model, samples=2, seed=1), copying(model, samples=3, seed=1)
    np.testing.assert_allclose(few.arrays["score"], many.arrays["score"][:2], atol=1e-6)
    assert not np.allclose(few.arrays["score"], copying(model, samples=2, seed=2).arrays["score"])
    assert few.manifest["settings"]["embedding"] == "embed+attn+mlp"


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(OptionError, match="at least 2"):
        copying(tiny("llama"), samples=1)
    with pytest.raises(InputDataError, match="without one"):
        copying(wrap(tiny("llama").release()))


def test_half_precision_scores_are_close():
    model = tiny("llama")
    exact = copying(model, samples=2).frame
    model.hf.to(torch.bfloat16)
    rounded = copying(model, samples=2).frame
    np.testing.assert_allclose(rounded.score, exact.score, atol=0.02)
