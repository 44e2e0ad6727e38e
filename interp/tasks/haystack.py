"""Text to hide something in: documents in random order, cut at a sentence end, and the places where a sentence can be put between."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import numpy as np

from interp.errors import InputDataError
from interp.tasks.corpus import Split, corpus
from interp.tasks.vocabulary import Tokenizer, plain_ids

JOINT = "\n\n"
"""What stands between two documents."""

_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)[.!?][\"')\]]*(?=\s)|(?<=\S)(?=\n\s*\n)")
"""The end of a sentence, or of a paragraph that has no full stop."""


@cache
def corpus_texts(split: Split) -> tuple[str, ...]:
    """The documents of one side of the corpus, the haystacks that are used if no texts are given."""
    return tuple(document.text for document in corpus(split))


def sentence_ends(text: str) -> list[int]:
    """Character positions right behind each sentence of a text, ascending; the end of the text is one.

    >>> sentence_ends('One. Two, e.g. this! End')
    [4, 20, 24]
    """
    ends = [match.end() for match in _END.finditer(text)]
    return ends if ends[-1:] == [len(text)] else [*ends, len(text)]


def nearest_end(ends: Sequence[int], position: float) -> int:
    """The last of the ends at or before a position, 0 if there is none."""
    before = bisect_right(ends, position)
    return ends[before - 1] if before else 0


def haystack(tokenizer: Tokenizer, texts: Sequence[str], tokens: int, random: np.random.Generator) -> str:
    """A text of at most `tokens` tokens that ends with a sentence: different documents in random order.

    Raises:
        InputDataError: the texts together are too short, or have no sentence end early enough.
    """
    order = [texts[int(i)].strip() for i in random.permutation(len(texts)) if texts[int(i)].strip()]
    text, size, found = "", 4 * tokens, 0
    while found < tokens:
        while order and len(text) < size:
            text += (JOINT if text else "") + order.pop(0)
        found = len(plain_ids(tokenizer, text[:size]))
        if found < tokens and not order and size >= len(text):
            raise InputDataError(
                f"the texts hold {found} tokens, and a haystack of {tokens} is wanted; give more text, or shorter lengths"
            )
        size = size if found >= tokens else size + size // 2
    ends = [end for end in sentence_ends(text) if end <= size]
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        if len(plain_ids(tokenizer, text[: ends[middle]])) <= tokens:
            low = middle + 1
        else:
            high = middle
    if not low:
        raise InputDataError(
            f"no sentence ends within the first {tokens} tokens of a haystack; give prose, or more length"
        )
    return text[: ends[low - 1]]
