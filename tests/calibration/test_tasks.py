"""Calibration tasks: one right option each, sides without a common item, prompts that say what they should."""

from __future__ import annotations

import re

import pytest
from calibration_prompts import random_prompts

from interp.calibration.tasks import CalibrationTask, needle_task, succession_task, topics_task
from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks.ordinals import ORDINALS
from interp.tasks.prompt import Prompt


@pytest.fixture(scope="module")
def smol():
    """SmolLM2's tokenizer, read without the weights' use."""
    from interp.models.load import read

    return read("smollm2-135m").tokenizer


def check_options(task):
    for prompt in (*task.search, *task.held_out):
        options = prompt.choices["options"]
        assert len(prompt.answer) == 1
        assert prompt.answer[0] in options
        assert len(set(options)) == len(options)


def asked_of(task, side):
    return {
        (p.meta["list"].replace("day_prefixes", "days").replace("month_prefixes", "months"), p.meta["start"] + p.meta["shown"])
        for p in getattr(task, side)
    }  # fmt: skip


def test_succession_asks_for_no_word_on_both_sides():
    task = succession_task(byte_tokenizer(), seed=2)
    check_options(task)
    assert {p.meta["list"] for p in task.search} == {"letters"}, "the only list whose words begin with different bytes"
    assert not asked_of(task, "search") & asked_of(task, "held_out")
    letters = ORDINALS["letters"].words
    decode = byte_tokenizer().decode
    for prompt in task.search:
        words = decode(prompt.ids).strip().rstrip(",").split(", ")
        assert words == list(letters[prompt.meta["start"] :][: prompt.meta["shown"]])
        assert decode(prompt.answer) == letters[prompt.meta["start"] + prompt.meta["shown"]]
    assert task.chance == pytest.approx(1 / 26)
    again, other = succession_task(byte_tokenizer(), seed=2), succession_task(byte_tokenizer(), seed=3)
    assert again.search == task.search
    assert asked_of(other, "held_out") != asked_of(task, "held_out")


@pytest.mark.medium
def test_succession_under_a_word_tokenizer(smol):
    task = succession_task(smol)
    check_options(task)
    lists = {p.meta["list"] for p in task.search}
    assert {"days", "months", "letters"} <= lists
    assert "numbers" not in lists, "their digits are tokens, so the first one does not tell which number it is"
    both = [
        {(word % len(ORDINALS[name].words), name) for name, word in asked_of(task, s)} for s in ("search", "held_out")
    ]
    assert not both[0] & both[1]


@pytest.mark.medium
def test_needles_share_no_name_and_no_word(smol):
    task = needle_task(smol, prompts=8, length=256)
    check_options(task)
    assert task.chance == pytest.approx(1 / 8)
    found = []
    for side in (task.search, task.held_out):
        names, words = set(), set()
        for prompt in side:
            text = smol.decode(prompt.ids)
            name = re.search(r"Question: What is the secret word of (\w+)\?", text).group(1)
            hidden = dict(re.findall(r"The secret word of (\w+) is (\w+)\.", text))
            assert len(hidden) == 4
            assert hidden[name] == smol.decode(prompt.answer).strip()
            assert text.endswith(f"Answer: The secret word of {name} is")
            assert len(prompt.ids) <= 256 + 8
            names |= set(hidden)
            words |= {smol.decode([o]).strip() for o in prompt.choices["options"]}
        found.append((names, words))
    assert not found[0][0] & found[1][0]
    assert not found[0][1] & found[1][1]
    assert task.group is not None
    with pytest.raises(OptionError, match="from 8 to"):
        needle_task(smol, prompts=7)


@pytest.mark.medium
def test_topics_share_no_paragraph(smol):
    task = topics_task(smol, prompts=16)
    check_options(task)
    asked = []
    for side in (task.search, task.held_out):
        texts = [smol.decode(p.ids).rsplit("Text: ", 1) for p in side]
        assert len({shots for shots, _ in texts}) == 1, "the same examples in front of every prompt"
        asked.append({text for _, text in texts})
        assert all(text not in shots for shots, text in texts)
    assert not asked[0] & asked[1]
    assert task.group[0] == 0
    assert all(p.ids[: task.group[1]] == task.search[0].ids[: task.group[1]] for p in task.held_out)
    assert {smol.decode(p.answer).strip() for p in task.search} == {p.meta["topic"] for p in task.search}


def test_tokenizers_without_the_words_are_refused():
    with pytest.raises(InputDataError, match="single token"):
        topics_task(byte_tokenizer())
    with pytest.raises(InputDataError, match="single token"):
        needle_task(byte_tokenizer())


def test_tasks_that_cannot_be_judged():
    good, other = random_prompts(2, 11), random_prompts(2, 13)
    with pytest.raises(OptionError, match="both sides"):
        CalibrationTask(name="t", search=tuple(good), held_out=(good[0], other[0]), settings={})
    with pytest.raises(OptionError, match="at least 2"):
        CalibrationTask(name="t", search=(good[0],), held_out=tuple(other), settings={})
    wrong = Prompt(ids=good[0].ids, answer=(1,), choices=good[0].choices)
    with pytest.raises(OptionError, match="wants choices"):
        CalibrationTask(name="t", search=tuple(other), held_out=(wrong, good[1]), settings={})
