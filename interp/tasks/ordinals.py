"""Ordered word lists: numbers, number words, ordinal words, days, months, letters, roman numerals.

The lists of the successor-head literature (Gould et al., arXiv 2312.09230, and the tasks of the released replication: numbers to 200,
number words to twenty, ordinal words to tenth, the rest whole). That replication's roman numerals hold XVII twice and lack XVIII; here
they are computed.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NUMBER_WORDS: Final = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
ORDINAL_WORDS: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
_ROMAN: Final = ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


@dataclass(frozen=True, kw_only=True)
class Ordinals:
    """Words in order.

    Attributes:
        name: of the task.
        words: in order, in their usual case.
        cyclic: whether the first follows the last.
    """

    name: str
    words: tuple[str, ...]
    cyclic: bool = False


def roman(number: int) -> str:
    """A number from 1 to 39 in roman numerals.

    >>> roman(18)
    'XVIII'
    """
    written = ""
    for value, sign in _ROMAN:
        written += sign * (number // value)
        number %= value
    return written


def _prefixes(names: tuple[str, ...]) -> tuple[str, ...]:
    """The three letters that days and months are shortened to."""
    return tuple(name[:3] for name in names)


ORDINALS: Final[dict[str, Ordinals]] = {
    task.name: task
    for task in (
        Ordinals(name="numbers", words=tuple(map(str, range(1, 201)))),
        Ordinals(name="number_words", words=NUMBER_WORDS),
        Ordinals(name="ordinal_words", words=ORDINAL_WORDS),
        Ordinals(name="days", words=DAYS, cyclic=True),
        Ordinals(name="day_prefixes", words=_prefixes(DAYS), cyclic=True),
        Ordinals(name="months", words=MONTHS, cyclic=True),
        Ordinals(name="month_prefixes", words=_prefixes(MONTHS), cyclic=True),
        Ordinals(name="letters", words=tuple(string.ascii_uppercase)),
        Ordinals(name="roman_numerals", words=tuple(map(roman, range(1, 21)))),
    )
}
"""The tasks by name."""
