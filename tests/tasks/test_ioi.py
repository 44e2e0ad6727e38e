"""Indirect objects: who stands where, worked out from the template, and the smallest corruption that indicates nobody."""

from __future__ import annotations

import inspect
import re

import pytest
from small_tokenizers import metaspace, words

from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import ioi
from interp.tasks.wordlists import words as entries

TEXTS = [*entries("ioi_templates"), *(f"x {w}" for name in ("names", "places", "gifts") for w in entries(name)), "a"]
TOKENIZER = words(TEXTS)


def said(prompt, name):
    start, stop = prompt.key_sets[name]
    assert stop == start + 1
    return TOKENIZER.decode([prompt.ids[start]])


def test_names_stand_where_the_sets_say() -> None:
    for prompt in ioi.prompts(TOKENIZER, samples=30):
        indirect, subject = said(prompt, "IO"), said(prompt, "S1")
        assert said(prompt, "S2") == subject != indirect
        text = TOKENIZER.decode(prompt.ids)
        assert len(re.findall(rf"{indirect}\b", text)) == 1
        assert len(re.findall(rf"{subject}\b", text)) == 2
        at = {name: start for name, (start, _) in prompt.key_sets.items()}
        assert (at["IO"] < at["S1"]) == (prompt.meta["order"] == "ABBA")
        assert max(at["IO"], at["S1"]) < at["S2"] < at["END"] == len(prompt.ids) - 1
        assert at["S1+1"] == at["S1"] + 1
        assert TOKENIZER.decode(prompt.answer) == indirect
        assert TOKENIZER.decode(prompt.wrong) == subject
        assert dict(prompt.pairs) == {
            "name mover": ((at["END"], at["IO"]),),
            "s-inhibition": ((at["END"], at["S2"]),),
            "duplicate": ((at["S2"], at["S1"]),),
            "induction": ((at["S2"], at["S1+1"]),),
        }


def test_one_prompt_by_hand() -> None:
    names = ["Ann", "Bo", "Cy", "Di", "Ed"]
    tokenizer = words(
        [*entries("ioi_templates"), *(f"x {n}" for n in [*names, *entries("places"), *entries("gifts")]), "a"]
    )
    for prompt in ioi.prompts(tokenizer, samples=40, order="ABBA", names=names):
        if prompt.meta["template"].startswith("When {A} and {B} arrived"):
            break
    else:
        pytest.fail("forty draws of twelve templates missed one")
    assert re.fullmatch(r"When (\w+) and (\w+) arrived at the \w+, \2 gave a \w+ to", tokenizer.decode(prompt.ids))
    # When| Ann| and| Bo| arrived| at| the| place|,| Bo| gave| a| gift| to
    assert dict(prompt.key_sets) == {"IO": (1, 2), "S1": (3, 4), "S1+1": (4, 5), "S2": (9, 10), "END": (13, 14)}
    assert dict(prompt.rows) == {"S1+1": (4,), "S2": (9,), "end": (13,), "answer": (13,)}


def test_the_corruption_has_three_other_names_and_nothing_else_new() -> None:
    for prompt in ioi.prompts(TOKENIZER, samples=20):
        changed = {i for i, (a, b) in enumerate(zip(prompt.ids, prompt.corrupt, strict=True)) if a != b}
        assert changed == {prompt.key_sets[name][0] for name in ("IO", "S1", "S2")}
        new = [prompt.corrupt[i] for i in sorted(changed)]
        assert len({*new, prompt.answer[0], prompt.wrong[0]}) == 5


def test_orders() -> None:
    assert [p.meta["order"] for p in ioi.prompts(TOKENIZER, samples=5)] == ["ABBA", "BABA", "ABBA", "BABA", "ABBA"]
    assert {p.meta["order"] for p in ioi.prompts(TOKENIZER, samples=5, order="BABA")} == {"BABA"}


def test_seed_and_sample() -> None:
    assert ioi.prompts(TOKENIZER, samples=4) == ioi.prompts(TOKENIZER, samples=9)[:4]
    assert ioi.prompts(TOKENIZER, samples=4) != ioi.prompts(TOKENIZER, samples=4, seed=1)


def test_words_between_spaces_do_as_well() -> None:
    # signs stick to words there, so the names must not stand before one: they never do
    pieces = [w for text in TEXTS for w in text.replace("{PLACE}", "x").split(" ")]
    joined = [f"{place}{sign}" for place in entries("places") for sign in (",", ".", "")]
    (prompt,) = ioi.prompts(metaspace([" ".join([*pieces, *joined])]), samples=1)
    assert prompt.ids[prompt.key_sets["S1"][0]] == prompt.wrong[0]


def test_names_of_several_tokens_are_refused() -> None:
    with pytest.raises(InputDataError, match="0 of the names, and 5 are needed"):
        ioi.prompts(byte_tokenizer())
    with pytest.raises(InputDataError, match="4 of the names"):
        ioi.prompts(TOKENIZER, names=["Mary", "John", "Paul", "Ruth", "Zebedee"])
    with pytest.raises(OptionError, match="ABBA, BABA, both"):
        inspect.unwrap(ioi.prompts)(TOKENIZER, order="ABAB")  # without the type check of the tests, as users have it
