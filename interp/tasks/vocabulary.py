"""What tasks ask of a tokenizer: ids of a text, of what continues it, of single words, and the special tokens in front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from interp.errors import InputDataError, OptionError

CARRIER: Final = "a"
"""A text of one letter, to see what a tokenizer puts before it, and behind which words with a leading space are tokenised."""


@runtime_checkable
class Tokenizer(Protocol):
    """A Hugging Face tokenizer, as tasks use it (naming the class would import transformers)."""

    @property
    def all_special_ids(self) -> Sequence[int]:
        """Ids of special tokens."""
        ...

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """Token ids (and offsets) of a text."""
        ...

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """Text of token ids."""
        ...

    def __len__(self) -> int:
        """Size of the vocabulary, added tokens included."""
        ...


def single_token(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Sort words by whether the tokenizer has one token for each, written exactly as given.

    A leading space counts, and means a word inside a text: it is tokenised behind another one, because some tokenizers (SentencePiece)
    put a space before every text by themselves.

    Returns:
        kept: word -> id, in the given order; dropped: the words of several tokens, and those whose token another word has.
    """
    kept: dict[str, int] = {}
    dropped = []
    taken: set[int] = set()
    for word in dict.fromkeys(words):
        ids = continuation(tokenizer, CARRIER, word) if word.startswith(" ") else plain_ids(tokenizer, word)
        if len(ids) == 1 and ids[0] not in taken and ids[0] not in tokenizer.all_special_ids:
            kept[word] = ids[0]
            taken.add(ids[0])
        else:
            dropped.append(word)
    return kept, tuple(dropped)


def need(kept: Mapping[str, int], least: int, what: str) -> None:
    """Refuse to go on with too few words of one token.

    Raises:
        InputDataError: fewer than `least`.
    """
    if len(kept) < least:
        raise InputDataError(
            f"this tokenizer has a single token for {len(kept)} of the {what}, and {least} are needed; "
            "give words that are single tokens, or take a task that needs none"
        )


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text, without special tokens around it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def first_ids(tokenizer: Tokenizer, bos: bool | None) -> list[int]:
    """The special tokens that stand before a text: those of the tokenizer, or with or without BOS if `bos` says so.

    Special tokens behind a text are never put: a prompt is there to be continued.

    Raises:
        OptionError: bos=True for a tokenizer without a BOS token.
    """
    start = getattr(tokenizer, "bos_token_id", None)  # an attribute that transformers makes up when asked
    if bos is True and start is None:
        raise OptionError("bos=True, but the tokenizer has no BOS token; use bos=None or bos=False")
    plain, whole = plain_ids(tokenizer, CARRIER), list(tokenizer(CARRIER, verbose=False)["input_ids"])
    before = next(
        (whole[:i] for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain), list[int]()
    )
    if bos is True and start is not None and before[:1] != [start]:
        return [start, *before]
    return before[1:] if bos is False and before[:1] == [start] else before


def ordinary_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Every token id that is not special, ascending, int64."""
    return np.setdiff1d(np.arange(len(tokenizer), dtype=np.int64), np.array(tokenizer.all_special_ids, dtype=np.int64))


def continuation(tokenizer: Tokenizer, text: str, answer: str) -> tuple[int, ...]:
    """The tokens that `answer` adds behind `text`.

    Raises:
        InputDataError: the answer changes how the text itself is tokenised.
    """
    ids, whole = plain_ids(tokenizer, text), plain_ids(tokenizer, text + answer)
    if whole[: len(ids)] != ids or len(whole) == len(ids):
        raise InputDataError(
            f"the answer {answer!r} merges with the end of its prompt, {text[-20:]!r}, under this tokenizer; "
            "begin the answer with a space, or end the prompt elsewhere"
        )
    return tuple(whole[len(ids) :])
