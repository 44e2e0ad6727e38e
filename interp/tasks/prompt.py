"""`Prompt`: a token sequence whose right continuation is known, with named key positions and query rows; what every task gives.

A task is a module with a function `prompts(tokenizer, ..., seed=0)`. Sample i of seed s draws from `numpy.random.default_rng([s, i])`, so
that it is the same whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from interp.errors import OptionError

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt with a known answer. Positions count tokens of `whole`, which is `ids` followed by `answer`.

    Attributes:
        ids: what the model is given, special tokens included.
        answer: the tokens that should follow; the first of several right ones where `choices` names them all.
        wrong: what a model follows that missed the point, for differences of logits; None if no one continuation stands out.
        corrupt: a prompt of the same length under which `answer` no longer follows, differing from `ids` in as little as possible.
        key_sets: name -> (start, stop) of a run of key positions in `ids`; fits `spans=` of `HookedModel.run`.
        rows: name -> query positions in `whole`, ascending; row i should predict `whole[i + 1]`. Always there: "end", the last of
            `ids`, and "answer", the rows that predict the tokens of `answer`.
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
        """Check positions, add the rows "end" and "answer", and make the mappings read-only."""
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
            "rows": {**self.rows, "end": (given - 1,), "answer": tuple(range(given - 1, whole - 1))},
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
