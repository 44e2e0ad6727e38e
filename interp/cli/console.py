"""Printing: tables of untrusted text to standard output, sentences to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160
"""Columns of a table that goes to a file or pipe."""


def printable(text: str) -> str:
    r"""A text with control characters and the like spelled out, so that no token can steer a terminal.

    >>> printable("a\x1b[2J\n")
    'a\\x1b[2J\\n'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def results() -> Console:
    """The console of results: standard output."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


def people() -> Console:
    """The console for the person at the keyboard: standard error."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a sentence for a person."""
    people().print(printable(message))


def complain(message: str) -> None:
    """Print a sentence about something that went wrong."""
    people().print(printable(message), style="bold red")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    multiline: Sequence[str] = (),
) -> None:
    """Print a table to standard output; every cell is shown literally.

    Args:
        title: above the table.
        columns: headings.
        rows: cells, in the order of the columns.
        numbers: columns that are aligned to the right.
        multiline: columns whose cells may hold line ends that are meant.
    """
    table = Table(title=Text(printable(title), style="bold"), title_justify="left")
    for column in columns:
        table.add_column(Text(column), justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(str(cell), column in multiline) for column, cell in zip(columns, row, strict=True)))
    results().print(table)


def _cell(text: str, multiline: bool) -> Text:
    return Text("\n".join(map(printable, text.split("\n"))) if multiline else printable(text))


def print_json(record: Mapping[str, Any]) -> None:
    """Print one object as one line of JSON to standard output."""
    print(json.dumps(record, ensure_ascii=False), flush=True)
