"""Retrieval heads: the scores by hand, the replay against eager maps and stepwise greedy decoding, and the planted head found alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import InputDataError, OptionError
from interp.heads import retrieval_score as s
from interp.heads.retrieval import RETRIEVAL_HEAD, _LineEnd, control_span, greedy, replay, retrieval
from interp.models.planted import planted
from interp.tasks.prompt import Prompt

SIZE = 7
WHERE = {(61, 0.2): 13, (61, 0.8): 47, (79, 0.2): 17, (79, 0.8): 59}
"""Length and depth -> first position of the needle."""


def sentence(seed: int, length: int, depth: float) -> Prompt:
    """Distinct random words, then the word before the needle again: a model that copies goes on with the needle."""
    at = WHERE[length, depth]
    words = (1 + np.random.default_rng([seed, length, at]).permutation(96)[: length - 1]).tolist()
    needle = words[at : at + SIZE]
    return Prompt(
        ids=(*words, words[at - 1]),
        answer=tuple(needle),
        key_sets={"needle": (at, at + SIZE), "answer": (at, at + SIZE), "context": (0, length - 1)},
        meta={"answer": " ".join(f"w{i}" for i in needle), "length": length, "depth": depth, "task": "planted"},
    )


PROMPTS = [sentence(seed, *place) for seed in range(3) for place in WHERE]


@pytest.fixture(scope="module")
def copier():
    return planted("retrieval", seed=5)


# ------------------------------------------------------------------ scores by hand
IDS = np.array([9, 4, 5, 4, 6, 9, 7, 4, 5, 6, 4])
"""Span (1, 5) holds 4, 5, 4, 6: three distinct tokens. The answer starts behind position 6."""
GENERATED = np.array([4, 5, 6, 4])
TOP = np.array([[[1, 2, 4, 3], [1, 1, 4, 7], [5, 0, -1, 6]]])
"""One layer, three heads: copies all; copies 4 and 6 (and looks at a right token outside the span); never copies."""


def test_copies_by_hand():
    expected = [[[True, True, True, True], [True, False, True, False], [False] * 4]]
    np.testing.assert_array_equal(s.copies(TOP, IDS, GENERATED, (1, 5)), expected)


def test_paper_and_code_form_by_hand():
    copied = s.copies(TOP, IDS, GENERATED, (1, 5))
    np.testing.assert_allclose(s.paper_score(copied, GENERATED, IDS[1:5]), [[1.0, 2 / 3, 0.0]])
    np.testing.assert_allclose(s.code_score(copied, 4), [[1.0, 0.5, 0.0]])


def test_only_the_code_form_exceeds_one():
    generated = np.array([4, 4, 4])
    copied = s.copies(np.array([[[1, 1, 1]]]), IDS, generated, (1, 3))
    assert s.code_score(copied, 2).item() == 1.5
    assert s.paper_score(copied, generated, IDS[1:3]).item() == 0.5


def test_headkv_by_hand():
    top = np.array([[[[1, 0], [6, 2]], [[5, -1], [0, 6]]]])
    prob = np.array([[[[0.5, 0.25], [0.375, 0.125]], [[1.0, 0.0], [0.5, 0.25]]]])
    np.testing.assert_allclose(s.headkv_score(top, prob, (1, 3)), [[(0.5 + 0.125) / 2, 0.0]])


def test_answer_f1_by_hand():
    assert s.answer_f1("the red cat", "A red dog, a red cat!") == pytest.approx(2 * 2 / (2 + 4))
    assert s.answer_f1("the red cat", "The red cat.") == 1.0
    assert s.answer_f1("red", "") == 0.0


# ------------------------------------------------------------------ one answer
def test_answer_equals_greedy_steps_and_eager_maps(copier):
    model, _ = copier
    prompt = PROMPTS[1]
    (whole,) = greedy(model, [prompt.ids], steps=5, stop="eos")
    got = replay(model, whole, len(prompt.ids), keys=3)
    plain, _ = planted("retrieval", seed=5)
    hf = plain.release()
    hf.set_attn_implementation("eager")
    ids, tops, probs = list(prompt.ids), [], []
    for _ in range(5):  # no cache: every step reads everything again
        with torch.no_grad():
            out = hf(torch.tensor([ids]), output_attentions=True, use_cache=False)
        row = torch.stack([m[0, :, -1] for m in out.attentions])
        order = torch.sort(row, stable=True, dim=-1, descending=True)
        tops.append(order.indices[..., :3])
        probs.append(order.values[..., :3])
        ids.append(int(out.logits[0, -1].argmax()))
    assert got.generated.tolist() == ids[len(prompt.ids) :]
    assert got.text == " ".join(f"w{i}" for i in got.generated)
    assert got.top.shape == (3, 5, 5, 3)
    np.testing.assert_allclose(got.prob, torch.stack(probs, 2).numpy(), atol=1e-5)
    clear = np.abs(np.diff(torch.stack(probs, 2).numpy(), axis=-1)).min(-1) > 1e-5
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(got.top[clear], torch.stack(tops, 2).numpy()[clear])


def test_answers_of_a_batch_are_those_of_each_alone_up_to_its_own_end(copier, monkeypatch):
    model, _ = copier
    given = [p.ids for p in PROMPTS]
    alone = [greedy(model, [ids], steps=5, stop="eos")[0].tolist() for ids in given]
    assert [x.tolist() for x in greedy(model, given, steps=5, stop="eos")] == alone
    end = alone[0][len(given[0]) + 2]
    monkeypatch.setattr(model.hf.generation_config, "eos_token_id", end)
    monkeypatch.setattr(model.hf.generation_config, "pad_token_id", 0)

    def cut(whole, start):
        return next((whole[: n + 1] for n in range(start, len(whole)) if whole[n] == end), whole)

    expected = [cut(whole, len(ids)) for whole, ids in zip(alone, given, strict=True)]
    assert len({len(x) - len(ids) for x, ids in zip(expected, given, strict=True)}) > 1
    assert [x.tolist() for x in greedy(model, given, steps=5, stop="eos")] == expected


def test_a_line_ends_behind_the_first_newline_after_text():
    class Spelling:
        def decode(self, ids, skip_special_tokens):
            assert skip_special_tokens
            return "".join({1: "\n", 2: " the", 3: " cat", 4: ".\n"}[i] for i in ids)

    rule = _LineEnd(Spelling(), 2)

    def done(*new):
        return rule(torch.tensor([[4, 4, *new]]), None).tolist()

    assert done(1, 1) == [False], "newlines before any text do not count, nor those of the prompt"
    assert done(1, 2, 3) == [False]
    assert done(1, 2, 3, 4) == [True]
    assert done(2, 1) == [True]
    assert rule(torch.tensor([[4, 4, 2, 3], [4, 4, 2, 1]]), None).tolist() == [False, True]


def test_control_span_is_elsewhere_in_the_context():
    prompt = Prompt(
        ids=tuple(range(23)),
        answer=(1,),
        key_sets={"needle": (8, 14), "answer": (11, 13), "context": (5, 17), "question": (17, 22)},
    )
    seen = {control_span(prompt, "answer", np.random.default_rng(i)) for i in range(200)}
    assert seen == {(5, 7), (6, 8), (14, 16), (15, 17)}
    with pytest.raises(InputDataError, match="no 6 tokens beside 'needle'"):
        control_span(prompt, "needle", np.random.default_rng(0))


# ------------------------------------------------------------------ the analysis
@pytest.mark.parametrize("form", ["paper", "code", "headkv"])
@pytest.mark.parametrize("seed", [2, 5])
def test_the_planted_head_and_no_other(form, seed):
    model, places = planted("retrieval", seed=seed)
    result = retrieval(model, PROMPTS, form=form, steps=SIZE)
    frame = result.frame.set_index(["layer", "head"])
    planted_head = frame.loc[places["retrieval"]]
    assert planted_head.score > 0.9
    assert planted_head.active == 1.0
    assert planted_head.control < 0.05
    assert frame.drop(index=places["retrieval"]).score.max() < RETRIEVAL_HEAD
    assert len(frame) == 15


def test_the_score_reads_patterns_alone():
    model, places = planted(seed=2)
    frame = retrieval(model, PROMPTS, steps=SIZE).frame
    found = {(int(x.layer), int(x.head)) for x in frame.itertuples() if x.score >= RETRIEVAL_HEAD}
    assert found == {places["retrieval"], places["induction"]}, "the planted induction head attends to the same keys"


def test_arrays_grid_and_manifest(copier, tmp_path):
    model, places = copier
    wrong = PROMPTS[2]
    wrong = Prompt(
        ids=wrong.ids, answer=wrong.answer, key_sets=wrong.key_sets, meta=dict(wrong.meta) | {"answer": "no such words"}
    )
    calls = []
    given = [PROMPTS[0], PROMPTS[1], wrong, PROMPTS[4]]
    result = retrieval(model, given, form="code", steps=2 * SIZE, seed=3, progress=lambda *at: calls.append(at))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.arrays["sample"].tolist() == [0, 1, 3]
    assert result.manifest["settings"]["accepted"] == 3
    assert result.manifest["settings"]["samples"] == 4
    np.testing.assert_array_equal(result.arrays["score"], result.arrays["code"])
    assert result.arrays["paper"].shape == (3, 3, 5)
    assert result.arrays["paper"].max() <= 1.0
    assert (result.manifest["settings"]["lengths"], result.manifest["settings"]["depths"]) == ([61, 79], [0.2, 0.8])
    assert result.arrays["grid_accepted"].tolist() == [[2, 1], [0, 0]], "the one answer at (79, 0.2) was refused"
    score, grid = result.arrays["score"], result.arrays["grid"]
    np.testing.assert_allclose(grid[0, 0], (score[0] + score[2]) / 2)
    np.testing.assert_allclose(grid[0, 1], score[1])
    assert np.isnan(grid[1]).all()
    again = retrieval(model, given, form="code", steps=2 * SIZE, seed=3)
    np.testing.assert_array_equal(again.arrays["control"], result.arrays["control"])
    saved = type(result).load(result.save(tmp_path / "retrieval"))
    assert saved.top(1)[0][:2] == places["retrieval"]


def test_prompts_that_cannot_be_scored_are_refused(copier):
    model, _ = copier
    with pytest.raises(OptionError, match="steps must be at least 1"):
        retrieval(model, PROMPTS, steps=0)
    with pytest.raises(OptionError, match="fit into the 1024 tokens"):
        retrieval(model, PROMPTS, steps=1000)
    with pytest.raises(InputDataError, match="no key set 'needle2'"):
        retrieval(model, PROMPTS, span="needle2")
    with pytest.raises(InputDataError, match="0 of 2 answers were accepted"):
        retrieval(model, [Prompt(
            ids=p.ids, answer=p.answer, key_sets=p.key_sets, meta={"answer": "nothing of the kind"}
        ) for p in PROMPTS[:2]], steps=2)  # fmt: skip
