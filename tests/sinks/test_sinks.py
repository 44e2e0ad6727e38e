"""Attention sinks against dense maps, hand-made hidden states and a planted sink head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

TEXTS = ["the quick brown fox jumps over the lazy dog and then it sleeps for a long while " * 4]


@pytest.fixture(scope="module")
def model():
    import interp

    return interp.tiny("llama")


def dense_map(hf, ids):
    """Attention of every layer and head from eager Hugging Face attention, [layer, head, query, key]."""
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        maps = hf(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
    return torch.stack([m[0] for m in maps]).double()


def test_alpha_is_the_mean_over_the_rows_that_see_the_key(model):
    import interp
    from interp.sinks.alpha import alphas, sink_rates
    from interp.tasks.sequences import sequences

    texts = sequences(model, "natural", texts=TEXTS, tokens=37, count=5, seed=3)
    ours = alphas(model, texts, batch=2)
    eager = interp.tiny("llama").release()
    theirs = np.stack([(dense_map(eager, ids).sum(2) / torch.arange(37, 0, -1)).numpy() for ids in texts])
    seen = ~np.isnan(ours)
    assert seen.sum(-1).min() == 37 - 15, "keys that fewer than 16 rows see are left out"
    np.testing.assert_allclose(ours[seen], theirs[seen], atol=1e-6)
    rates = sink_rates(ours, [0.05, 0.9])
    np.testing.assert_array_equal(rates[0.05], (theirs[..., 0] > 0.05).mean(0))
    assert rates[0.9].max() == 0


def test_sequences_have_one_length_and_depend_on_the_seed_alone(model):
    from interp.errors import InputDataError
    from interp.tasks.sequences import sequences

    for source in ("natural", "random", "repeated"):
        few = sequences(model, source, texts=TEXTS, tokens=23, count=3, seed=1)
        many = sequences(model, source, texts=TEXTS, tokens=23, count=7, seed=1)
        assert many[:3] == few, "sequence i does not depend on how many are drawn"
        assert {len(s) for s in many} == {23}
        assert sequences(model, source, texts=TEXTS, tokens=23, count=3, seed=2) != few
    start = len(model.encode("")) if model.encode("") else 0
    assert all(len(set(s[start:])) == 1 for s in sequences(model, "repeated", texts=TEXTS, tokens=23, count=4))
    body = sequences(model, "natural", texts=TEXTS, tokens=23, count=1, seed=1)[0][start:]
    assert model.tokenizer.decode(body) in TEXTS[0]
    with pytest.raises(InputDataError, match="no text has"):
        sequences(model, "natural", texts=["short"], tokens=64)


def test_hidden_sinks_pass_the_rule_and_never_name_the_first_token(model):
    from interp.sinks.detect import hidden_sinks

    ids = model.encode(TEXTS[0])[:61]
    run = model.run(ids, collect=["alpha"])
    alpha = run.stats["alpha"].numpy()
    for form, limit in (("paper", 5 / 61), ("code", 0.1)):
        found = hidden_sinks(run, form=form)
        wanted = {(int(x), int(h), int(k) + 1) for x, h, k in np.argwhere(np.nan_to_num(alpha[..., 1:]) > limit)}
        assert set(zip(found.layer, found["head"], found.key, strict=True)) == wanted
        assert (found.key > 0).all()
        assert found.alpha.is_monotonic_decreasing
        assert [run.tokens[k] for k in found.key] == found.token.tolist()


def test_phi_and_massive_activations_on_a_hand_made_residual():
    from interp.sinks.hidden import massive_activations, phi, sink_dimensions

    states = torch.ones(5, 4, 100)
    states[2:, 0, 7] = -3000.0
    states[2:, 0, 31] = 2000.0
    assert sorted(sink_dimensions(states)) == [7, 31]
    values = phi(states, [7, 31])
    rms = ((3000.0**2 + 2000.0**2 + 98) / 100) ** 0.5
    torch.testing.assert_close(values[3, 0], torch.tensor(3000 / rms))
    torch.testing.assert_close(values[:2], torch.ones(2, 4))
    found = massive_activations(states)
    assert set(zip(found.layer, found.token, found.feature, strict=True)) == {
        (x, 0, d) for x in (2, 3, 4) for d in (7, 31)
    }
    assert found[found.feature == 7].activation.unique().tolist() == [-3000.0]


def test_norms_are_those_of_the_tensors_in_the_model(model):
    import interp
    from interp.sinks.hidden import first_over_others, norms

    ids = model.encode(TEXTS[0])[:29]
    frame = norms(model, ids)
    hf = interp.tiny("llama").release()
    values = {}
    handle = hf.model.layers[1].self_attn.v_proj.register_forward_hook(lambda m, i, o: values.update(v=o))
    with torch.no_grad():
        hidden = hf(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
    handle.remove()
    residual = hidden[1][0].norm(dim=-1)
    row = frame[(frame.layer == 1) & (frame.quantity == "residual")].iloc[0]
    np.testing.assert_allclose([row["first"], row.others], [residual[0], residual[1:].median()], rtol=1e-5)
    size = hf.model.layers[1].self_attn.head_dim
    value = values["v"][0, :, size : 2 * size].norm(dim=-1)
    row = frame[(frame.layer == 1) & (frame.quantity == "value") & (frame["head"] == 1)].iloc[0]
    np.testing.assert_allclose([row["first"], row.others], [value[0], value[1:].median()], rtol=1e-5)
    assert first_over_others(frame, "key").shape == (model.layers,)


def test_a_planted_sink_head_is_found_and_no_other():
    from interp.models.planted import planted
    from interp.sinks.report import report

    model, where = planted("sink")
    words = " ".join(f"w{i}" for i in range(90))
    text = [words if model.tokenizer is None else model.tokenizer.decode(list(range(3, 90)))]
    result = report(model, texts=text, tokens=32, count=6, long_tokens=48)
    frame = result.frame
    hit = frame[frame.score > 0.5]
    assert list(zip(hit.layer, hit["head"], strict=True)) == [where["sink"]]
    assert (frame.loc[hit.index, "rate_repeated"] == 1).all(), "planted by position, so repeated tokens change nothing"
    assert result.top(1)[0][:2] == where["sink"]
    assert {"natural", "random", "repeated"} == set(result.manifest["sink_1"])


def test_repeated_tokens_make_no_sink_in_a_rotary_model_without_bos(model):
    """Gu et al., propositions: with identical tokens and rotary positions there is no first-token sink."""
    from interp.sinks.alpha import alphas, sink_rates

    letter = model.encode("z")[-1]
    alpha = alphas(model, [[letter] * 64])
    assert sink_rates(alpha)[0.3].max() == 0
