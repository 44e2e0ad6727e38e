"""QRHead: the calibration by hand, both forms against dense float64 maps, and the planted heads that follow a question."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputDataError, OptionError
from interp.heads.qrhead import NULL_QUERY, calibrated, qrhead
from interp.models.hooked import wrap
from interp.models.load import load
from interp.models.planted import planted
from interp.models.toy import byte_tokenizer, tiny
from interp.tasks import documents
from interp.tasks.needle import Needle
from interp.tasks.prompt import Prompt

HIDDEN = [
    Needle(texts=("The code is nine cats.",), question="What is the code?", answer="nine cats"),
    Needle(texts=("Ann has a map.",), question="What has Ann?", answer="a map"),
]
TEXTS = [" ".join(f"Line {i} of {t} is so." for i in range(40)) for t in "abcdef"]
MADE = {"documents": 3, "size": 37, "samples": 3, "hidden": HIDDEN, "texts": TEXTS, "seed": 4}


def small_prompts():
    return tuple(documents.prompts(byte_tokenizer(), **MADE, ask=ask) for ask in (None, NULL_QUERY))


# ---------------------------------------------------------------------- by hand
def test_calibration_by_hand():
    # mean 1/8, squares (7 * 49 + 49 * 49) / 64 = 42.875, standard deviation sqrt(42.875 / 7) = 2.475: only -6 is below -4.82
    values = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -6.0])
    assert calibrated(values[None]) == pytest.approx(7.0)
    mild = np.array([1.0, 2.0, -3.0])
    assert calibrated(mild[None]) == pytest.approx(0.0), "nothing is two standard deviations below: all of it counts"
    assert calibrated(np.full((1, 5), 0.2)) == pytest.approx(1.0), "without spread nothing is abnormal"
    assert calibrated(np.array([[0.25]])) == 0.25


# ---------------------------------------------------------------------- dense
@torch.no_grad()
def eager(ids):
    """Attention [layer, head, query, key] in float64 by transformers' own eager attention."""
    hf = tiny("llama").release().double()
    hf.set_attn_implementation("eager")
    return torch.stack([p[0] for p in hf(torch.tensor([ids]), output_attentions=True).attentions]).numpy()


@pytest.mark.parametrize("form", ["paper", "code"])
def test_scores_are_those_of_the_dense_maps(form):
    asked, nothing = small_prompts()
    result = qrhead(tiny("llama"), (asked, nothing), form=form)
    rows = "question" if form == "paper" else "tail"
    want, other = [], []
    for prompt, empty in zip(asked, nothing, strict=True):
        mean, null = (eager(x.ids)[:, :, list(x.rows[rows])].mean(2) for x in (prompt, empty))
        scores = {}
        for name in ("document1", "document2", "document3"):
            place = slice(*prompt.key_sets[name])
            t = mean[..., place]
            if form == "code":
                t = t - null[..., place]
                t = np.where(t > t.mean(-1, keepdims=True) - 2 * t.std(-1, ddof=1, keepdims=True), t, 0)
            scores[name] = t.sum(-1)
        gold = scores.pop(prompt.meta["gold"])
        want.append(gold)
        other.append(np.mean(list(scores.values()), axis=0))
        best = np.max(list(scores.values()), axis=0)
        np.testing.assert_array_equal(result.arrays["first"][len(want) - 1], gold > best)
    np.testing.assert_allclose(result.arrays["score"], want, atol=2e-6)
    np.testing.assert_allclose(result.arrays["control"], other, atol=2e-6)
    frame = result.frame
    np.testing.assert_allclose(frame.score, np.mean(want, axis=0).reshape(-1), atol=2e-6)
    np.testing.assert_allclose(frame.spread, np.std(want, axis=0, ddof=1).reshape(-1), atol=2e-6)
    assert result.manifest["settings"]["null_query"] == "N/A"
    if form == "paper":
        np.testing.assert_array_equal(result.arrays["raw"], result.arrays["score"])


# ---------------------------------------------------------------------- planted heads
SIZE = 13


def words(sample: int, gold: int) -> tuple[Prompt, Prompt]:
    """Three documents of different words, and a question made of the gold one's words in its own order, but for the last."""
    drawn = (1 + np.random.default_rng([7, sample]).permutation(96)).tolist()
    context = drawn[: 3 * SIZE]
    places = {f"document{d + 1}": (d * SIZE, (d + 1) * SIZE) for d in range(3)}
    made = []
    for question in (context[gold * SIZE : (gold + 1) * SIZE - 1], drawn[3 * SIZE : 4 * SIZE - 1]):
        ids = (*context, *question)
        tail = tuple(range(len(context), len(ids)))
        made.append(
            Prompt(
                ids=ids,
                answer=(1,),
                key_sets=places,
                rows={"question": tail, "tail": tail},
                meta={"gold": f"document{gold + 1}"},
            )
        )
    return made[0], made[1]


@pytest.mark.parametrize("form", ["paper", "code"])
def test_heads_that_follow_the_question_are_found_alone(form):
    model, places = planted(seed=1)
    pairs = [words(sample, gold) for sample, gold in enumerate((0, 2, 1, 1))]
    result = qrhead(model, ([a for a, _ in pairs], [b for _, b in pairs]), form=form)
    frame = result.frame.set_index(["layer", "head"])
    # equal words are found by all three, in the documents and in the question itself once it has them
    looking = [places[kind] for kind in ("induction", "retrieval", "duplicate")]
    assert (frame.loc[looking].score > 0.5).all()
    assert (frame.loc[looking]["first"] == 1.0).all()
    assert (frame.loc[looking].control < 0.1).all()
    others = frame.drop(index=looking)
    assert others.score.max() < (0.35 if form == "paper" else 0.1), "a uniform head gives every document its share"
    if form == "code":
        sink = frame.loc[places["sink"]]
        assert abs(sink.score) < 1e-6 and sink.raw == sink.null > 0.2, "the null query takes the sink away"


def test_the_same_seed_gives_the_same_scores():
    asked, nothing = small_prompts()
    said = []
    model = tiny("llama")
    a = qrhead(model, (asked, nothing), progress=lambda done, total: said.append((done, total)))
    b = qrhead(model, (asked, nothing))
    np.testing.assert_array_equal(a.arrays["score"], b.arrays["score"])
    assert said == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_scored_is_refused():
    model, _ = planted("sink")
    (asked, empty), (other, _) = words(0, 1), words(1, 1)
    with pytest.raises(OptionError, match="at least two prompts and as many with the null query, got 1 and 1"):
        qrhead(model, ([asked], [empty]))
    with pytest.raises(InputDataError, match="different documents"):
        qrhead(model, ([asked, asked], [empty, other]))
    with pytest.raises(InputDataError, match="got document1, document2, document3 and 'document9'"):
        qrhead(model, ([replace(asked, meta={"gold": "document9"})] * 2, [empty] * 2))
    with pytest.raises(InputDataError, match='lacks the rows "question" and "tail"'):
        qrhead(model, ([asked] * 2, [replace(empty, rows={})] * 2))
    with pytest.raises(InputDataError, match="came without a tokenizer"):
        qrhead(wrap(model.release()), ([asked] * 2, [empty] * 2))


@pytest.mark.medium
def test_the_known_heads_of_smollm2_look_at_the_answer():
    model = load("smollm2-135m")
    made = {"documents": 4, "size": 61, "samples": 2, "texts": TEXTS, "seed": 1}
    prompts = tuple(documents.prompts(model.tokenizer, **made, ask=ask) for ask in (None, NULL_QUERY))
    result = qrhead(model, prompts)
    # the long-prefix and short induction heads of this model, by other tests
    frame = result.frame.set_index(["layer", "head"])
    ranks = frame.score.rank(ascending=False)
    assert ranks[17, 3] <= 12 and ranks[18, 6] <= 12
    assert frame["first"][17, 3] == frame["first"][18, 6] == 1.0
    top = frame[ranks <= 12]
    assert (top.control.abs() < 0.2 * top.score).all(), "the other documents get little"
