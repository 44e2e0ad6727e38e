"""Associative recall: every query finds its key and its value where the pairs say."""

from __future__ import annotations

import pytest

from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import mqar


@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("template", ["plain", "bos"])
def test_facts_queries_and_pairs(gap, template) -> None:
    shift = int(template == "bos")
    for prompt in mqar.prompts(byte_tokenizer(template), samples=5, facts=7, queries=3, gap=gap):
        whole = prompt.whole
        assert len(whole) == shift + 14 + 3 * (2 + gap)
        assert prompt.key_sets["facts"] == (shift, shift + 14)
        keys, values = whole[shift : shift + 14 : 2], whole[shift + 1 : shift + 14 : 2]
        assert len({*keys, *values}) == 14
        assert prompt.choices["values"] == values
        rows = prompt.rows["queries"]
        assert rows == tuple(shift + 14 + gap + n * (2 + gap) for n in range(3))
        assert len({whole[i] for i in rows}) == 3
        for n, row in enumerate(rows):
            where = keys.index(whole[row])
            assert prompt.pairs["key"][n] == (row, shift + 2 * where)
            assert prompt.pairs["value"][n] == (row, shift + 2 * where + 1)
            assert prompt.next_tokens("queries")[n] == values[where]
        assert prompt.rows["end"] == rows[-1:]
        start, stop = prompt.key_sets["target"]
        assert (stop, prompt.ids[start : start + 1]) == (start + 1, prompt.answer)
        assert prompt.wrong != prompt.answer
        assert prompt.wrong[0] in values
        gaps = {whole[i] for i in range(shift + 14, len(whole))} - {*keys, *values}
        assert len(gaps) == 3 * gap


def test_seed_and_sample() -> None:
    tokenizer = byte_tokenizer()
    assert mqar.prompts(tokenizer, samples=2) == mqar.prompts(tokenizer, samples=5)[:2]
    assert mqar.prompts(tokenizer, samples=2) != mqar.prompts(tokenizer, samples=2, seed=1)


@pytest.mark.parametrize("sizes", [{"facts": 1}, {"queries": 0}, {"facts": 4, "queries": 5}, {"gap": -1}])
def test_sizes_out_of_range(sizes) -> None:
    with pytest.raises(OptionError, match="wanted facts"):
        mqar.prompts(byte_tokenizer(), **sizes)


def test_a_small_vocabulary_is_not_enough_for_many_facts() -> None:
    with pytest.raises(InputDataError, match="256 ordinary tokens, and 400"):
        mqar.prompts(byte_tokenizer(), facts=200)
