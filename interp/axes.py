"""Names and order of the axes that every array and table of interp uses.

The order is always `layer, batch, head, query, key`; an array that lacks an axis simply leaves it out. Other tools use
other words for the same axes, and `canonical` translates them, so that a user may write the word of the paper at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from interp.errors import OptionError

__all__ = ["ALIASES", "AXES", "canonical", "in_order"]

AXES: Final[tuple[str, ...]] = ("layer", "batch", "head", "query", "key")
"""Axis names, outermost first."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "block": "layer",
        "text": "batch",
        "sequence": "batch",
        "sample": "batch",
        "head_index": "head",
        "q": "query",
        "row": "query",
        "dest": "query",
        "destination": "query",
        "query_pos": "query",
        "k": "key",
        "column": "key",
        "src": "key",
        "source": "key",
        "key_pos": "key",
    }
)
"""Words for an axis that other libraries and papers use, each with the name it has here."""


def canonical(name: str) -> str:
    """Return the name that an axis has in interp, given that name or an alias of it (any case).

    Raises:
        OptionError: if the word names no axis.

    >>> canonical("Destination")
    'query'
    """
    word = name.strip().lower()
    word = ALIASES.get(word, word)
    if word not in AXES:
        known = ", ".join([*AXES, *sorted(ALIASES)])
        raise OptionError(f"axis {name!r} is not known; expected one of: {known}")
    return word


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return axis names or aliases as canonical names in the order in which interp lays arrays out.

    Raises:
        OptionError: if a word names no axis, or two of them name the same one.

    >>> in_order(["source", "head", "destination"])
    ('head', 'query', 'key')
    """
    words = [canonical(name) for name in names]
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise OptionError(f"axes named more than once: {', '.join(twice)}; name each axis at most once")
    return tuple(sorted(words, key=AXES.index))
