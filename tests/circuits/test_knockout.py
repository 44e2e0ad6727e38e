"""Knock-out sweeps against the KnockOut intervention, one window at a time, and on a planted retrieval."""

from __future__ import annotations

import numpy as np
import pytest

from interp.circuits.knockout import knockout_sweep, span_of
from interp.errors import InputDataError, OptionError
from interp.interventions.answers import answer_scores
from interp.interventions.knockout import KnockOut
from interp.models.toy import tiny
from interp.tasks.prompt import Prompt


def test_windows_are_centred_and_cut_short_at_the_ends():
    assert [list(span_of(n, 3, 5)) for n in range(5)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]
    assert list(span_of(2, 1, 5)) == [2]
    assert list(span_of(2, 4, 5)) == [0, 1, 2, 3]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("batch", [45, 1])
def test_every_window_is_one_edited_run(pairs_of, family, batch):
    model = tiny(family)
    prompts = [*pairs_of(2, 11), *pairs_of(1, 13)]
    result = knockout_sweep(model, prompts, keys="two", queries="late", window=2, batch=batch)
    for n, prompt in enumerate(prompts):
        (before,) = answer_scores(model, [prompt]).probability
        late = prompt.rows["late"][0]
        for layer in range(model.layers):
            edit = KnockOut(rows=(late,), keys=((3, 5),), layers=tuple(range(max(0, layer - 1), layer + 1)))
            with model.edit(edit):
                (after,) = answer_scores(model, [prompt]).probability
            assert result.arrays["samples"][n, layer] == pytest.approx(after / before - 1, abs=1e-5)
    assert np.abs(result.arrays["samples"]).max() > 1e-4
    table = result.frame
    np.testing.assert_allclose(table["score"], result.arrays["samples"].mean(0))
    assert (table["low"] <= table["score"] + 1e-12).all()
    assert (table["head"] == -1).all()


def test_only_the_planted_layer_reads_the_answer(copying):
    model, where, prompts = copying
    table = knockout_sweep(model, prompts, keys="found", window=1, draws=3).frame.set_index("layer")
    layer = where["retrieval"][0]
    assert table.loc[layer, "score"] < -0.9
    assert table["score"].drop(layer).abs().max() < 0.05
    assert table["control"].abs().max() < 0.35  # a random key is what the head looks for now and then


def test_impossible_sweeps_are_refused(pairs_of):
    model, prompts = tiny("llama"), pairs_of(1, 7)
    with pytest.raises(OptionError, match="no position 'x'"):
        knockout_sweep(model, prompts, keys="x")
    with pytest.raises(OptionError, match="window <= 3"):
        knockout_sweep(model, prompts, keys="two", window=4)
    crowded = Prompt(ids=(9, 10, 11, 12), answer=(13,), key_sets={"most": (0, 3)})
    with pytest.raises(InputDataError, match="0 other keys"):
        knockout_sweep(model, [crowded], keys="most", window=1)
