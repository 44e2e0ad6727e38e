"""StreamingLLM's ordering on a planted model that needs its sink, losses by hand, buckets and intervals."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.interventions.readout import Readout
from interp.models.hooked import wrap
from interp.models.planted import planted_parts
from interp.sinks.streaming_loss import bucket_rows, row_losses, streaming_loss

TOKENS, SIZE, PERIOD = 211, 64, 19


def needs_its_sink(seed: int = 3):
    """A planted copier whose sink head is a no-op only while it can look at the first token: every other value shouts a wrong token."""
    parts, places = planted_parts("retrieval", "sink", seed=seed)
    hf, (layer, head) = parts.hf, places["sink"]
    places_table = hf.transformer.wpe.weight
    width = hf.config.n_embd // hf.config.n_head
    with torch.no_grad():
        attention = hf.transformer.h[layer].attn
        # The codes of many places cancel; what is left is the mark of "not the first".
        other = torch.nn.functional.normalize(places_table[1:].mean(0), dim=0)
        first = slice(2 * hf.config.n_embd + head * width, 2 * hf.config.n_embd + head * width + width)
        attention.c_attn.weight[:, first] = 0
        attention.c_attn.weight[:, first.start] = 0.1 * other
        attention.c_proj.weight[head * width : (head + 1) * width] = 0
        attention.c_proj.weight[head * width] = 3 * torch.nn.functional.normalize(hf.lm_head.weight[7], dim=0)
    return wrap(hf, parts.tokenizer, source=parts.source)


def repeating(seed: int) -> str:
    """Words that repeat with a short period: every next word can be copied from within the window."""
    words = 8 + np.random.default_rng(seed).permutation(80)[:PERIOD]
    return " ".join(f"w{w}" for w in np.tile(words, 40)[: 2 * TOKENS])


@pytest.fixture(scope="module")
def model():
    return needs_its_sink()


@pytest.fixture(scope="module")
def measured(model):
    return streaming_loss(
        model,
        texts=[repeating(1), repeating(2)],
        tokens=TOKENS,
        pieces=3,
        size=SIZE,
        sinks=(1, 2, 4),
        newline=5,
        seed=4,
    )


def test_the_ordering_of_the_paper(measured):
    loss = measured.table[measured.table["bucket"] == "beyond"].set_index("policy")["score"]
    assert loss["full"] < 0.5
    assert loss["window"] > loss["full"] + 1.0, "the window has lost the sink"
    assert loss["full without first"] > loss["full"] + 1.0, "the sink is what was lost, not the distance"
    for kept in ("sinks 1", "sinks 2", "sinks 4", "newline 4"):
        assert abs(loss[kept] - loss["full"]) < 0.1, kept
    near = measured.table[measured.table["bucket"] == f"0-{SIZE - 1}"].set_index("policy")["score"]
    for policy in ("window", "sinks 1", "sinks 4"):
        assert near[policy] == pytest.approx(near["full"], abs=1e-6), "nothing is hidden yet"
    assert near["full without first"] > near["full"] + 0.3


def test_rows_of_the_table_are_means_of_the_losses_and_their_pairs(measured):
    loss = measured.arrays["loss"]
    policies, buckets = measured.manifest["policies"], measured.manifest["buckets"]
    assert loss.shape == (len(policies), 3, len(buckets))
    table = measured.table.set_index(["policy", "bucket"])
    for n, policy in enumerate(policies):
        for b, bucket in enumerate(buckets):
            row = table.loc[(policy, bucket)]
            assert row["score"] == pytest.approx(loss[n, :, b].mean())
            assert row["spread"] == pytest.approx(loss[n, :, b].std(ddof=1))
            assert row["control"] == pytest.approx(loss[0, :, b].mean())
            assert row["perplexity"] == pytest.approx(np.exp(row["score"]))
            assert row["low"] * (1 - 1e-9) <= row["perplexity"] <= row["high"] * (1 + 1e-9)
            assert row["ratio_low"] * (1 - 1e-9) <= row["ratio"] <= row["ratio_high"] * (1 + 1e-9)
            bound = np.exp(loss[n, :, b])
            assert bound.min() * (1 - 1e-9) <= row["low"] <= row["high"] <= bound.max() * (1 + 1e-9)
    assert (table.loc["full", ["ratio", "ratio_low", "ratio_high"]] == 1.0).all().all()


def test_the_losses_are_those_of_a_dense_mask():
    model = interp.tiny("llama")
    ids = model.encode("w" * 3 + "to be, or not to be, that is")[:31]
    sinks, size = 2, 11
    i, j = np.indices((31, 31))
    seen = (j <= i) & ((j < sinks) | (i - j < size - sinks))
    plain = interp.tiny("llama").release()
    plain.set_attn_implementation("eager")
    bias = torch.where(torch.from_numpy(seen), 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        logits = plain(torch.tensor([ids]), attention_mask=bias, use_cache=False).logits[0, :-1].double()
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    from interp.interventions.streaming import Streaming

    with model.edit(Streaming(sinks=sinks, window=size - sinks)):
        ours = row_losses(Readout(model), ids)
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    assert abs(row_losses(Readout(model), ids)[12:] - wanted.numpy()[12:]).max() > 1e-3


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "llama"])
def test_row_losses_are_those_of_the_models_own_logits(family, monkeypatch):
    model = interp.tiny(family)
    ids = model.encode("capped, tied or plain unembeddings")
    monkeypatch.setattr(sys.modules["interp.interventions.readout"], "ROWS", 7)
    logits = model.run(ids, collect=[]).logits
    wanted = torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:]), reduction="none")
    np.testing.assert_allclose(row_losses(Readout(model), ids), wanted, atol=1e-5)


def test_buckets_double_and_the_last_token_is_in_none():
    assert bucket_rows(211, 64) == {"0-63": (0, 64), "64-127": (64, 128), "128-209": (128, 210), "beyond": (64, 210)}
    assert list(bucket_rows(4096, 1024)) == ["0-1023", "1024-2047", "2048-4094", "beyond"]


def test_a_finished_piece_is_not_measured_again(model, tmp_path, monkeypatch):
    given = {"texts": [repeating(1)], "tokens": TOKENS, "pieces": 1, "size": SIZE, "sinks": (1,), "newline": 5}
    first = streaming_loss(model, folder=tmp_path, **given)
    monkeypatch.setattr(
        sys.modules["interp.sinks.streaming_loss"], "row_losses", lambda *_: pytest.fail("measured again")
    )
    again = streaming_loss(model, folder=tmp_path, **given)
    np.testing.assert_array_equal(first.arrays["loss"], again.arrays["loss"])
    assert np.isnan(first.table["spread"]).all()


def test_what_makes_no_sense_is_refused(model):
    texts = [repeating(1)]
    for bad in ({"size": 4}, {"size": 210}, {"sinks": (0,)}, {"sinks": ()}, {"pieces": 0}, {"tokens": 5000}):
        with pytest.raises(OptionError):
            streaming_loss(model, **({"texts": texts, "tokens": TOKENS, "size": SIZE, "newline": 5} | bad))
    with pytest.raises(InputDataError, match="newline"):
        streaming_loss(model, texts=texts, tokens=TOKENS, size=SIZE)
    with pytest.raises(InputDataError, match="no text has"):
        streaming_loss(model, texts=["w1 w2"], tokens=TOKENS, size=SIZE, newline=5)
    with pytest.raises(UnsupportedModelError):
        streaming_loss(interp.tiny("t5"), texts=texts)
