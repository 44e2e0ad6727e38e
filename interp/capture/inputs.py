"""`Inputs`: what a model is run on, with labels for its token axes; built from text, token ids or tensors."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.errors import InputDataError, OptionError, ShapeError
from interp.stats.labels import TokenLabels

Span = tuple[int, int]
Spans = Mapping[str, Span | Sequence[Span]]
TextOrIds = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenAxis:
    """One axis of tokens of a padded batch.

    Attributes:
        ids: the ids of each text, unpadded.
        tokens: their strings.
        labels: labels of the padded batch.
        padded: padded ids [B, N] and mask of real tokens [B, N], as the model gets them.
    """

    ids: list[list[int]]
    tokens: list[list[str]]
    labels: TokenLabels
    padded: tuple[Tensor, Tensor]

    def digest(self) -> str:
        """sha256 of the token ids, text by text."""
        joined = ";".join(",".join(map(str, ids)) for ids in self.ids)
        return hashlib.sha256(joined.encode()).hexdigest()


class Tokens:
    """Text to ids, exactly as the model's own tokenizer does it, and facts about single ids; one per model.

    Args:
        tokenizer: the model's Hugging Face tokenizer, or None: then only ids are accepted and tokens show as numbers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.tokenizer: Any = tokenizer
        self._strings: dict[int, str] = {}

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            bos: None leaves the choice to the tokenizer; True puts its BOS token first if it is not; False takes off the one it added.

        Raises:
            OptionError: bos=True for a tokenizer without a BOS token.
            InputDataError: text for a model without a tokenizer.
        """
        if self.tokenizer is None:
            raise InputDataError(
                "this model came without a tokenizer, so it cannot read text; give token ids, or wrap(model, tokenizer)"
            )
        ids = list(self.tokenizer(text)["input_ids"])
        start = self.tokenizer.bos_token_id
        if bos is True and start is None:
            raise OptionError("bos=True, but the tokenizer has no BOS token; use bos=None, or give ids")
        if bos is True and ids[:1] != [start]:
            return [start, *ids]
        if bos is False and ids[:1] == [start]:
            # The text itself may begin with the BOS string: only a BOS that stands before its own tokens was added.
            plain = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            return ids[1:] if ids[1 : len(plain) + 1] == plain else ids
        return ids

    def strings(self, ids: Sequence[int]) -> list[str]:
        """What each token says, decoded alone (bytes that are no whole character show as U+FFFD). Untrusted text: escape it."""
        for i in set(ids) - self._strings.keys():
            self._strings[i] = (
                str(i) if self.tokenizer is None else self.tokenizer.decode([i], clean_up_tokenization_spaces=False)
            )
        return [self._strings[i] for i in ids]

    def axis(self, given: TextOrIds, *, bos: bool | None, spans: Spans | None, device: torch.device) -> TokenAxis:
        """Tokenise, pad on the right, and label a batch. `given` is one text or ids, or several.

        Raises:
            InputDataError: an empty text, texts and ids mixed, or text without a tokenizer.
            OptionError: a choice of `bos` for ids, which are used as they are.
            ShapeError: ids or spans of a wrong shape.
        """
        if bos is not None and not is_text(given):
            raise OptionError(f"bos={bos} chooses how text is tokenised, but ids were given; put the BOS id among them")
        ids = [self.encode(x, bos) if isinstance(x, str) else x for x in _as_list(given)]
        if not ids or any(len(x) == 0 for x in ids):
            raise InputDataError("an empty text has no attention; give at least one token per text")
        length = max(map(len, ids))
        padded = torch.full((len(ids), length), self._padding_id())
        real = torch.zeros(len(ids), length, dtype=torch.bool)
        for b, x in enumerate(ids):
            padded[b, : len(x)] = torch.tensor(x)
            real[b, : len(x)] = True
        strings = [self.strings(x) for x in ids]
        sets = {
            "special": self._special(padded) & real,
            "punctuation": self._punctuation(padded) & real,
            **_span_sets(spans, ids, length),
        }
        padded, real = padded.to(device), real.to(device)
        labels = TokenLabels.of(padded, real, {name: s.to(device) for name, s in sets.items()})
        return TokenAxis(ids=ids, tokens=strings, labels=labels, padded=(padded, real))

    def _padding_id(self) -> int:
        pad = None if self.tokenizer is None else self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def _special(self, ids: Tensor) -> Tensor:
        special = [] if self.tokenizer is None else self.tokenizer.all_special_ids
        return torch.isin(ids, torch.tensor(special, dtype=ids.dtype))

    def _punctuation(self, ids: Tensor) -> Tensor:
        if self.tokenizer is None:
            return torch.zeros_like(ids, dtype=torch.bool)
        distinct = ids.unique().tolist()
        marks = [i for i, s in zip(distinct, self.strings(distinct), strict=True) if is_punctuation(s)]
        return torch.isin(ids, torch.tensor(marks, dtype=ids.dtype))


def is_punctuation(token: str) -> bool:
    """Whether a token holds a punctuation mark or symbol and no letter, digit or control character of a special token.

    >>> is_punctuation(" ,"), is_punctuation("don't"), is_punctuation(" ")
    (True, False, False)
    """
    kinds = {unicodedata.category(c)[0] for c in token if c != "\ufffd"}
    return bool(kinds & {"P", "S"}) and not kinds & {"L", "N"}


def _as_list(given: Any) -> list[Any]:
    """One text or several, as a list of texts or of id lists."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, Tensor):
        if given.is_floating_point() or given.ndim not in (1, 2):
            raise ShapeError(
                f"ids: wanted an integer tensor [token] or [batch, token], got {given.dtype} {tuple(given.shape)}"
            )
        return [row.tolist() for row in (given if given.ndim == 2 else given[None])]
    items = list(given)
    if items and all(isinstance(x, int) for x in items):
        return [items]
    if all(isinstance(x, str) for x in items):
        return items
    if any(isinstance(x, str) for x in items):
        raise InputDataError("texts and token ids are mixed in one batch; give all texts or all ids")
    return [[int(t) for t in x] for x in items]


def is_single(given: Any) -> bool:
    """Whether one text (or one list of ids) was given, not a batch."""
    if isinstance(given, str):
        return True
    if isinstance(given, Tensor):
        return given.ndim == 1
    return len(given) > 0 and all(isinstance(x, int) for x in given)


def is_text(given: Any) -> bool:
    """Whether text was given, not ids."""
    return isinstance(given, str) or (not isinstance(given, Tensor) and any(isinstance(x, str) for x in given))


def _span_sets(spans: Spans | None, ids: list[list[int]], length: int) -> dict[str, Tensor]:
    sets = {}
    for name, given in (spans or {}).items():
        pairs: list[Any] = [given] if len(given) == 2 and isinstance(given[0], int) else list(given)
        if len(pairs) != len(ids):
            raise ShapeError(f"span {name!r}: wanted one (start, stop) for each of {len(ids)} texts, got {len(pairs)}")
        member = torch.zeros(len(ids), length, dtype=torch.bool)
        for b, (start, stop) in enumerate(pairs):
            if not 0 <= start < stop <= len(ids[b]):
                raise ShapeError(
                    f"span {name!r} of text {b}: wanted 0 <= start < stop <= {len(ids[b])} tokens, got ({start}, {stop})"
                )
            member[b, start:stop] = True
        sets[f"span:{name}"] = member
    return sets
