"""Documents with one gold among them: every span says what it should, and the null query changes nothing before it."""

from __future__ import annotations

import pytest

from interp.errors import OptionError
from interp.models.toy import byte_tokenizer
from interp.tasks import documents as d
from interp.tasks.needle import Needle

BYTES = byte_tokenizer()
HIDDEN = [
    Needle(texts=("The code is nine cats.",), question="What is the code?", answer="nine cats"),
    Needle(texts=("Ann has a map.",), question="What has Ann?", answer="a map"),
]
TEXTS = [" ".join(f"Line {i} of {t} is so." for i in range(40)) for t in "abcdef"]


def make(**options):
    return d.prompts(BYTES, **({"documents": 3, "size": 61, "samples": 7, "hidden": HIDDEN, "texts": TEXTS} | options))


def part(prompt, name):
    return BYTES.decode(prompt.ids[slice(*prompt.key_sets[name])])


def test_spans_say_what_they_should() -> None:
    for sample, p in enumerate(make()):
        needle = HIDDEN[sample % 2]
        assert part(p, "needle") == needle.texts[0]
        assert part(p, "answer") == needle.answer
        assert part(p, "question") == needle.question
        assert needle.texts[0] in part(p, p.meta["gold"])
        names = ["document1", "document2", "document3"]
        assert sum(needle.texts[0] in part(p, name) for name in names) == 1
        joined = "\n\n".join(part(p, name) for name in names)
        assert BYTES.decode(p.ids) == f"{d.OPENING}\n\n{joined}\n\n{part(p, 'tail')}"
        assert part(p, "tail") == f"{d.REQUEST}\n\nQuery: {needle.question}\nAnswer:"
        for number, name in enumerate(names, 1):
            said = part(p, name)
            assert said.startswith(f"[{number}] ")
            assert len(said) <= len("[1] ") + 61 + (len(needle.texts[0]) + 2 if name == p.meta["gold"] else 0)
        assert p.rows["question"] == tuple(range(*p.key_sets["question"]))
        assert p.rows["tail"][-1] == len(p.ids) - 1
        assert BYTES.decode(p.answer) == f" {needle.answer}"


def test_gold_documents_and_places_differ_between_samples() -> None:
    made = make(samples=20, size=149)
    assert {p.meta["gold"] for p in made} == {"document1", "document2", "document3"}
    depths = {p.key_sets["needle"][0] - p.key_sets[p.meta["gold"]][0] for p in made}
    assert len(depths) > 3


def test_the_null_query_changes_nothing_before_it() -> None:
    for asked, null in zip(make(), make(ask="N/A"), strict=True):
        start = asked.key_sets["question"][0]
        assert asked.ids[:start] == null.ids[:start]
        assert part(null, "question") == "N/A"
        assert {n: s for n, s in asked.key_sets.items() if n not in ("question", "tail")} == {
            n: s for n, s in null.key_sets.items() if n not in ("question", "tail")
        }


def test_a_sample_does_not_depend_on_how_many_there_are() -> None:
    assert [p.ids for p in make(samples=2)] == [p.ids for p in make()[:2]]
    assert make(seed=1)[0].ids != make(seed=2)[0].ids


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match="at least 2 documents of at least 32 tokens and 1 sample, got 1, 61 and 7"):
        make(documents=1)
    two = Needle(texts=("Ann has the map.", "The map shows a cave."), question="What has Ann?", answer="a cave")
    with pytest.raises(OptionError, match="needles of one text each"):
        make(hidden=[two])
