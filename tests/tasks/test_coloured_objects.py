"""Coloured things: the answer is the colour that stands before the thing asked for."""

from __future__ import annotations

import re

import pytest
from small_tokenizers import words

from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import coloured_objects as c
from interp.tasks.wordlists import words as entries

TOKENIZER = words(
    ["Q: On the x there is a, and. What color is the?\nA: The color of the is", "a"]
    + [f"x {w}" for name in ("things", "colours", "surfaces") for w in entries(name)]
)


def said(prompt, name):
    start, stop = prompt.key_sets[name]
    assert stop == start + 1
    return TOKENIZER.decode([prompt.ids[start]]).strip()


@pytest.mark.parametrize("form", ["question", "statement"])
@pytest.mark.parametrize("things", [2, 3, 5])
def test_answer_and_sets_follow_from_the_text(form, things) -> None:
    for prompt in c.prompts(TOKENIZER, samples=10, form=form, things=things):
        text = TOKENIZER.decode(prompt.ids).split("\n\n")[-1]
        listed, asked = text.split(".", 1)
        pairs = dict(pair[::-1] for pair in re.findall(r" a (\w+) (\w+)", listed))
        assert len(pairs) == things == len(set(pairs.values()))
        thing = re.search(r"the (\w+)(?:\?\nA:| is)$", asked)[1]
        assert said(prompt, "asked") == said(prompt, "object") == thing
        assert said(prompt, "answer") == TOKENIZER.decode(prompt.answer).strip() == pairs[thing]
        assert (
            said(prompt, "wrong")
            == TOKENIZER.decode(prompt.wrong).strip()
            == pairs[said(prompt, "other")]
            != pairs[thing]
        )
        assert prompt.key_sets["object"][0] == prompt.key_sets["answer"][0] + 1
        assert prompt.key_sets["asked"][0] > prompt.key_sets["object"][0]
        assert {TOKENIZER.decode([i]).strip() for i in prompt.choices["listed"]} == set(pairs.values())
        assert len(prompt.choices["colours"]) == len(entries("colours"))


def test_the_corruption_asks_for_the_other_thing() -> None:
    for prompt in c.prompts(TOKENIZER, samples=10):
        changed = [i for i, (a, b) in enumerate(zip(prompt.ids, prompt.corrupt, strict=True)) if a != b]
        assert changed == [prompt.key_sets["asked"][0]]
        assert prompt.corrupt[changed[0]] == prompt.ids[prompt.key_sets["other"][0]]


def test_examples_are_solved_right() -> None:
    for shots in (0, 1, 3):
        (prompt,) = c.prompts(TOKENIZER, samples=1, shots=shots)
        parts = TOKENIZER.decode(prompt.ids).split("\n\n")
        assert len(parts) == shots + 1
        for part in parts[:-1]:
            thing, colour = re.search(r"is the (\w+)\?\nA: (\w+)$", part).groups()
            assert f" a {colour} {thing}" in part


def test_seed_and_sample() -> None:
    assert c.prompts(TOKENIZER, samples=3) == c.prompts(TOKENIZER, samples=6)[:3]
    assert c.prompts(TOKENIZER, samples=3) != c.prompts(TOKENIZER, samples=3, seed=1)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(InputDataError, match="of the things"):
        c.prompts(byte_tokenizer())
    with pytest.raises(OptionError, match="at least two things"):
        c.prompts(TOKENIZER, things=1)
    with pytest.raises(InputDataError, match="of the colours, and 13"):
        c.prompts(TOKENIZER, things=13)
