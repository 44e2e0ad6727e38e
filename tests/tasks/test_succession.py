"""Ordered lists: their words, the pairs that follow each other as tokens, and lists to continue."""

from __future__ import annotations

from itertools import pairwise

import pytest
from small_tokenizers import metaspace, words

from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import succession as s
from interp.tasks.ordinals import ORDINALS, roman

ROMAN = (
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII", "XVIII",
    "XIX", "XX",
)  # fmt: skip


def test_lists() -> None:
    assert {name: len(task.words) for name, task in ORDINALS.items()} == {
        "numbers": 200, "number_words": 20, "ordinal_words": 10, "days": 7, "day_prefixes": 7, "months": 12,
        "month_prefixes": 12, "letters": 26, "roman_numerals": 20,
    }  # fmt: skip
    assert {name for name, task in ORDINALS.items() if task.cyclic} == {
        "days",
        "day_prefixes",
        "months",
        "month_prefixes",
    }
    assert ORDINALS["roman_numerals"].words == ROMAN
    assert [roman(n) for n in (24, 39)] == ["XXIV", "XXXIX"]
    assert ORDINALS["day_prefixes"].words == ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    assert all(len(set(task.words)) == len(task.words) for task in ORDINALS.values())


def chain(tokenizer, task, case):
    return next(c for c in s.chains(tokenizer, tasks=[task]) if c.case == case)


def test_a_dropped_word_breaks_the_chain() -> None:
    # "four" is missing, so it is the unknown token, and three -> five is no pair
    tokenizer = words(["one", "two", "three", "five", "six"])
    found = chain(tokenizer, "number_words", "plain")
    names = [tuple(tokenizer.decode([i]) for i in pair) for pair in found.pairs]
    assert names == [("one", "two"), ("two", "three"), ("five", "six")]
    assert list(found.tokens) == ["one", "two", "three", "five", "six"]
    assert found.dropped[:2] == ("four", "seven")
    assert len(found.dropped) == 15


def test_days_go_round_and_letters_do_not() -> None:
    tokenizer = words([*ORDINALS["days"].words, *ORDINALS["letters"].words])
    days = chain(tokenizer, "days", "plain")
    assert [tokenizer.decode([i]) for i in days.pairs[-1]] == ["Sunday", "Monday"]
    assert len(days.pairs) == 7
    letters = chain(tokenizer, "letters", "plain")
    assert [tokenizer.decode([i]) for i in letters.pairs[-1]] == ["Y", "Z"]
    assert len(letters.pairs) == 25


def test_cases() -> None:
    tokenizer = words([f"a {w}, {w.lower()}" for w in ("Monday", "Tuesday")] + ["XVIII", "XVII"])
    written = {c.case: list(c.tokens) for c in s.chains(tokenizer, tasks=["days", "roman_numerals"])}
    assert written == {
        "space plain": [" Monday", " Tuesday"],
        "space lower": [" monday", " tuesday"],
        "plain": ["XVII", "XVIII"],
    }


def test_ways_of_writing_with_the_same_tokens_stand_once() -> None:
    found = s.chains(metaspace(["a Monday Tuesday"]), tasks=["days"])
    assert [c.case for c in found] == ["plain"]


def test_lists_to_continue() -> None:
    everything = [word for task in ORDINALS.values() for word in task.words]
    tokenizer = words(["a, " + ", ".join(everything), *everything])
    for prompt in s.prompts(tokenizer, samples=6):
        order = ORDINALS[prompt.meta["list"]].words
        shown = tokenizer.decode(prompt.ids).strip().removesuffix(",").split(", ")
        assert len(shown) == 4
        first = order.index(shown[0])
        wanted = [order[(first + k) % len(order)] for k in range(5)]
        assert shown == wanted[:4]
        assert tokenizer.decode(prompt.answer).strip() == wanted[4]
        assert tokenizer.decode(prompt.wrong).strip() == wanted[3]
        assert prompt.answer[0] in prompt.choices["task"]
        for k in range(4):
            assert tokenizer.decode(prompt.ids[slice(*prompt.key_sets[f"element{k + 1}"])]).strip() == wanted[k]
        assert [
            (prompt.key_sets[f"element{k + 1}"][1] - 1, prompt.key_sets[f"element{k}"][1] - 1) for k in (1, 2, 3)
        ] == list(prompt.pairs["previous element"])


def test_the_corruption_is_unordered_and_of_the_same_words() -> None:
    tokenizer = words(["a, " + ", ".join(ORDINALS["letters"].words), *ORDINALS["letters"].words])
    for prompt in s.prompts(tokenizer, tasks=["letters"], samples=20):
        shown, mixed = (tokenizer.decode(ids).removesuffix(",").split(", ") for ids in (prompt.ids, prompt.corrupt))
        assert set(mixed) < {*shown, tokenizer.decode(prompt.answer).strip()}
        assert all(abs(ord(a) - ord(b)) != 1 for a, b in pairwise(mixed))


def test_a_space_of_its_own_is_given_with_the_prompt() -> None:
    (prompt,) = s.prompts(byte_tokenizer(), tasks=["days"], samples=1)
    decode = byte_tokenizer().decode
    assert decode(prompt.ids).endswith(", ")
    assert decode(prompt.answer) in ORDINALS["days"].words
    assert {decode([i]) for i in prompt.choices["task"]} == set("MTWFS")


def test_seed_and_tasks() -> None:
    tokenizer = byte_tokenizer()
    assert s.prompts(tokenizer, samples=2) == s.prompts(tokenizer, samples=2)
    assert s.prompts(tokenizer, samples=2) != s.prompts(tokenizer, samples=2, seed=1)
    assert [p.meta["list"] for p in s.prompts(tokenizer, tasks=["days", "letters"], samples=2)] == ["days"] * 2 + [
        "letters"
    ] * 2


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(OptionError, match=r"numbers.*; got weeks"):
        s.chains(byte_tokenizer(), tasks=["weeks"])
    with pytest.raises(OptionError, match=r"plain.*; got italic"):
        s.chains(byte_tokenizer(), cases=["italic"])
    with pytest.raises(InputDataError, match="no two words in a row"):
        s.chains(byte_tokenizer(), tasks=["days"])
    with pytest.raises(OptionError, match="at least 3"):
        s.prompts(byte_tokenizer(), shown=2)
    with pytest.raises(OptionError, match="days has 7 words"):
        s.prompts(byte_tokenizer(), tasks=["days"], shown=7)
