"""Feature records on a tiny model against densities, contexts and attributions worked out one by one; and their Neuronpedia shape."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from interp.errors import InputDataError, OptionError
from interp.models.toy import tiny
from interp.saes.activity import activity
from interp.saes.config import SAEConfig
from interp.saes.core import SAE
from interp.saes.dashboard import INTERVALS, TOP, feature_index, feature_record, feature_source
from interp.saes.neuronpedia import neuronpedia_json

LAYER, HEADS, SIZE, FEATURES = 1, 6, 10, 31
TEXTS = 29


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


@pytest.fixture(scope="module")
def contexts():
    draw = np.random.default_rng(3)
    made = [[int(i) for i in draw.integers(7, 263, int(n))] for n in draw.integers(5, 17, TEXTS)]
    made[2][3] = 2  # an end token, which never counts
    return made


@pytest.fixture(scope="module")
def sae():
    """Feature 30 lies in head 4 alone; feature 29 never fires."""
    draw = torch.Generator().manual_seed(0)
    d_in = HEADS * SIZE
    w_dec = torch.randn(FEATURES, d_in, generator=draw)
    w_dec[30, : 4 * SIZE], w_dec[30, 5 * SIZE :] = 0.0, 0.0
    w_enc = w_dec.T.clone()
    bias = torch.full((FEATURES,), -1.0)
    bias[29] = -1e4
    weights = {"W_enc": w_enc, "W_dec": w_dec, "b_dec": torch.randn(d_in, generator=draw) / 9, "b_enc": bias}
    return SAE(SAEConfig(architecture="standard", d_in=d_in, d_sae=FEATURES), weights)


@pytest.fixture(scope="module")
def source(model, sae, contexts):
    return feature_source(sae, model, LAYER, contexts, seed=5)


def codes_of(model, sae, ids):
    """Features [token, feature] by a plain hook and the formula, float64."""
    seen = []
    hook = model.hf.model.layers[LAYER].self_attn.o_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0][0]))
    with torch.no_grad():
        model.hf(torch.tensor([ids]))
    hook.remove()
    w = {name: x.detach().double() for name, x in sae.weights.items()}
    return ((seen[0].double() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).clamp(min=0)


def test_activity_is_every_firing(model, sae, contexts, source):
    fired = source.activity
    codes = [codes_of(model, sae, c) for c in contexts]
    kept = [c.clone() for c in codes]
    for k in kept:
        k[0] = 0
    kept[2][3] = 0
    assert fired.tokens == sum(len(c) - 1 for c in contexts) - 1
    for feature in (0, 17, 30):
        dense = torch.cat([k[:, feature] for k in kept])
        tokens, values = fired.of(feature)
        assert tokens.tolist() == dense.nonzero()[:, 0].tolist()
        np.testing.assert_allclose(values, dense[tokens], rtol=1e-4, atol=1e-4)
        assert float(fired.density[feature]) == pytest.approx(float((dense > 0).sum()) / fired.tokens)
        assert float(fired.at_first[feature]) == pytest.approx(np.mean([float(c[0, feature] > 0) for c in codes]))
        assert float(fired.total[feature]) == pytest.approx(float(dense.sum()), rel=1e-4)
        np.testing.assert_allclose(fired.values_in(feature, 11), kept[11][:, feature], rtol=1e-4, atol=1e-4)
    assert fired.place(len(contexts[0])) == (1, 0)
    assert not len(fired.of(29)[0])
    assert source.most_active(FEATURES + 9)[0] == max(
        range(FEATURES), key=lambda f: float(fired.total[f] * sae.W_dec[f].detach().norm())
    )
    assert 29 not in source.most_active(FEATURES)


def test_a_record(model, sae, contexts, source):
    record = feature_record(source, 30)
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(record))
    codes = [codes_of(model, sae, c)[:, 30] for c in contexts]
    for c in codes:
        c[0] = 0
    codes[2][3] = 0
    assert record["max"] == pytest.approx(float(max(c.max() for c in codes)), rel=1e-3)
    assert record["firings"] == sum(int((c > 0).sum()) for c in codes) == sum(record["histogram"]["counts"])
    assert record["histogram"]["edges"][0] == 0 and record["histogram"]["edges"][-1] == record["max"]
    # by weights it is head 4's alone, and so it is by attribution, because its encoder is its decoder
    assert record["heads"]["weights"] == [0, 0, 0, 0, 1, 0]
    assert record["heads"]["dfa"] == [0, 0, 0, 0, 1, 0]
    top, *intervals = record["groups"]
    best = sorted(range(TEXTS), key=lambda n: -float(codes[n].max()))[:TOP]
    assert [e["context"] for e in top["examples"]] == [n for n in best if codes[n].max() > 0]
    assert [g["name"] for g in intervals] == ["interval"] * INTERVALS
    assert sum(g["share"] for g in intervals) == pytest.approx(1, abs=1e-3)
    for group in record["groups"]:
        for example in group["examples"]:
            value = float(codes[example["context"]][example["position"]])
            assert group["low"] * 0.999 <= value <= group["high"] * 1.001
            assert example["values"][example["position"]] == pytest.approx(value, rel=1e-3)
            assert len(example["tokens"]) == len(example["values"]) == len(contexts[example["context"]])
            # the attribution and what no head adds make the value
            constant = float((sae.b_enc[30] - sae.b_dec @ sae.W_enc[:, 30]).detach())
            assert sum(example["dfa"]) + constant == pytest.approx(value, abs=2e-2)
            assert sum(example["by_head"]) + constant == pytest.approx(value, abs=2e-2)
            assert example["source"] == int(np.argmax(example["dfa"]))
            first = sum(example["by_head"]) - sum(example["by_head_without_sink"])
            assert first == pytest.approx(example["dfa"][0], abs=2e-2)
    with pytest.raises(OptionError, match="does not exist"):
        feature_record(source, FEATURES)


def test_the_logit_lens_and_related_features(model, sae, source):
    """The lens as the last norm and the unembedding give it: the direction alone as the stream, up to a factor."""
    record = feature_record(source, 7)
    with torch.no_grad():
        written = sae.W_dec[7] @ model.hf.model.layers[LAYER].self_attn.o_proj.weight.T
        logits = model.hf.lm_head(model.hf.model.norm(1e3 * written))
    assert [said for said, _ in record["logits"]["raised"]] == model.tokens(
        logits.argsort(descending=True)[:10].tolist()
    )
    assert [said for said, _ in record["logits"]["lowered"]] == model.tokens(logits.argsort()[:10].tolist())
    directions = sae.W_dec.detach() / sae.W_dec.detach().norm(dim=1, keepdim=True)
    cosines = directions @ directions[7]
    expected = [i for i in cosines.argsort(descending=True).tolist() if i != 7][:5]
    assert [f for f, _ in record["related"]] == expected
    assert record["related"][0][1] == pytest.approx(float(cosines[expected[0]]), abs=1e-3)


def test_a_feature_that_never_fires(source):
    record = feature_record(source, 29)
    assert record["groups"] == [] and record["max"] is None and record["heads"]["dfa"] is None
    assert record["histogram"] == {"edges": [], "counts": []}
    assert neuronpedia_json(record, model="m", source="s")["activations"] == []


def test_the_index(source, sae):
    rows = feature_index(source, [30, 2])
    assert [r["feature"] for r in rows] == [30, 2]
    assert (rows[0]["head"], rows[0]["head_share"]) == (4, 1.0)
    assert rows[1]["density"] == pytest.approx(float(source.activity.density[2]), rel=1e-3)
    assert rows[1]["tokens"] == [said for said, _ in feature_record(source, 2)["logits"]["raised"][:3]]


def test_a_model_whose_writing_cannot_be_followed(contexts):
    """Gemma 2 has a norm behind its attention: no lens, and the record says why."""
    other = tiny("gemma2")
    z = other.head_outputs(contexts[0])[LAYER]
    d_in = z.shape[1] * z.shape[3]
    draw = torch.Generator().manual_seed(1)
    config = SAEConfig(architecture="topk", k=3, d_in=d_in, d_sae=13)
    shapes = {"W_enc": (d_in, 13), "W_dec": (13, d_in), "b_dec": (d_in,), "b_enc": (13,)}
    made = feature_source(
        SAE(config, {n: torch.randn(s, generator=draw) for n, s in shapes.items()}), other, LAYER, contexts
    )
    record = feature_record(made, made.most_active(1)[0])
    assert "norm behind it" in record["logits"]["reason"]
    assert feature_index(made, [0])[0]["tokens"] == []


def test_neuronpedia_shape(source):
    record = feature_record(source, 17)
    file = neuronpedia_json(record, model="tiny", source="1-att-interp")
    assert (file["modelId"], file["layer"], file["index"], file["feature_index"]) == ("tiny", "1-att-interp", "17", 17)
    assert len(file["freq_hist_data_bar_values"]) == len(file["freq_hist_data_bar_heights"]) == 40
    assert len(file["logits_hist_data_bar_values"]) == len(file["logits_hist_data_bar_heights"]) == 40
    assert len(file["pos_str"]) == len(file["pos_values"]) == 10
    assert file["decoder_weights_dist"] == record["heads"]["weights"]
    examples = [e for g in record["groups"] for e in g["examples"]]
    assert len(file["activations"]) == len(examples) > TOP
    for a, e in zip(file["activations"], examples, strict=True):
        assert len(a["tokens"]) == len(a["values"]) == len(a["dfa_values"])
        assert a["dfa_values"][: len(e["dfa"])] == e["dfa"] and not any(a["dfa_values"][len(e["dfa"]) :])
        assert a["qualifying_token_index"] == a["dfa_targetIndex"] == e["position"]
        assert a["dfa_maxValue"] == max(e["dfa"]) and a["maxValue"] == max(e["values"])


def test_what_is_refused(model, sae, contexts):
    with pytest.raises(InputDataError, match="at least one"):
        activity(sae, model, LAYER, [])
    with pytest.raises(InputDataError, match="behind its first"):
        activity(sae, model, LAYER, [[5]])
    batch = SAE(SAEConfig(architecture="batchtopk", k=3, d_in=HEADS * SIZE, d_sae=FEATURES), sae.weights)
    with pytest.raises(OptionError, match="set a threshold"):
        activity(batch, model, LAYER, contexts)
