"""Text written in named pieces, tokenised, and the token span of every name: by the tokenizer's offsets, or by growing prefixes.

The span of a name is the tokens that hold its characters, white space at its edges apart (a token " Mary" begins with the space before the
name). It is never found by comparing token ids, which may match elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import InputDataError
from interp.tasks.prompt import Span
from interp.tasks.vocabulary import Tokenizer, first_ids, plain_ids

Piece = tuple[str, ...]
"""A text and the names of the marks it belongs to; pieces of one mark follow each other."""


def tokenize(
    tokenizer: Tokenizer, pieces: Sequence[Piece], *, bos: bool | None = None
) -> tuple[tuple[int, ...], dict[str, Span]]:
    """Token ids of the joined pieces, special tokens in front, and the token span of every name.

    Args:
        tokenizer: with offsets (fast) or without.
        pieces: (text, name, name, ...) in order.
        bos: None leaves the choice of a BOS token to the tokenizer.

    Raises:
        InputDataError: a token holds characters inside and outside a name, or a name has none, or its pieces lie apart.
    """
    text = "".join(piece[0] for piece in pieces)
    before = first_ids(tokenizer, bos)
    marks = _ranges(pieces)
    if getattr(tokenizer, "is_fast", False):
        coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(coded["input_ids"]), [(int(a), int(b)) for a, b in coded["offset_mapping"]]
        found = {name: _by_offsets(text, offsets, name, *mark) for name, mark in marks.items()}
    else:
        ids = plain_ids(tokenizer, text)
        found = {name: _by_prefixes(tokenizer, text, ids, name, *mark) for name, mark in marks.items()}
    shift = len(before)
    return (*before, *ids), {name: (start + shift, stop + shift) for name, (start, stop) in found.items()}


def _ranges(pieces: Sequence[Piece]) -> dict[str, Span]:
    """Character range of each name, without white space at its edges."""
    text = "".join(piece[0] for piece in pieces)
    ranges: dict[str, Span] = {}
    at = 0
    for piece, *names in pieces:
        for name in names:
            start, stop = ranges.get(name, (at, at))
            if stop != at:
                raise InputDataError(f"the pieces of {name!r} lie apart; give each place a name of its own")
            ranges[name] = (start, at + len(piece))
        at += len(piece)
    for name, (start, stop) in ranges.items():
        part = text[start:stop]
        if not part.strip():
            raise InputDataError(f"{name!r} is empty or white space; give it a text")
        ranges[name] = (start + len(part) - len(part.lstrip()), stop - len(part) + len(part.rstrip()))
    return ranges


def _by_offsets(text: str, offsets: Sequence[Span], name: str, start: int, stop: int) -> Span:
    inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
    if not inside:
        raise InputDataError(f"the tokenizer has no token for {name!r}, {text[start:stop]!r}; change that text")
    first, last = offsets[inside[0]], offsets[inside[-1]]
    if text[min(first[0], start) : start].strip() or text[stop : max(last[1], stop)].strip():
        raise _merged(text, name, start, stop)
    return inside[0], inside[-1] + 1


def _by_prefixes(tokenizer: Tokenizer, text: str, ids: Sequence[int], name: str, start: int, stop: int) -> Span:
    """Lengths of the text up to the name and to its end, if the tokens of both are how the whole text begins."""
    ahead = plain_ids(tokenizer, text[:start].rstrip(" ")) if start else []
    behind = plain_ids(tokenizer, text[:stop])
    if list(ids[: len(ahead)]) != ahead or list(ids[: len(behind)]) != behind or len(ahead) == len(behind):
        raise _merged(text, name, start, stop)
    return len(ahead), len(behind)


def _merged(text: str, name: str, start: int, stop: int) -> InputDataError:
    return InputDataError(
        f"a token of {name!r}, {text[start:stop]!r}, also holds text around it; put white space or a line break between"
    )
