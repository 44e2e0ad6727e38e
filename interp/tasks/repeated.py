"""A block of random tokens, several times over: the input on which induction, echo and duplicate-token heads are measured.

With blocks of L tokens, a later row i sees its own token at i - L (echo, duplicate), the token that followed it at i - (L - 1) (induction),
and the token before it at i - 1 (previous). Three forms of the literature:

- OLSSON (Olsson et al. 2022, "In-context Learning and Induction Heads", appendix): 25 tokens, 4 times, BOS first, the most and least common
  tokens left out. How many is not said; here it is the first and last hundredth of the ordinary ids, because byte-pair vocabularies are
  numbered by how common a token is.
- TRANSFORMER_LENS (TransformerLens main demo): 50 tokens, twice, ids 1000 to 9999, no BOS; drawn with replacement.
- RAZOR (RazorAttention, arXiv 2407.15891, and the vendor's code): 2,500 tokens, 4 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InputDataError, OptionError
from interp.tasks.prompt import Prompt, generator
from interp.tasks.vocabulary import Tokenizer, first_ids, ordinary_ids


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How a repeated sequence is drawn; vary one with `dataclasses.replace(OLSSON, bos=False)`.

    Attributes:
        length: tokens of the block, L.
        repeats: how often it stands, R.
        bos: whether the tokenizer's BOS token comes first.
        ids: first and last id drawn from, clipped to the vocabulary; None for all ordinary tokens. If fewer than L ids are left, all
            ordinary tokens are drawn from (the sample's meta says so).
        drop: share of ordinary ids left out at each end of the numbering.
        distinct: whether the tokens of a block differ (then an earlier equal token is always one block away).

    Raises:
        OptionError: a size out of range.
    """

    length: int
    repeats: int = 2
    bos: bool = False
    ids: tuple[int, int] | None = None
    drop: float = 0.0
    distinct: bool = True

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.length < 2 or self.repeats < 2:
            raise OptionError(f"wanted length >= 2 and repeats >= 2, got {self.length} and {self.repeats}")
        if not 0.0 <= self.drop < 0.5:
            raise OptionError(f"drop must be at least 0 and below 0.5, got {self.drop}")


OLSSON = Repetition(length=25, repeats=4, bos=True, drop=0.01)
TRANSFORMER_LENS = Repetition(length=50, repeats=2, ids=(1000, 9999), distinct=False)
RAZOR = Repetition(length=2500, repeats=4)


def offsets(length: int) -> dict[str, int]:
    """How far back a head of each kind looks on blocks of `length` tokens."""
    return {"previous": 1, "duplicate": length, "induction": length - 1}


def prompts(tokenizer: Tokenizer, form: Repetition = OLSSON, *, samples: int = 10, seed: int = 0) -> list[Prompt]:
    """Random tokens repeated; the answer is the token that begins the next block.

    Rows "first" are those of the first block, "later" those of all others, whose next token is known; key set "first" is the first block,
    "bos" what stands before it. meta["offsets"] says how far back heads of each kind look.

    Raises:
        InputDataError: a vocabulary of fewer than `length` tokens, for distinct ones.
        OptionError: form.bos without a BOS token.
    """
    pool, whole_vocabulary = _pool(tokenizer, form)
    before = first_ids(tokenizer, True) if form.bos else []
    return [_prompt(pool, before, form, seed, i, whole_vocabulary) for i in range(samples)]


def _pool(tokenizer: Tokenizer, form: Repetition) -> tuple[np.ndarray, bool]:
    """The ids to draw from, and whether the form's own choice left too few."""
    everything = ordinary_ids(tokenizer)
    cut = int(len(everything) * form.drop)
    chosen = everything[cut : len(everything) - cut]
    if form.ids is not None:
        chosen = chosen[(chosen >= form.ids[0]) & (chosen <= form.ids[1])]
    if len(chosen) >= form.length:
        return chosen, False
    if form.distinct and len(everything) < form.length:
        raise InputDataError(
            f"the vocabulary has {len(everything)} ordinary tokens, too few for a block of {form.length} distinct ones; "
            "take a shorter block, or distinct=False"
        )
    return everything, True


def _prompt(
    pool: np.ndarray, before: list[int], form: Repetition, seed: int, sample: int, whole_vocabulary: bool
) -> Prompt:
    block = generator(seed, sample).choice(pool, size=form.length, replace=not form.distinct).tolist()
    start, stop = len(before), len(before) + form.length * form.repeats
    meta: dict[str, Any] = {
        "task": "repeated",
        "sample": sample,
        "length": form.length,
        "repeats": form.repeats,
        "bos": form.bos,
        "offsets": offsets(form.length),
        "whole_vocabulary": whole_vocabulary,
    }
    return Prompt(
        ids=(*before, *block * form.repeats),
        answer=(block[0],),
        key_sets={"first": (start, start + form.length)} | ({"bos": (0, start)} if before else {}),
        rows={"first": tuple(range(start, start + form.length)), "later": tuple(range(start + form.length, stop))},
        meta=meta,
    )
