"""`Prompt`: a token sequence whose right continuation is known, with named key positions and query rows; what every task gives.

A task is a module with a function `prompts(tokenizer, ..., seed=0)`. Sample i of seed s draws from `numpy.random.default_rng([s, i])`, so
that it is the same whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from interp.errors import InputDataError, OptionError

Span = tuple[int, int]


@runtime_checkable
class Tokenizer(Protocol):
    """A Hugging Face tokenizer, as tasks use it (naming the class would import transformers)."""

    bos_token_id: int | None
    all_special_ids: list[int]

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """Token ids (and offsets) of a text."""
        ...

    def decode(self, token_ids: Any, **options: Any) -> str:
        """Text of token ids."""
        ...

    def __len__(self) -> int:
        """Size of the vocabulary, added tokens included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt with a known answer. Positions count tokens of `whole`, which is `ids` followed by `answer`.

    Attributes:
        ids: what the model is given, special tokens included.
        answer: the tokens that should follow; the first of several right ones where `choices` names them all.
        wrong: what a model follows that missed the point, for differences of logits; None if no one continuation stands out.
        corrupt: a prompt of the same length under which `answer` no longer follows, differing from `ids` in as little as possible.
        key_sets: name -> (start, stop) of a run of key positions in `ids`; fits `spans=` of `HookedModel.run`.
        rows: name -> query positions in `whole`, ascending. The token that row i should predict is `whole[i + 1]`; "end" is the last of `ids`.
        pairs: name -> (query, key) positions in `whole`: where a head of some kind looks from a row.
        choices: name -> tokens among which the next one is judged.
        meta: how the sample was made; plain values.

    Raises:
        OptionError: a position outside the sequence, or a corruption of another length.
    """

    ids: tuple[int, ...]
    answer: tuple[int, ...]
    wrong: tuple[int, ...] | None = None
    corrupt: tuple[int, ...] | None = None
    key_sets: Mapping[str, Span] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pairs: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    choices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check positions, add the row "end", and make the mappings read-only."""
        given, whole = len(self.ids), len(self.ids) + len(self.answer)
        if not given:
            raise OptionError("a prompt needs at least one token")
        if self.corrupt is not None and len(self.corrupt) != given:
            raise OptionError(f"corrupt must have the {given} tokens of ids, got {len(self.corrupt)}")
        for name, (start, stop) in self.key_sets.items():
            if not 0 <= start < stop <= given:
                raise OptionError(f"key set {name!r}: wanted 0 <= start < stop <= {given}, got ({start}, {stop})")
        for name, rows in self.rows.items():
            if list(rows) != sorted(set(rows)) or not all(0 <= i < whole for i in rows):
                raise OptionError(f"rows {name!r}: wanted ascending positions below {whole}, got {rows}")
        for name, pairs in self.pairs.items():
            if not all(0 <= key <= query < whole for query, key in pairs):
                raise OptionError(f"pairs {name!r}: wanted 0 <= key <= query < {whole}, got {pairs}")
        frozen: dict[str, Mapping[str, Any]] = {
            "key_sets": self.key_sets,
            "rows": {**self.rows, "end": (given - 1,)},
            "pairs": self.pairs,
            "choices": self.choices,
            "meta": self.meta,
        }
        for name, mapping in frozen.items():
            object.__setattr__(self, name, MappingProxyType(dict(mapping)))

    @property
    def whole(self) -> tuple[int, ...]:
        """The prompt followed by its answer."""
        return self.ids + self.answer

    def next_tokens(self, rows: str) -> tuple[int, ...]:
        """The right next token of each row of a named set (rows without one, the last of `whole`, are an error)."""
        return tuple(self.whole[i + 1] for i in self.rows[rows])


def spans(prompts: Sequence[Prompt]) -> dict[str, list[Span]]:
    """The key sets that all the prompts have, one (start, stop) per prompt: `model.run([p.ids for p in prompts], spans=spans(prompts))`."""
    if not prompts:
        return {}
    shared = [name for name in prompts[0].key_sets if all(name in p.key_sets for p in prompts)]
    return {name: [p.key_sets[name] for p in prompts] for name in shared}


def generator(seed: int, sample: int) -> np.random.Generator:
    """The random numbers of one sample."""
    return np.random.default_rng([seed, sample])


def single_token(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Sort words by whether the tokenizer has one token for each, written exactly as given (a leading space counts).

    Returns:
        kept: word -> id, in the given order; dropped: the words of several tokens, and those whose token another word has.
    """
    kept: dict[str, int] = {}
    dropped = []
    taken: set[int] = set()
    for word in dict.fromkeys(words):
        ids = plain_ids(tokenizer, word)
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
    start = tokenizer.bos_token_id
    if bos is True and start is None:
        raise OptionError("bos=True, but the tokenizer has no BOS token; use bos=None or bos=False")
    plain, whole = plain_ids(tokenizer, "a"), list(tokenizer("a", verbose=False)["input_ids"])
    before = next(
        (whole[:i] for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain), list[int]()
    )
    if bos is True and start is not None and before[:1] != [start]:
        return [start, *before]
    return before[1:] if bos is False and before[:1] == [start] else before


def ordinary_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Every token id that is not special, ascending, int64."""
    return np.setdiff1d(np.arange(len(tokenizer), dtype=np.int64), np.array(tokenizer.all_special_ids, dtype=np.int64))
