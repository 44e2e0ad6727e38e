"""Needles stand where they should, are found where they stand, and are scored as by hand."""

from __future__ import annotations

import pytest
from small_tokenizers import WithoutOffsets, words

from interp.errors import InputDataError, OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import haystack as h
from interp.tasks import needle as n
from interp.tasks.prompt import generator

BYTES = byte_tokenizer()
ONE = n.Needle(texts=("The code is nine red cats.",), question="What is the code?", answer="nine red cats")
TWO = n.Needle(texts=("Ann has the map.", "The map shows a blue cave."), question="What has Ann?", answer="a blue cave")
SENTENCE = "Sentence number {} of text {} is here to be long."
TEXTS = [" ".join(SENTENCE.format(i, t) for i in range(40)) for t in "abcdef"]


def make(**options):
    given = {"lengths": (1500,), "depths": (0.5,), "hidden": [ONE], "texts": TEXTS}
    return n.prompts(BYTES, **(given | options))


def part(prompt, name):
    return BYTES.decode(prompt.ids[slice(*prompt.key_sets[name])])


def test_grid_in_order_and_length_kept() -> None:
    prompts = make(lengths=(900, 1500), depths=(0.0, 0.4, 1.0), hidden=[ONE, TWO])
    assert [(p.meta["needle"], p.meta["length"], p.meta["depth"]) for p in prompts] == [
        (k, length, depth) for k in (0, 1) for length in (900, 1500) for depth in (0.0, 0.4, 1.0)
    ]
    for p in prompts:
        # shorter than asked by less than a sentence and what is kept free
        assert p.meta["length"] - len("Sentence number 39 of text a is here to be long. ") - n.SLACK < len(p.ids)
        assert len(p.ids) <= p.meta["length"]


def test_spans_decode_to_what_was_hidden_and_asked() -> None:
    for p in make(depths=(0.0, 0.3, 1.0)):
        assert part(p, "needle") == ONE.texts[0]
        assert part(p, "answer") == ONE.answer
        assert part(p, "question") == ONE.question
        text = BYTES.decode(p.ids)
        assert text == f"{part(p, 'context')}\nBased on the content of the book, Question: What is the code?\nAnswer:"
        assert BYTES.decode(p.answer) == " nine red cats"
        assert p.rows["answer"] == tuple(range(len(p.ids) - 1, len(p.ids) - 1 + len(p.answer)))


def test_the_needle_stands_behind_the_last_whole_sentence_before_its_depth() -> None:
    for depth in (0.0, 0.25, 0.5, 0.77, 1.0):
        (p,) = make(depths=(depth,))
        before, after = part(p, "context").split(ONE.texts[0])
        assert before == "" or before.endswith("long. "), before[-30:]
        assert after == "" or after.startswith(" Sentence number"), after[:30]
        hay = len(before.removesuffix(" ")) + len(after)
        at = len(before.removesuffix(" "))
        assert at <= depth * hay < at + len(SENTENCE) + 2 or (depth == 1.0 and not after)


def test_words_of_the_needle_elsewhere_do_not_mislead() -> None:
    text = "The code is nine red dogs. Nine red cats is the code. " * 30
    (p,) = make(texts=[text], depths=(0.9,))
    assert part(p, "needle") == ONE.texts[0]
    assert BYTES.decode(p.ids[: p.key_sets["needle"][0]]).count("nine red dogs") > 5
    assert BYTES.decode(p.ids).count(ONE.texts[0]) == 1


def test_parts_of_a_needle_are_spread_evenly_going_round() -> None:
    (p,) = make(hidden=[TWO], depths=(0.6,))
    assert part(p, "needle") == TWO.texts[0]
    assert part(p, "needle2") == TWO.texts[1]
    assert part(p, "answer") == TWO.answer
    first, second = p.key_sets["needle"][0], p.key_sets["needle2"][0]
    assert second < first, "0.6 and 0.1"
    assert p.key_sets["needle2"][0] < p.key_sets["answer"][0] < p.key_sets["needle2"][1]


def test_distractors_are_other_needles_elsewhere() -> None:
    (p, _) = make(hidden=[ONE, TWO], distractors=1)
    assert part(p, "distractor1") == " ".join(TWO.texts)
    assert part(p, "needle") == ONE.texts[0]
    assert "distractor2" not in p.key_sets


def test_another_question_leaves_the_context_as_it_is() -> None:
    for real, null in zip(make(depths=(0.1, 0.8)), make(depths=(0.1, 0.8), ask="N/A"), strict=True):
        assert part(real, "context") == part(null, "context")
        assert part(null, "question") == "N/A"
        assert real.key_sets["needle"] == null.key_sets["needle"]


def test_an_answer_that_is_no_copy_has_no_span() -> None:
    (p,) = make(hidden=[n.Needle(texts=ONE.texts, question="How many?", answer="9")])
    assert "answer" not in p.key_sets


def test_one_seed_one_prompt_and_samples_differ() -> None:
    assert make(depths=(0.2, 0.5)) == make(depths=(0.2, 0.5))
    assert make() != make(seed=1)
    assert make(depths=(0.5, 0.9))[0] == make(depths=(0.5,))[0]
    a, b = make(depths=(0.5, 0.5))
    assert a.ids != b.ids


def test_tokenizers_without_offsets_and_with_bos() -> None:
    slow = WithoutOffsets()
    (p,) = n.prompts(slow, lengths=(200,), depths=(0.5,), hidden=[ONE], texts=TEXTS)
    assert slow.decode(p.ids[slice(*p.key_sets["needle"])]) == " " + ONE.texts[0]
    assert slow.decode(p.ids[slice(*p.key_sets["answer"])]) == " " + ONE.answer
    fast = words([*TEXTS, ONE.texts[0], ONE.question, *n.QUESTION, "a"])
    plain, started = (n.prompts(fast, lengths=(200,), hidden=[ONE], texts=TEXTS, bos=b)[0] for b in (False, True))
    assert plain.key_sets["needle"][1] - plain.key_sets["needle"][0] == 7
    assert started.ids[0] == fast.bos_token_id
    assert len(started.ids) <= 200


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"depths": (1.2,)}, OptionError, "between 0 and 1"),
        ({"lengths": (100,)}, OptionError, "leaves .* tokens for the haystack; give"),
        ({"distractors": 1}, OptionError, "fewer than the 1 needles"),
        ({"texts": ["Short. Text."]}, InputDataError, "give more text"),
        ({"texts": ["no end " * 500]}, InputDataError, "no sentence ends"),
    ],
)
def test_what_cannot_be_done_is_said(options, error, said) -> None:
    with pytest.raises(error, match=said):
        make(**options)


def test_the_length_that_an_error_names_is_enough() -> None:
    with pytest.raises(OptionError) as caught:
        make(lengths=(100,))
    least = int(str(caught.value).split("give ")[1].split()[0])
    assert len(make(lengths=(least + 60,))[0].ids) <= least + 60


@pytest.mark.parametrize("empty", [{"texts": ()}, {"texts": ("",)}, {"question": " "}, {"answer": ""}])
def test_needles_are_not_empty(empty) -> None:
    with pytest.raises(InputDataError):
        n.Needle(**({"texts": ("a",), "question": "b", "answer": "c"} | empty))


def test_our_needles_hold_their_answers_once() -> None:
    needles = n.needles()
    assert len(needles) >= 6
    assert len({needle.question for needle in needles}) == len(needles)
    for needle in needles:
        assert sum(text.count(needle.answer) for text in needle.texts) == 1
        assert needle.answer not in needle.question


def test_rouge_by_hand() -> None:
    assert n.rouge1_recall("nine red cats", "Nine, RED dogs") == pytest.approx(2 / 3)
    assert n.rouge1_recall("red red cats", "red") == pytest.approx(1 / 3)
    assert n.rouge1_recall("red", "red red red") == 1.0
    assert n.rouge1_recall("...", "red") == 0.0
    (p,) = make()
    assert n.accepted(p, "\n\nThe code is nine red")
    assert not n.accepted(p, "nine")
    four = make(hidden=[n.Needle(texts=("It is a b c d.",), question="What?", answer="a b c d")])[0]
    assert not n.accepted(four, "a b"), "half is not more than half"


def test_sentence_ends_by_hand() -> None:
    text = 'He said "Stop!" Then e.g. this? No (end.) A title\n\nNext 3.5 line.'
    ends = h.sentence_ends(text)
    assert [text[:e][-4:] for e in ends] == ['op!"', "his?", "nd.)", "itle", "ine."]
    assert h.sentence_ends("no end") == [6]
    assert [h.nearest_end([4, 9], p) for p in (0.0, 3.9, 4.0, 8.5, 9.0, 50.0)] == [0, 0, 4, 4, 9, 9]


def test_a_haystack_is_as_long_as_it_may_be_and_ends_with_a_sentence() -> None:
    for tokens in (49, 50, 51, 500, 3000):
        text = h.haystack(BYTES, TEXTS, tokens, generator(0, 0))
        assert text.endswith("long.")
        assert tokens - 55 < len(text) <= tokens
        for paragraph in text.split("\n\n"):
            assert any(source.startswith(paragraph) for source in TEXTS)
    paragraphs = h.haystack(BYTES, TEXTS, 9000, generator(0, 0)).split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs), "no document twice"
