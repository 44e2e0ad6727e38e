"""Deployment of streaming heads: which heads stream, recall on a planted copier, losses of the same edit, and bytes counted by hand."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.errors import InputDataError, OptionError
from interp.heads.deployment import METRICS, deployed, deployment
from interp.interventions.streaming import Streaming
from interp.models.planted import HEADS, LAYERS, SIZE, planted
from interp.results import Result
from interp.tasks.prompt import Prompt

SINKS, WINDOW, STEPS = 2, 11, 8
LENGTH = 61


def scores(kind: str, value: np.ndarray, **more: object) -> Result:
    layer, head = (x.reshape(-1) for x in np.indices(value.shape))
    table = pd.DataFrame(
        {"layer": layer, "head": head, "score": value.reshape(-1), "spread": np.nan, "control": np.nan, "kv_head": head}
    )
    return Result(kind=kind, table=table, manifest={"settings": {"form": "output"}}, **more)


def copied(seed: int) -> Prompt:
    """Distinct words, then the word before an early run of them: a copier goes on with the run."""
    words = (1 + np.random.default_rng(seed).permutation(96)[: LENGTH - 1]).tolist()
    answer = words[9:16]
    return Prompt(ids=(*words, words[8]), answer=tuple(answer), meta={"answer": " ".join(f"w{i}" for i in answer)})


PROMPTS = [copied(seed) for seed in (1, 2, 3)]
TEXTS = [" ".join(f"w{i}" for i in np.random.default_rng(9).integers(1, 97, 400))]
TEXT = {"texts": TEXTS, "text_tokens": 53, "text_samples": 2}


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    monkeypatch.setattr(sys.modules["interp.heads.deployment"], "STEPS", STEPS)


@pytest.fixture(scope="module")
def copier():
    return planted("retrieval", seed=5)


@pytest.fixture(scope="module")
def needed(copier):
    """Scores that know the two heads of the copying circuit."""
    _, places = copier
    need = np.random.default_rng(0).random((LAYERS, HEADS)) * 0.1
    for kind in ("previous", "retrieval"):
        need[places[kind]] = 1.0
    return scores("heads.retrieval", need)


def test_the_copier_keeps_its_recall_and_random_heads_do_not(copier, needed):
    model, places = copier
    result = deployment(
        model, needed, share=0.6, sinks=SINKS, window=WINDOW, prompts=PROMPTS[:2], draws=4, seed=2, **TEXT
    )
    table = result.table.set_index("metric")
    assert table.index.tolist() == list(METRICS)
    assert table.loc["needle recall", "base"] == 1.0
    assert table.loc["needle recall", "score"] == 1.0
    assert table.loc["needle recall", "everything"] < 0.5
    streams = result.arrays["streaming"]
    assert streams.sum() == 9
    assert not streams[places["retrieval"]]
    assert not streams[places["previous"]]
    # A random set that streams the retrieval head loses the answer, every other set keeps it.
    random = result.arrays["random"]
    recall, held = random[:, METRICS.index("needle recall")], random[:, METRICS.index("cache bytes")]
    assert set((recall == 1.0).tolist()) == {True, False}
    assert table.loc["needle recall", "control"] == pytest.approx(recall.mean())
    assert table.loc["needle recall", "spread"] == pytest.approx(recall.std(ddof=1))
    # Bytes: prompt and answer without its last token; a key and a value of SIZE float32 for each token of each head.
    tokens, each = LENGTH + STEPS - 1, 2 * SIZE * 4
    assert table.loc["cache bytes", "base"] == LAYERS * HEADS * tokens * each
    kept = (LAYERS * HEADS - 9) * tokens + 9 * (SINKS + WINDOW - 1)
    assert table.loc["cache bytes", "score"] == kept * each
    assert (held == kept * each).all(), "random sets are of the same size in every layer"
    assert table.loc["cache bytes", "everything"] == LAYERS * HEADS * (SINKS + WINDOW - 1) * each
    assert 0 < result.manifest["same"] < 1


def test_loss_is_that_of_the_same_edit_in_one_prefill(copier, needed):
    from interp.tasks.sequences import sequences

    model, _ = copier
    result = deployment(
        model, needed, share=0.6, sinks=SINKS, window=WINDOW, prompts=PROMPTS[:1], draws=2, seed=7, **TEXT
    )
    ids = torch.tensor(sequences(model, "natural", texts=TEXTS, tokens=53, count=2, seed=7))
    heads = tuple((int(a), int(b)) for a, b in np.argwhere(result.arrays["streaming"]))
    with torch.no_grad(), model.edit(Streaming(heads=heads, sinks=SINKS, window=WINDOW)):
        logits = model.hf(input_ids=ids, use_cache=False).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    table = result.table.set_index("metric")["score"]
    assert table["loss on text"] == pytest.approx(float(loss), abs=1e-5)
    assert table["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-5)


def test_groups_stream_as_a_whole():
    """Three query heads a group: the mean or the neediest of them speaks for the group."""
    need = np.array([[0.9, 0.0, 0.0, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.1, 0.1, 0.1], [0.7, 0.7, 0.7, 0.8, 0.8, 0.8]])
    given = scores("heads.retrieval", need)
    assert deployed(given, 0.5, group="mean", shape=(3, 2)) == [(0, 0), (1, 0), (1, 1)]
    assert deployed(given, 0.5, group="worst", shape=(3, 2)) == [(0, 1), (1, 0), (1, 1)]
    model = interp.tiny("llama")
    prompt = Prompt(ids=tuple(model.encode("a needle in a small stack of hay")), answer=(), meta={"answer": "x"})
    texts = ["some text that is long enough to lose a key or two of it"]
    result = deployment(
        model, given, sinks=1, window=7, prompts=[prompt], texts=texts, text_tokens=23, text_samples=1, draws=2
    )
    held = result.table.set_index("metric").loc["cache bytes"]
    tokens, each = len(prompt.ids) + STEPS - 1, 2 * 10 * 4
    assert held["base"] == 6 * tokens * each
    assert held["score"] == (3 * tokens + 3 * 7) * each
    assert result.manifest["heads"] == ["0.0", "1.0", "1.1"]


def test_gates_choose_by_the_rule_of_their_authors():
    gates = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    result = Result(
        kind="heads.streaming",
        table=scores("heads.streaming", gates).table,
        manifest={"settings": {"form": "gates"}},
        arrays={"gates": gates},
    )
    assert deployed(result, 0.5, group="mean", shape=(3, 2)) == [(0, 0), (1, 1), (2, 0)]


def test_a_finished_evaluation_is_not_made_again(copier, needed, tmp_path, monkeypatch):
    model, _ = copier
    given = {
        "share": 0.6,
        "sinks": SINKS,
        "window": WINDOW,
        "prompts": PROMPTS[:1],
        "draws": 2,
        "folder": tmp_path,
        **TEXT,
    }
    first = deployment(model, needed, **given)
    monkeypatch.setattr(sys.modules["interp.heads.deployment"], "_needle", lambda *_: pytest.fail("measured again"))
    again = deployment(model, needed, **given)
    pd.testing.assert_frame_equal(first.table, again.table)


def test_what_makes_no_sense_is_refused(copier, needed):
    model, _ = copier
    base = {"sinks": SINKS, "window": WINDOW, "prompts": PROMPTS, **TEXT}
    for bad, said in (
        ({"share": 0.0}, "share"),
        ({"share": 0.001}, "leaves some of both"),
        ({"draws": 1}, "draws"),
        ({"window": 90}, "nothing would be dropped"),
        ({"text_tokens": 5000}, "reads"),
    ):
        with pytest.raises(OptionError, match=said):
            deployment(model, needed, **(base | bad))
    with pytest.raises(InputDataError, match="answer"):
        deployment(model, needed, **(base | {"prompts": [Prompt(ids=tuple(range(1, 60)), answer=())]}))
    with pytest.raises(OptionError, match="query heads"):
        deployment(model, scores("heads.retrieval", np.ones((2, HEADS))), **base)
