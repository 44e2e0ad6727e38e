"""What the default model's tokenizer makes of every task: enough samples, spans that decode to what they name, held-out text only."""

from __future__ import annotations

import pytest

from interp.models.load import read
from interp.tasks import (
    coloured_objects,
    corpus,
    greater_than,
    ioi,
    mqar,
    needle,
    passkey,
    prompt,
    repeated,
    succession,
)
from interp.tasks.haystack import corpus_texts
from interp.tasks.vocabulary import Tokenizer, single_token
from interp.tasks.wordlists import words

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read("smollm2-135m").tokenizer


def test_enough_words_are_single_tokens(tokenizer) -> None:
    least = {"names": 40, "things": 25, "colours": 10}
    for name, count in least.items():
        kept, dropped = single_token(tokenizer, [f" {word}" for word in words(name)])
        assert len(kept) >= count, (name, dropped)
    pairs = {(c.task, c.case): len(c.pairs) for c in succession.chains(tokenizer)}
    assert pairs["number_words", "space plain"] == 19
    assert pairs["months", "space plain"] == 12
    assert pairs["days", "plain"] == 7
    assert pairs["letters", "space plain"] == 25
    assert pairs["numbers", "plain"] == 8, "digits are tokens, so 9 -> 10 is no pair"
    assert {task for task, _ in pairs} == set(succession.ORDINALS)


def test_short_tasks_give_what_is_asked(tokenizer) -> None:
    assert len(ioi.prompts(tokenizer, samples=50)) == len({p.ids for p in ioi.prompts(tokenizer, samples=50)}) == 50
    for form in ("question", "statement"):
        for p in coloured_objects.prompts(tokenizer, samples=20, form=form):
            assert all(stop - start == 1 for start, stop in p.key_sets.values())
    for p in greater_than.prompts(tokenizer, samples=20):
        assert tokenizer.decode(p.ids[slice(*p.key_sets["YY"])]) == f"{p.meta['yy']:02d}"
        assert p.meta["digits"] == 1
    for p in succession.prompts(tokenizer, samples=3):
        assert tokenizer.decode(p.answer).strip() in succession.ORDINALS[p.meta["list"]].words
    assert len(mqar.prompts(tokenizer, samples=3, facts=64, queries=64)[0].rows["queries"]) == 64
    for form in (repeated.OLSSON, repeated.TRANSFORMER_LENS, repeated.RAZOR):
        (p,) = repeated.prompts(tokenizer, form, samples=1)
        assert not p.meta["whole_vocabulary"]
        assert len(p.ids) == form.length * form.repeats + form.bos
    assert all(1000 <= i <= 9999 for i in repeated.prompts(tokenizer, repeated.TRANSFORMER_LENS, samples=1)[0].ids)


def test_needles_in_the_held_out_text(tokenizer) -> None:
    prompts = needle.prompts(tokenizer, lengths=(512, 1024), depths=(0.0, 0.6), distractors=2)
    assert len(prompts) == 32
    training = {p for text in corpus_texts("train") for p in text.split("\n\n")}
    held_out = corpus_texts("held_out")
    for p in prompts:
        hidden = needle.needles()[p.meta["needle"]]
        assert tokenizer.decode(p.ids[slice(*p.key_sets["needle"])]).strip() == hidden.texts[0]
        assert tokenizer.decode(p.ids[slice(*p.key_sets["answer"])]).strip() == hidden.answer
        assert tokenizer.decode(p.ids[slice(*p.key_sets["question"])]).strip() == hidden.question
        assert tokenizer.decode(p.answer) == f" {hidden.answer}"
        assert p.meta["length"] * 0.75 < len(p.ids) <= p.meta["length"]
        context = tokenizer.decode(p.ids[slice(*p.key_sets["context"])])
        for text in (t for other in needle.needles() for t in other.texts):
            context = context.replace(f" {text}", "").replace(f"{text} ", "")
        for paragraph in context.split("\n\n"):
            assert any(paragraph in text for text in held_out), paragraph
            assert len(" ".join(paragraph.split())) < corpus.REPEATED_FROM or paragraph not in training
    assert set(prompt.spans(prompts)) == {"needle", "answer", "distractor1", "distractor2", "context", "question"}


def test_passkeys_in_the_training_text(tokenizer) -> None:
    (p,) = passkey.prompts(tokenizer, lengths=(2048,))
    assert len(p.whole) <= 2048
    assert len(p.meta["words"]) == 10
    for k, key in enumerate(p.meta["words"], start=1):
        assert tokenizer.decode(p.ids[slice(*p.key_sets[f"passkey{k}"])]).strip() == key
    assert tokenizer.decode(p.answer).strip() == p.meta["words"][-1]
    assert tokenizer.decode([p.whole[p.rows["labels"][0]]]) == "Based"
    context = tokenizer.decode(p.ids[slice(*p.key_sets["context"])])
    hay = [part for part in context.split("\n\n") if not part.startswith("Remeber")]
    assert len(hay) > 10
    assert all(any(part.strip() in text for text in corpus_texts("train")) for part in hay)
