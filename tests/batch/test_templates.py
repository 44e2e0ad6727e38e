"""Rows into texts: templates that can do nothing but name columns, and conversations as the tokenizer's own template writes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from interp.batch.templates import Chat, Column, Template, rendering
from interp.errors import InputDataError, OptionError

MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
CHATML = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"


def tokenizer(template: str | None = CHATML, bos: str = "<s>") -> Any:
    """A tokenizer as far as chats go: it writes BOS and each message."""

    def apply(messages: list[dict[str, str]], *, tokenize: bool) -> str:
        assert not tokenize
        if any(m["role"] == "robot" for m in messages):
            raise ValueError("unknown role")
        return bos + "".join(f"<|{m['role']}|>{m['content']}\n" for m in messages)

    return SimpleNamespace(chat_template=template, bos_token=bos, apply_chat_template=apply)


def test_template() -> None:
    made = Template(pattern="# {title}\n{body} ({year}, {{as is}}) {title}")
    assert made.render({"title": "Ants", "body": "They {walk}.", "year": 1984, "more": None}, "r") == (
        "# Ants\nThey {walk}. (1984, {as is}) Ants"
    )
    assert made.record() == {"template": made.pattern}


@pytest.mark.parametrize(
    "pattern",
    ["{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{}", "{a.__class__}", "no column", "", "{a", "a}", "{a} {b.c}", "{0.a}"],
)
def test_nothing_but_names_in_braces(pattern: str) -> None:
    with pytest.raises(OptionError, match="template"):
        Template(pattern=pattern)


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, b"a"])
def test_template_takes_texts_and_numbers(value: object) -> None:
    with pytest.raises(InputDataError, match=r"row 3: column 'a' holds \w+, neither text nor a number"):
        Template(pattern="{a}").render({"a": value}, "row 3")


def test_missing_columns_are_named() -> None:
    for made in (Column(name="x"), Template(pattern="{x}"), Chat(column="x", tokenizer=tokenizer())):
        with pytest.raises(InputDataError, match="row 0: there is no column 'x'; the columns are: a, b"):
            made.render({"a": 1, "b": 2}, "row 0")


def test_chat_leaves_bos_to_the_contexts() -> None:
    made = Chat(column="talk", tokenizer=tokenizer())
    assert made.render({"talk": MESSAGES}, "r") == "<|user|>Hello\n<|assistant|>Good day\n"
    assert made.record()["chat"] == "talk" and len(made.record()["chat_template_sha256"]) == 64
    assert made.record() != Chat(column="talk", tokenizer=tokenizer("another")).record()


@pytest.mark.parametrize(
    "talk", ["text", None, [{"role": "user"}], [["user", "Hello"]], {"role": "user", "content": "x"}]
)
def test_chat_wants_messages(talk: object) -> None:
    with pytest.raises(InputDataError, match="row 1: column 'talk' holds no list of messages"):
        Chat(column="talk", tokenizer=tokenizer()).render({"talk": talk}, "row 1")


def test_chat_templates_may_refuse() -> None:
    with pytest.raises(InputDataError, match=r"row 1: the chat template refuses the messages \(unknown role\)"):
        Chat(column="talk", tokenizer=tokenizer()).render({"talk": [{"role": "robot", "content": "x"}]}, "row 1")
    with pytest.raises(OptionError, match="no chat template"):
        Chat(column="talk", tokenizer=tokenizer(None))


def test_a_string_is_a_column() -> None:
    assert rendering("body") == Column(name="body")
    assert rendering(made := Template(pattern="{a}")) is made
