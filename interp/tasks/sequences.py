"""The input protocol of Gu et al. (2025, arXiv 2410.10781): many short sequences of natural text, random tokens, or one repeated token.

The paper uses T = 64 and 100 sequences; its own natural-text file is not recoverable, so natural text comes from the project's corpus.
Sequences have no BOS unless the tokenizer adds one, and the choice is recorded with every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel

Source = Literal["natural", "random", "repeated"]
SOURCES: tuple[Source, ...] = get_args(Source)
TOKENS = 64
SEQUENCES = 100


def sequences(
    model: HookedModel,
    source: Source,
    *,
    texts: Sequence[str],
    tokens: int = TOKENS,
    count: int = SEQUENCES,
    seed: int = 0,
) -> list[list[int]]:
    """Token sequences of one kind, each exactly `tokens` long.

    Args:
        model: gives the tokenizer and the vocabulary.
        source: "natural" cuts pieces from `texts` at random places; "random" draws ordinary tokens uniformly; "repeated" repeats one.
        texts: natural texts, used for "natural" only.
        tokens: T.
        count: number of sequences.
        seed: draws are numbered, so sequence i does not depend on `count`.

    Raises:
        InputDataError: the texts hold fewer than T tokens.
        OptionError: unknown source.
    """
    if source not in SOURCES:
        raise OptionError(f"source {source!r} is unknown; valid are {', '.join(SOURCES)}")
    draws = [np.random.default_rng([seed, SOURCES.index(source), i]) for i in range(count)]
    start = first_tokens(model)
    body = tokens - len(start)
    if source == "natural":
        pool = [ids for text in texts if len(ids := model.encode(text, bos=False if start else None)) >= body]
        if not pool:
            raise InputDataError(f"no text has {body} tokens; give longer texts or a smaller T")
        return [start + piece(pool, body, draw) for draw in draws]
    vocabulary = ordinary_tokens(model)
    if source == "random":
        return [start + draw.choice(vocabulary, body).tolist() for draw in draws]
    return [start + [int(draw.choice(vocabulary))] * body for draw in draws]


def piece(pool: Sequence[Sequence[int]], length: int, draw: np.random.Generator) -> list[int]:
    """A random piece of a random text, longer texts more often."""
    room = np.array([len(ids) - length + 1 for ids in pool])
    text = int(draw.choice(len(pool), p=room / room.sum()))
    begin = int(draw.integers(room[text]))
    return list(pool[text][begin : begin + length])


def first_tokens(model: HookedModel) -> list[int]:
    """The tokens that the model's tokenizer puts in front of every text (its BOS, mostly none or one)."""
    bos = None if model.tokenizer is None else model.tokenizer.bos_token_id
    if not isinstance(bos, int):
        return []
    return [bos] if model.encode("a")[:1] == [bos] else []


def ordinary_tokens(model: HookedModel) -> np.ndarray:
    """Ids of the vocabulary without special tokens, int64."""
    size = int(model.hf.config.get_text_config().vocab_size)
    special = [] if model.tokenizer is None else model.tokenizer.all_special_ids
    return np.setdiff1d(np.arange(size), np.array(special, dtype=np.int64))
