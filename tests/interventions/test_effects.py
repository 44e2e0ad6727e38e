"""Effects of interventions against the model's own logits in float64, matched controls, and a planted head that alone knows the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.capture.edits import Intervention
from interp.errors import EditError, OptionError, UnsupportedModelError
from interp.interventions.ablate import AblateHeads
from interp.interventions.answers import answer_scores
from interp.interventions.bias import LogBias
from interp.interventions.effects import answer_effects, generation_effects, interval, text_effects
from interp.interventions.gate import GateHeads
from interp.interventions.readout import Readout
from interp.interventions.relocate import edited_heads, relocated
from interp.interventions.schedule import Schedule
from interp.interventions.temperature import Temperature
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.tasks.prompt import Prompt

TEXTS = [list(range(20, 31)), list(range(50, 63)), list(range(100, 107))]


def logits(model, ids):
    with torch.no_grad():
        return model.hf(torch.tensor([ids])).logits[0].double()


def prompts():
    """Two lengths of prompts and of answers, with a wrong answer and choices."""
    return [
        Prompt(ids=tuple(range(9 + n, 16 + n + n % 2)), answer=(40 + n, 77, 90)[: 1 + n % 3], wrong=(60 + n,),
               choices={"pair": (40 + n, 60 + n)})
        for n in range(7)
    ]  # fmt: skip


def copying(count=6, seed=3):
    """A random run of words and its beginning again: what follows is known to whoever looks back."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = [int(w) for w in draw.choice(np.arange(1, 97), size=17, replace=False)]
        found.append(Prompt(ids=(*words, *words[:5]), answer=tuple(words[5:8]), wrong=(words[12],)))
    return found


# ------------------------------------------------------------------ answers
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_oss", "opt", "gpt_neox"])
def test_answer_scores_are_those_of_the_whole_logits(family):
    model = tiny(family)
    given = prompts()
    scores = answer_scores(model, given, batch=3)
    among = answer_scores(model, given, choices="pair")
    for n, prompt in enumerate(given):
        rows = logits(model, prompt.whole)[len(prompt.ids) - 1 : len(prompt.whole) - 1]
        answer = torch.tensor(prompt.answer)
        logprob = rows.log_softmax(-1)[torch.arange(len(answer)), answer].sum()
        difference = rows[0, prompt.answer[0]] - rows[0, prompt.wrong[0]]
        assert scores.logprob[n] == pytest.approx(float(logprob), abs=2e-5)
        assert scores.probability[n] == pytest.approx(float(logprob.exp()), rel=2e-5)
        assert scores.logit_difference[n] == pytest.approx(float(difference), abs=2e-5)
        assert scores.correct[n] == bool((rows.argmax(-1) == answer).all())
        assert among.correct[n] == (float(difference) > 0)
    assert 0 < among.correct.sum() < len(given)  # both outcomes occur, so that the comparison says something


def test_a_prompt_without_a_wrong_answer_has_no_difference():
    scores = answer_scores(tiny("llama"), [Prompt(ids=(9, 10, 11), answer=(12,))])
    assert np.isnan(scores.logit_difference).all()
    assert np.isfinite(scores.logprob).all()


def test_answers_that_cannot_be_scored_are_refused():
    model = tiny("llama")
    with pytest.raises(OptionError, match="no prompts"):
        answer_scores(model, [])
    with pytest.raises(OptionError, match="no answer"):
        answer_scores(model, [Prompt(ids=(9,), answer=())])
    with pytest.raises(OptionError, match="'other' are not there; this prompt has: pair"):
        answer_scores(model, prompts(), choices="other")
    with pytest.raises(OptionError, match="hold the answer"):
        answer_scores(model, [Prompt(ids=(9,), answer=(10,), choices={"a": (11, 12)})], choices="a")
    with pytest.raises(OptionError, match="510 tokens"):
        answer_scores(model, [Prompt(ids=(9,) * 509, answer=(10, 11))])
    with pytest.raises(UnsupportedModelError, match="unembedding"):
        Readout(tiny("bert"))


# ------------------------------------------------------------------ texts
def test_text_effects_are_those_of_the_whole_logits():
    model = tiny("gemma2")
    edit = AblateHeads(heads=((1, 2), (0, 4)))
    result = text_effects(model, [edit], TEXTS, draws=2, seed=5)
    change, kl, agrees = [], [], []
    for ids in TEXTS:
        base = logits(model, ids)[:-1].log_softmax(-1)
        with model.edit(edit):
            edited = logits(model, ids)[:-1].log_softmax(-1)
        at = torch.arange(len(ids) - 1), torch.tensor(ids[1:])
        change.append(base[at] - edited[at])
        kl.append((base.exp() * (base - edited)).sum(-1))
        agrees.append(base.argmax(-1) == edited.argmax(-1))
    np.testing.assert_allclose(result.arrays["cross_entropy_change"], torch.cat(change), atol=2e-5)
    np.testing.assert_allclose(result.arrays["kl"], torch.cat(kl), atol=2e-5)
    np.testing.assert_array_equal(result.arrays["agrees"], torch.cat(agrees))
    table = result.frame.set_index("metric")
    assert table.loc["cross-entropy", "score"] == pytest.approx(float(torch.cat(change).mean()), abs=2e-5)
    assert table.loc["KL(base || edited)", "edited"] == pytest.approx(float(torch.cat(kl).mean()), abs=2e-5)
    assert table.loc["top-1 agreement", "edited"] == pytest.approx(float(torch.cat(agrees).double().mean()))
    np.testing.assert_array_equal(result.arrays["document"], np.repeat([0, 1, 2], [10, 12, 6]))
    for row in result.frame.to_dict("records"):
        assert row["low"] <= row["score"] <= row["high"]


def test_controls_are_the_same_edit_on_other_heads_of_the_same_layers():
    model = tiny("llama")
    heads = ((0, 1), (2, 3), (2, 0))
    result = text_effects(model, [GateHeads(gate=dict(zip(heads, (0.0, 0.5, 1.5), strict=True)))], TEXTS, draws=3)
    scores = result.arrays["control_scores"]
    assert scores.shape == (3, 3)
    table = result.frame
    np.testing.assert_allclose(table["control"], scores.mean(1))
    np.testing.assert_allclose(table["spread"], scores.std(1, ddof=1))
    assert (scores.std(1)[:2] > 0).all()
    again = text_effects(model, [AblateHeads(heads=heads)], TEXTS, controls=[[AblateHeads(heads=heads)]] * 2)
    np.testing.assert_allclose(again.frame["control"], again.frame["score"])
    assert again.manifest["controls"] == "given"


def test_an_edit_without_heads_has_no_control_of_its_own():
    result = text_effects(tiny("llama"), [Temperature(tau=0.5)], TEXTS)
    assert result.frame["control"].isna().all()
    assert result.frame["score"].iloc[0] != 0
    assert "none" in result.manifest["controls"]


def test_an_edit_that_changes_nothing_has_no_effect():
    model = tiny("llama")
    result = text_effects(model, [GateHeads(gate={(1, 1): 1.0})], TEXTS, draws=2)
    np.testing.assert_array_equal(result.frame["score"], np.zeros(3))
    np.testing.assert_array_equal(result.arrays["control_scores"], np.zeros((3, 2)))


def test_the_base_is_what_is_in_force_outside():
    model, ids = tiny("llama"), TEXTS[0]
    with model.edit(Temperature(tau=0.3)):
        result = text_effects(model, [AblateHeads(heads=((1, 2),))], [ids], draws=2)
        expected = -logits(model, ids)[:-1].log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]].mean()
    assert result.frame["base"].iloc[0] == pytest.approx(float(expected), abs=2e-5)
    assert np.isnan(result.frame["low"]).all()  # one document bounds nothing


def test_impossible_text_effects_are_refused():
    model = tiny("llama")
    edit = AblateHeads(heads=((1, 2),))
    with pytest.raises(OptionError, match="no edits"):
        text_effects(model, [], TEXTS)
    with pytest.raises(OptionError, match="text 1 has 1 tokens"):
        text_effects(model, [edit], [[9, 10], [9]])
    with pytest.raises(OptionError, match="draws must be at least 2"):
        text_effects(model, [edit], TEXTS, draws=1)
    with pytest.raises(OptionError, match="test fewer heads"):
        text_effects(model, [AblateHeads(heads=tuple((1, h) for h in range(4)))], TEXTS)
    with pytest.raises(EditError, match="do not exist"):
        text_effects(model, [AblateHeads(heads=((7, 2),))], TEXTS)


# ------------------------------------------------------------------ a head that alone knows the answer
def test_only_the_planted_head_carries_the_answer():
    model, places = planted("retrieval")
    edit = AblateHeads(heads=(places["retrieval"],))
    given = copying()
    said = answer_effects(model, [edit], given, draws=3).frame.set_index("metric")
    assert said.loc["accuracy", "base"] == 1.0
    assert said.loc["accuracy", "edited"] == 0.0
    assert said.loc["accuracy", "control"] == 0.0  # change of accuracy under random heads
    assert said.loc["logit difference", "score"] < -5
    assert abs(said.loc["logit difference", "control"]) < 1
    assert said.loc["KL(base || edited)", "score"] > 1 > said.loc["KL(base || edited)", "control"]
    written = generation_effects(model, [edit], given, steps=5, draws=2).frame.set_index("metric")
    assert written.loc["right answer", "base"] == 1.0
    assert written.loc["right answer", "edited"] == 0.0
    assert written.loc["same as the base", "edited"] == 0.0
    assert written.loc["same as the base", "control"] == 0.0
    assert written.loc["shared with the base", "edited"] < 0.2


def test_generation_agrees_with_forced_answers():
    model, _ = planted("retrieval")
    given = copying()
    given[2] = Prompt(ids=given[2].ids, answer=(*given[2].answer[:2], given[2].answer[0]))
    forced = answer_scores(model, given).correct
    written = generation_effects(model, [Temperature(tau=1.0)], given, steps=3)
    np.testing.assert_array_equal(written.arrays["edited"][2], forced)
    np.testing.assert_array_equal(forced, [True, True, False, True, True, True])
    with pytest.raises(OptionError, match="fewer than the tokens"):
        generation_effects(model, [Temperature(tau=1.0)], given, steps=2)


# ------------------------------------------------------------------ moving edits
def test_relocated_moves_heads_and_their_numbers():
    edit = GateHeads(gate={(2, 5): 0.25, (2, 1): 0.5, (0, 3): 0.75})
    moved = relocated(edit, [(2, 4), (2, 0), (0, 1)])
    assert isinstance(moved, GateHeads)
    assert moved.gate == {(2, 4): 0.25, (2, 0): 0.5, (0, 1): 0.75}
    assert edited_heads([moved]) == [(2, 4), (2, 0), (0, 1)]
    held = Schedule(edit=LogBias(bias=1.0, keys=(0,), heads=((1, 1),)), layers=(0, 2))
    assert edited_heads([relocated(held, [(1, 4)])]) == [(1, 4)]
    means = {1: torch.zeros(6, 10)}
    mean = relocated(AblateHeads(heads=((1, 1),), kind="mean", replacement=means), [(1, 0)])
    assert isinstance(mean, AblateHeads)
    assert mean.replacement is means


@pytest.mark.parametrize(
    ("edit", "heads", "said"),
    [
        (AblateHeads(heads=((1, 1),)), [(2, 1)], "same layers"),
        (AblateHeads(heads=((1, 1),)), [(1, 2), (1, 3)], "same layers"),
        (Temperature(tau=2.0), [(1, 1)], "same layers"),
        (GateHeads(heads=((1, 1),), tokens={1: torch.ones(6, 5)}), [(1, 2)], "tokens was made for these heads"),
    ],
)
def test_what_cannot_move_is_refused(edit: Intervention, heads, said):
    with pytest.raises(OptionError, match=said):
        relocated(edit, heads)


# ------------------------------------------------------------------ intervals
def test_the_interval_resamples_whole_clusters():
    draw = np.random.default_rng(0)
    within = np.repeat(draw.normal(size=40), 25)  # 40 documents, all their 25 tokens alike
    low, high = interval(within, np.repeat(np.arange(40), 25), seed=1)
    expected = 2 * 1.96 * within[::25].std() / 40**0.5  # the standard error of 40 numbers, not of 1,000
    assert high - low == pytest.approx(expected, rel=0.15)
    assert low < within.mean() < high
    assert np.isnan(interval(within[:25], np.zeros(25, dtype=int), seed=1)).all()
