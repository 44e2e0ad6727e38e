"""Cutting texts into contexts: each text into consecutive runs of tokens, never two texts in one context unless they are joined.

Special tokens that the model's tokenizer puts around a text (a BOS token, [CLS] and [SEP]) are put around every context, so that each is
an input as the model knows it. A rest of fewer than `SHORTEST` tokens is dropped and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.batch.texts import Texts
from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel

SHORTEST = 16
"""Tokens (special ones not counted) below which the rest of a text is dropped: its rows see next to nothing."""

JOINT = "\n\n"
"""What stands between joined texts; each text is tokenised with it in front, so that joining needs no more memory than one text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """One input of the model.

    Attributes:
        document: name of the text it begins in.
        start: number of tokens of that text (of the joined text) that lie before it.
        ids: token ids, int64, special tokens included.
    """

    document: str
    start: int
    ids: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How texts are cut.

    Attributes:
        size: tokens per context at most, special ones included.
        before: special tokens put in front of every context.
        after: special tokens put behind it.
        max_tokens: stop after so many tokens, special ones included; None for all. The last context is cut to fit.
        join: join consecutive texts by a blank line before cutting.
        bucket: put so many consecutive contexts at a time in order of length, longest first, so that equal ones meet in a batch; 0 leaves
            them as they are.

    Raises:
        OptionError: contexts or limits too small to hold anything.
    """

    size: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    max_tokens: int | None = None
    join: bool = False
    bucket: int = 0

    def __post_init__(self) -> None:
        if self.bucket < 0:
            raise OptionError(f"bucket must be a number of contexts, or 0; got {self.bucket}")
        least = SHORTEST + len(self.before) + len(self.after)
        if self.size < least:
            raise OptionError(f"context must be at least {least} tokens; got {self.size}")
        if self.max_tokens is not None and self.max_tokens < least:
            raise OptionError(f"max_tokens must be at least {least}, one short context; got {self.max_tokens}")

    @property
    def body(self) -> int:
        """Tokens of text in a full context."""
        return self.size - len(self.before) - len(self.after)


@dataclass(kw_only=True, eq=False)
class Tally:
    """What a pass over the texts met: counts, the distinct token ids, and a hash of all ids in order."""

    texts: int = 0
    empty_texts: int = 0
    contexts: int = 0
    tokens: int = 0
    dropped_rests: int = 0
    dropped_tokens: int = 0
    distinct: set[int] = field(default_factory=set)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, context: Context) -> None:
        """Count a context."""
        self.contexts += 1
        self.tokens += len(context.ids)
        self.distinct.update(np.unique(context.ids).tolist())
        self.digest.update(ids_sha256([context.ids]).encode())

    def record(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {
            "texts": self.texts,
            "empty_texts": self.empty_texts,
            "contexts": self.contexts,
            "tokens": self.tokens,
            "distinct_tokens": len(self.distinct),
            "dropped": {"rests": self.dropped_rests, "tokens": self.dropped_tokens, "shorter_than": SHORTEST},
            "ids_sha256": self.digest.hexdigest(),
        }


def ids_sha256(contexts: Sequence[NDArray[np.int64]]) -> str:
    """Hash of the ids of contexts, their order and lengths."""
    digest = hashlib.sha256()
    for ids in contexts:
        digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
    return digest.hexdigest()


def special_tokens(model: HookedModel, bos: bool | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the model's tokenizer (or the choice `bos`) puts before and behind a text.

    Raises:
        InputDataError: the model has no tokenizer.
        OptionError: bos=True for a tokenizer without one.
    """
    whole = model.encode("a", bos)
    plain = encode_plain(model, "a")
    for start in range(len(whole) - len(plain) + 1):
        stop = start + len(plain)
        if whole[start:stop] == plain:
            return tuple(whole[:start]), tuple(whole[stop:])
    return (), ()


def encode_plain(model: HookedModel, text: str) -> list[int]:
    """Token ids of a text, exactly as the model's own tokenizer gives them, without special tokens around it.

    Raises:
        InputDataError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise InputDataError("this model came without a tokenizer, so it cannot read text; use wrap(model, tokenizer)")
    return list(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def cut(texts: Texts, model: HookedModel, cutting: Cutting, tally: Tally) -> Iterator[Context]:
    """The contexts of texts, in order (of length within buckets, where there are any), counted in `tally` as they are cut.

    Raises:
        InputDataError: the texts cannot be read, or hold no text long enough for one context.
    """
    contexts = _cut(texts, model, cutting, tally)
    return _bucketed(contexts, cutting.bucket) if cutting.bucket else contexts


def _bucketed(contexts: Iterator[Context], size: int) -> Iterator[Context]:
    """The contexts, longest first within each so many of them; equal ones keep their order."""
    while bucket := list(islice(contexts, size)):
        yield from sorted(bucket, key=lambda context: -len(context.ids))


def _cut(texts: Texts, model: HookedModel, cutting: Cutting, tally: Tally) -> Iterator[Context]:
    """The contexts of texts, in the order of the texts."""
    body: list[int] = []
    document, start = "", 0
    for text in texts.read():
        tally.texts += 1
        if not text.text.strip():
            tally.empty_texts += 1
            continue
        if not cutting.join:
            body, document, start = [], text.name, 0
        elif not body:
            document = text.name
        body += encode_plain(
            model, JOINT + text.text if cutting.join and tally.texts > tally.empty_texts + 1 else text.text
        )
        at = 0
        while len(body) - at >= cutting.body:
            context = _context(document, start, body[at : at + cutting.body], cutting, tally)
            if context is None:
                return
            yield context
            document, at, start = text.name, at + cutting.body, start + cutting.body
        body = body[at:]
        if not cutting.join:
            last = _rest(document, start, body, cutting, tally)
            if last is not None:
                yield last
            if _full(cutting, tally):
                return
    if cutting.join:
        last = _rest(document, start, body, cutting, tally)
        if last is not None:
            yield last
    if not tally.contexts:
        raise InputDataError(
            f"{tally.texts} texts, none of which holds {SHORTEST} tokens; give longer text, or join the texts into one"
        )


def _rest(document: str, start: int, body: list[int], cutting: Cutting, tally: Tally) -> Context | None:
    """The context of what is left of a text, None if that is too short."""
    if len(body) < SHORTEST:
        tally.dropped_rests += bool(body)
        tally.dropped_tokens += len(body)
        return None
    return _context(document, start, body, cutting, tally)


def _room(cutting: Cutting, tally: Tally) -> int:
    """Tokens of text that still fit under max_tokens, in one context."""
    if cutting.max_tokens is None:
        return cutting.body
    return cutting.max_tokens - tally.tokens - len(cutting.before) - len(cutting.after)


def _full(cutting: Cutting, tally: Tally) -> bool:
    return _room(cutting, tally) < SHORTEST


def _context(document: str, start: int, body: list[int], cutting: Cutting, tally: Tally) -> Context | None:
    """A context of these tokens, cut to what max_tokens leaves; None where that is too little."""
    if _full(cutting, tally):
        return None
    kept = body[: _room(cutting, tally)]
    context = Context(
        document=document, start=start, ids=np.array([*cutting.before, *kept, *cutting.after], dtype=np.int64)
    )
    tally.add(context)
    return context
