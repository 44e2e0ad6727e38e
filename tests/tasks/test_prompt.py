"""`Prompt` checks its positions, adds the rows of its answer, and fits a run."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import OptionError
from interp.tasks import prompt as module
from interp.tasks.prompt import Prompt


def example(**changes):
    given = {
        "ids": (7, 8, 9, 10, 11),
        "answer": (12, 13, 14),
        "key_sets": {"needle": (1, 3)},
        "rows": {"some": (0, 2, 6)},
        "pairs": {"copy": ((2, 1), (6, 6))},
    }
    return Prompt(**(given | changes))


def test_rows_of_the_end_and_of_the_answer_are_added() -> None:
    prompt = example()
    assert prompt.whole == (7, 8, 9, 10, 11, 12, 13, 14)
    assert dict(prompt.rows) == {"some": (0, 2, 6), "end": (4,), "answer": (4, 5, 6)}
    assert prompt.next_tokens("answer") == prompt.answer
    assert prompt.next_tokens("some") == (8, 10, 14)
    assert example(answer=(), rows={}, pairs={}).rows["answer"] == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": ()},
        {"corrupt": (1, 2, 3, 4)},
        {"key_sets": {"x": (2, 2)}},
        {"key_sets": {"x": (-1, 2)}},
        {"key_sets": {"x": (4, 6)}},
        {"rows": {"x": (2, 1)}},
        {"rows": {"x": (1, 1)}},
        {"rows": {"x": (8,)}},
        {"pairs": {"x": ((1, 2),)}},
        {"pairs": {"x": ((8, 0),)}},
    ],
)
def test_positions_outside_the_sequence_are_refused(changes) -> None:
    with pytest.raises(OptionError, match=r"wanted|needs|must"):
        example(**changes)


def test_a_prompt_cannot_be_changed() -> None:
    prompt = example(meta={"a": 1})
    with pytest.raises(TypeError):
        prompt.meta["a"] = 2
    with pytest.raises(AttributeError):
        prompt.ids = (1,)


def test_samples_do_not_depend_on_their_number_and_differ() -> None:
    draws = [module.generator(3, i).integers(10**9) for i in range(5)]
    assert draws == [module.generator(3, i).integers(10**9) for i in range(5)]
    assert len({*draws, module.generator(4, 0).integers(10**9)}) == 6


def test_spans_are_those_that_every_prompt_has() -> None:
    one, two = example(), example(ids=(1, 2, 3), key_sets={"needle": (0, 1), "other": (1, 2)}, rows={}, pairs={})
    assert module.spans([one, two]) == {"needle": [(1, 3), (0, 1)]}
    assert module.spans([]) == {}


def test_key_sets_are_measured_by_a_run() -> None:
    model = interp.tiny("llama")
    prompts = [example(), example(ids=(20, 21, 22), key_sets={"needle": (0, 2)}, rows={}, pairs={})]
    run = model.run([p.ids for p in prompts], spans=module.spans(prompts), collect=[])
    for b, (start, stop) in enumerate(((1, 3), (0, 2))):
        one = run[b]
        masses = one.stats["span:needle"]
        for layer in range(2):
            exact = one.attention[layer, 1].dense()[:, start:stop].sum(-1)
            torch.testing.assert_close(masses[layer, 1, : len(exact)], exact, atol=1e-5, rtol=0)
