"""The corpus is the same on every run and machine (of one Python), holds prose only, and its two sides share nothing."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys

import pytest

from interp.errors import OptionError
from interp.tasks import corpus as c


def test_topics_are_whole_and_sorted() -> None:
    from pydoc_data.topics import topics as texts

    found = c.topics()
    assert [d.name for d in found] == sorted(f"topics/{name}" for name in texts)
    assert next(d.text for d in found if d.name == "topics/if") == texts["if"].strip()


def test_docstrings_come_in_source_order() -> None:
    source = 'def g():\n    "second"\n\nclass A:\n    "third"\n    def f(self):\n        """fourth\n\n        more\n        """\n'
    assert list(c._module_docstrings('"first"\n' + source)) == ["first", "second", "third", "fourth\n\nmore"]


def test_a_module_that_does_not_parse_gives_nothing() -> None:
    assert list(c._module_docstrings("def broken(:\n")) == []


def test_comments_lose_their_marks_and_directives() -> None:
    source = (
        "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nx = '# no comment'\n"
        "# The first line\n# and the second.\n\ny = 1  # at a line end\n\n#---------\n\n# x = [1, 2]\n"
    )
    assert list(c._module_comments(source)) == ["The first line\nand the second.", "at a line end"]


def test_standard_library_is_read_without_tests_and_packages() -> None:
    names = [d.name.partition("/")[2] for d in c.docstrings()]
    assert names == sorted(names)
    assert {"argparse", "json.decoder", "asyncio.base_events"} <= set(names)
    assert not [n for n in names if {"test", "tests", "site-packages", "idlelib", "pytest"} & set(n.split("."))]


def test_no_paragraph_of_some_length_occurs_twice() -> None:
    seen: set[str] = set()
    for document in c.corpus():
        for paragraph in document.text.split("\n\n"):
            words = " ".join(paragraph.split())
            assert len(words) < c.REPEATED_FROM or words not in seen, (document.name, words)
            seen.add(words)
    assert len(seen) > 10_000


def test_split_is_by_hash_of_the_subject() -> None:
    def held_out(subject: str) -> bool:
        return int(hashlib.sha256(subject.encode()).hexdigest(), 16) / 16**64 < 0.1

    sides = {split: {d.name for d in c.corpus(split)} for split in ("train", "held_out")}
    assert not sides["train"] & sides["held_out"]
    assert sides["train"] | sides["held_out"] == {d.name for d in c.corpus()}
    assert all(held_out(name.partition("/")[2]) for name in sides["held_out"])
    assert not any(held_out(name.partition("/")[2]) for name in sides["train"])
    share = len(sides["held_out"]) / len(c.corpus())
    assert 0.07 < share < 0.16


def test_known_documents_stay_on_their_side() -> None:
    # Written down once: a change here would move text that results were held out from.
    for name in ("docstrings/dataclasses", "comments/dataclasses", "topics/while", "docstrings/json"):
        assert c.Document(name=name, text="x").split == "held_out", name
    for name in ("docstrings/argparse", "comments/argparse", "topics/if", "docstrings/json.decoder"):
        assert c.Document(name=name, text="x").split == "train", name


def test_parts_add_up() -> None:
    frame = c.describe().set_index(["part", "split"])
    for column in ("documents", "characters"):
        for part in ("topics", "docstrings", "comments", "all"):
            assert (
                frame.loc[(part, "train"), column] + frame.loc[(part, "held_out"), column]
                == frame.loc[(part, "all"), column]
            )
        total = sum(frame.loc[(part, "all"), column] for part in ("topics", "docstrings", "comments"))
        assert total == frame.loc[("all", "all"), column]
    assert frame.loc[("all", "all"), "characters"] == sum(len(d.text) for d in c.corpus())


def test_tokens_are_counted() -> None:
    def characters(text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(x) for x in text]}

    frame = c.describe(characters).set_index(["part", "split"])
    assert (frame["tokens"] == frame["characters"]).all()
    assert frame.loc[("topics", "all"), "distinct_tokens"] == len(set("".join(d.text for d in c.corpus(part="topics"))))


def test_record_names_python_and_depends_on_the_text() -> None:
    one = c.record([c.Document(name="a", text="bc")])
    assert one["python"] == ".".join(map(str, sys.version_info[:3]))
    assert one["sha256"] != c.record([c.Document(name="ab", text="c")])["sha256"]


@pytest.mark.parametrize("options", [{"split": "test"}, {"part": "novels"}])
def test_unknown_choices_are_named(options: dict[str, str]) -> None:
    plain = inspect.unwrap(c.corpus)  # without the type check of the tests, as users have it
    with pytest.raises(OptionError, match="must be one of"):
        plain(**options)


@pytest.mark.medium
def test_another_process_reads_the_same_text() -> None:
    code = "from interp.tasks.corpus import corpus, record; print(record(corpus())['sha256'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "LC_ALL": "C"},
    )
    assert done.stdout.strip() == c.record(c.corpus())["sha256"]
