"""The search: the planted head is found, alone; the family-wise p by enumeration; rules by hand; interrupted searches go on."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from calibration_prompts import copy_task, option_logprob, random_prompts, weaken

from interp.calibration import Selection, act, search, temperature, zerotune
from interp.calibration.search import family_p, keep, selected
from interp.errors import OptionError
from interp.interventions import LogBias
from interp.models.planted import planted


def only_gain(result, head):
    """The head's exact gain, and the largest of any other verified head."""
    rows = result.table[result.table["verified"]]
    mine = (rows["layer"] == head[0]) & (rows["head"] == head[1])
    return float(rows[mine]["score"].iloc[0]), float(rows[~mine]["score"].max())


def test_the_planted_head_is_found_by_its_temperature(broken):
    model, head = broken
    task = copy_task()
    found = search(model, task.search, temperature((0.5, 2.0, 1 / 0.01)), heads=6, selection=Selection(margin=0.05))
    assert selected(found) == {head: pytest.approx(1 / 0.01)}
    gain, others = only_gain(found, head)
    assert gain > 1.0, "from near log(1/5) to near 0"
    assert abs(others) < 0.05
    assert found.table["verified"].sum() == 6
    row = found.table[(found.table["layer"] == head[0]) & (found.table["head"] == head[1])].iloc[0]
    assert row["predicted"] == found.table["predicted"].max()
    assert row["p_family"] < 0.01
    assert row["control"] < gain
    expected = [option_logprob(model, p)[0] for p in task.search]
    np.testing.assert_allclose(found.arrays["base_logprob"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "method", [zerotune((0.5, np.exp(-9.0)), key=2), act((0.4, 0.0), detection="code", spared="none")]
)
def test_a_head_that_a_sink_has_captured_is_found(method):
    model, places = planted("retrieval", seed=7)
    head = places["retrieval"]
    weaken(model, head, 0.1)  # a match is worth 6.4 nats then, and the third word 9 in every row
    with model.edit(LogBias(bias={head: 9.0}, keys=(2,))):
        found = search(model, copy_task().search, method, heads=3, selection=Selection(margin=0.1))
        assert list(selected(found)) == [head]
        gain, others = only_gain(found, head)
    assert gain > 2.0
    assert others < 0.05


def test_all_heads_can_be_verified_and_layers_left_out(models):
    model = models["llama"]
    prompts = random_prompts(4, 11) + random_prompts(3, 13, seed=1)
    found = search(model, prompts, temperature((2.0,)), heads=None, layers=[1])
    assert found.table["layer"].unique().tolist() == [1]
    assert found.table["verified"].all()
    for row in found.table.to_dict("records"):
        edits = temperature((2.0,)).edits({(1, row["head"]): 2.0})
        gains = [option_logprob(model, p, edits)[0] - option_logprob(model, p)[0] for p in prompts]
        assert row["score"] == pytest.approx(np.mean(gains), abs=1e-5)
        assert row["spread"] == pytest.approx(np.std(gains, ddof=1), abs=1e-5)


def test_family_p_by_enumeration():
    gains = np.random.default_rng(3).normal(0.3, 1.0, size=(3, 7))
    largest = [max((np.array(signs) * g).mean() for g in gains) for signs in product([-1, 1], repeat=7)]
    p, control = family_p(gains, flips=40_000)
    expected = [np.mean(np.array(largest) >= g.mean() - 1e-12) for g in gains]
    np.testing.assert_allclose(p, expected, atol=0.012)
    assert control == pytest.approx(np.mean(largest), abs=0.01)


def test_a_candidate_without_effect_is_never_significant():
    p, _ = family_p(np.zeros((2, 5)))
    assert p.tolist() == [1.0, 1.0]


def test_rules_by_hand():
    best = {(0, 0): 0, (0, 1): 1, (0, 2): 2, (1, 3): 3, (1, 0): 4}
    gains, p = np.array([0.5, 0.4, 0.3, 0.1, -0.2]), np.array([0.01, 0.2, 0.03, 0.04, 1.0])
    assert keep(best, gains, p, Selection(), 4) == [(0, 0), (0, 1), (1, 3)]  # half of layer 0, no loss
    assert keep(best, gains, p, Selection(margin=0.1), 6) == [(0, 0), (0, 1), (0, 2)]
    assert keep(best, gains, p, Selection(p=0.05), 6) == [(0, 0), (0, 2), (1, 3)]
    assert keep(best, gains, p, Selection(margin=-np.inf, most=4), 8) == [(0, 0), (0, 1), (0, 2), (1, 3)]


@pytest.mark.parametrize("wrong", [{"most": 0}, {"p": 0.0}])
def test_wrong_rules(wrong):
    with pytest.raises(OptionError):
        Selection(**wrong)


def test_an_interrupted_search_goes_on(models, tmp_path):
    model, method = models["gpt2"], temperature((2.0,))
    prompts = random_prompts(3, 11) + random_prompts(2, 13, seed=1)
    ran = []
    handle = model.hf.base_model.register_forward_hook(lambda *_: ran.append(1))

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(model, prompts, method, heads=3, folder=tmp_path, progress=stop)
    ran.clear()
    seen = []
    again = search(model, prompts, method, heads=3, folder=tmp_path, progress=lambda *x: seen.append(x))
    resumed = len(ran)
    ran.clear()
    whole = search(model, prompts, method, heads=3)
    assert resumed < len(ran)
    assert again.table.equals(whole.table)
    assert seen[-1][0] == seen[-1][1]
    ran.clear()
    search(model, prompts, method, heads=3, folder=tmp_path)
    assert len(ran) == 2, "the proof of the readout alone: its own logits and ours"
    handle.remove()


def test_what_cannot_be_searched(models):
    model, good = models["llama"], random_prompts(2, 11)
    with pytest.raises(OptionError, match="two prompts"):
        search(model, good[:1], temperature())
    with pytest.raises(OptionError, match="layers"):
        search(model, good, temperature(), layers=[99])
    with pytest.raises(OptionError, match="heads"):
        search(model, good, temperature(), heads=0)
    with pytest.raises(OptionError, match="at least one finite"):
        temperature(())
