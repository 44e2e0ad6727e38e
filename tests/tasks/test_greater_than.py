"""Greater-than for tokenizers that cut digits in every way, the sets worked out by hand."""

from __future__ import annotations

import pytest
from small_tokenizers import WithoutOffsets, words

from interp.errors import InputDataError, OptionError
from interp.tasks import greater_than as g
from interp.tasks.wordlists import words as entries

TEXTS = ["The x lasted from the year to the year", "a", *(f"x {event}" for event in entries("events"))]


def tokenizer(digits, centuries=range(11, 18)):
    years = [f" year {c}{yy:02d} year {c} {yy:02d}" for c in centuries for yy in range(100)]
    return words([*TEXTS, *years], digits=digits)


def numbers(tok, ids):
    return sorted(int(tok.decode([i])) for i in ids)


def test_single_digits_judge_the_tens() -> None:
    tok = tokenizer("one")
    for prompt in g.prompts(tok, samples=40):
        yy, tens = prompt.meta["yy"], prompt.meta["yy"] // 10
        assert 9 <= yy <= 89
        assert numbers(tok, prompt.choices["greater"]) == list(range(tens + 1, 10))
        assert numbers(tok, prompt.choices["not_greater"]) == list(range(tens if yy % 10 < 9 else tens + 1))
        assert numbers(tok, prompt.answer) == [tens + 1]
        assert prompt.meta["digits"] == 1
        start, stop = prompt.key_sets["YY"]
        assert tok.decode(prompt.ids[start:stop]) == f"{yy:02d}"
        assert tok.decode(prompt.ids[slice(*prompt.key_sets["century"])]) == str(prompt.meta["century"])
        text = tok.decode(prompt.ids)
        century = prompt.meta["century"]
        assert text == f"The {prompt.meta['event']} lasted from the year {century}{yy:02d} to the year {century}"
        assert tok.decode(prompt.corrupt) == text.replace(f"{century}{yy:02d}", f"{century}01")


def test_pairs_of_digits_are_the_paper_s_sets() -> None:
    tok = tokenizer("two")
    for prompt in g.prompts(tok, samples=30):
        yy = prompt.meta["yy"]
        assert 2 <= yy <= 98
        assert numbers(tok, prompt.choices["greater"]) == list(range(yy + 1, 100))
        assert numbers(tok, prompt.choices["not_greater"]) == list(range(yy + 1))
        assert (numbers(tok, prompt.answer), numbers(tok, prompt.wrong)) == ([yy + 1], [yy])
        assert prompt.meta["digits"] == 2


@pytest.mark.parametrize("digits", ["three", "all"])
def test_merged_years_are_refused(digits) -> None:
    with pytest.raises(InputDataError, match="merges their digits"):
        g.prompts(tokenizer(digits))


class SomeYearsMerge(WithoutOffsets):
    """1701 and every year of the twenties is one token, as frequent years are to GPT-2; other years are pairs of digits."""

    def __call__(self, text, **options):
        import re

        pieces = re.findall(r"1701|172\d|\d\d| ?[a-z]+|\S| ", text)
        return {"input_ids": [self._ids.setdefault(piece, len(self._ids)) for piece in pieces]}


def test_years_of_one_token_are_left_out() -> None:
    tok = SomeYearsMerge()
    prompts = g.prompts(tok, samples=60, centuries=[17])
    asked = {p.meta["yy"] for p in prompts}
    assert not asked & set(range(20, 30))
    assert len(asked) > 20
    for p in prompts:
        assert tok.decode(p.corrupt[slice(*p.key_sets["YY"])]) == "02"
        assert not {int(tok.decode([i])) for i in p.choices["greater"]} & set(range(20, 30))


def test_seed_and_sample() -> None:
    tok = tokenizer("one")
    assert g.prompts(tok, samples=3) == g.prompts(tok, samples=7)[:3]
    assert g.prompts(tok, samples=3) != g.prompts(tok, samples=3, seed=1)
    assert {p.meta["century"] for p in g.prompts(tok, samples=20, centuries=[12, 14])} == {12, 14}


def test_centuries_have_two_digits() -> None:
    for wrong in ([], [9], [17, 117]):
        with pytest.raises(OptionError, match="10 to 99"):
            g.prompts(tokenizer("one"), centuries=wrong)
