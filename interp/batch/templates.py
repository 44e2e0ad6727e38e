"""How a row of a data set becomes a text: one column of it, a template over several, or a conversation in the model's own chat format."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from interp.errors import InputDataError, OptionError

Row = Mapping[str, Any]


@runtime_checkable
class Rendering(Protocol):
    """Makes a text of a row."""

    def record(self) -> dict[str, str]:
        """What a plan says of it."""
        ...

    def render(self, row: Row, where: str) -> str:
        """The text of a row; `where` names the row in errors. Raises InputDataError if the row does not have what is needed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Column:
    """The text of one column.

    Attributes:
        name: of the column.
    """

    name: str

    def record(self) -> dict[str, str]:
        """The column."""
        return {"column": self.name}

    def render(self, row: Row, where: str) -> str:
        """The text in the column."""
        text = _cell(row, self.name, where)
        if not isinstance(text, str):
            raise InputDataError(
                f"{where}: column {self.name!r} holds {type(text).__name__}, not text; choose a column of strings"
            )
        return text


@dataclass(frozen=True, kw_only=True)
class Template:
    r"""A text with columns in braces; `{{` and `}}` stand for braces.

    >>> Template(pattern="# {title}\n{body}").render({"title": "On ants", "body": "They walk."}, "row 0")
    '# On ants\nThey walk.'

    Attributes:
        pattern: the text. Only plain names of columns may stand in braces: no attributes, items, conversions or formats.

    Raises:
        OptionError: something else stands in braces, or nothing does.
    """

    pattern: str

    def __post_init__(self) -> None:
        _ = self._pieces

    def record(self) -> dict[str, str]:
        """The pattern."""
        return {"template": self.pattern}

    def render(self, row: Row, where: str) -> str:
        """The pattern with the row's texts and numbers in it."""
        return "".join(before + ("" if name is None else _printed(row, name, where)) for before, name in self._pieces)

    @cached_property
    def _pieces(self) -> tuple[tuple[str, str | None], ...]:
        """Literal text and the column behind it, None at the end."""
        try:
            parsed = list(string.Formatter().parse(self.pattern))
        except ValueError as error:
            raise OptionError(
                f"template {self.pattern!r}: {error}; write {{column}}, and {{{{ or }}}} for a brace itself"
            ) from error
        for _, name, form, conversion in parsed:
            if name is not None and (not name or form or conversion or set(name) & set(".[]")):
                raise OptionError(
                    f"template {self.pattern!r}: only plain names of columns may stand in braces, such as {{title}}; got {name!r}"
                )
        if all(name is None for _, name, _, _ in parsed):
            raise OptionError(f"template {self.pattern!r} names no column; write one in braces, such as {{text}}")
        return tuple((before, name) for before, name, _, _ in parsed)


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A conversation, as the tokenizer's chat template writes it. A BOS token that it writes first is left to the contexts, which all have one.

    Attributes:
        column: holds a list of messages, each with "role" and "content".
        tokenizer: of the model.

    Raises:
        OptionError: the tokenizer has no chat template.
    """

    column: str
    tokenizer: Any

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise OptionError(
                "this model's tokenizer has no chat template; choose a model that is made for chats, or use a template"
            )

    def record(self) -> dict[str, str]:
        """The column, and a hash of the chat template."""
        template = str(self.tokenizer.chat_template)
        return {"chat": self.column, "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest()}

    def render(self, row: Row, where: str) -> str:
        """The whole conversation, without a prompt for an answer."""
        messages = _cell(row, self.column, where)
        if not isinstance(messages, list) or not all(
            isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages
        ):
            raise InputDataError(
                f"{where}: column {self.column!r} holds no list of messages, each with 'role' and 'content'; choose the column that does"
            )
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # templates are programs, and raise what they like
            raise InputDataError(
                f"{where}: the chat template refuses the messages ({error}); mend or drop the row"
            ) from error
        return str(text).removeprefix(self.tokenizer.bos_token or "")


def rendering(column: str | Rendering) -> Rendering:
    """A column by its name, anything else as it is."""
    return Column(name=column) if isinstance(column, str) else column


def _printed(row: Row, name: str, where: str) -> str:
    value = _cell(row, name, where)
    if not isinstance(value, str | int | float):
        raise InputDataError(
            f"{where}: column {name!r} holds {type(value).__name__}, neither text nor a number; leave it out of the template"
        )
    return str(value)


def _cell(row: Row, column: str, where: str) -> Any:
    if column not in row:
        raise InputDataError(f"{where}: there is no column {column!r}; the columns are: {', '.join(map(str, row))}")
    return row[column]
