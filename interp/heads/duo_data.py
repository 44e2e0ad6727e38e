"""Texts for streaming and retrieval heads: pieces of natural text, DuoAttention's passkeys step by step, and their shuffled controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from interp.errors import InputDataError, OptionError, UnsupportedModelError
from interp.models.hooked import HookedModel
from interp.tasks import passkey
from interp.tasks.haystack import corpus_texts
from interp.tasks.prompt import Prompt, generator
from interp.tasks.sequences import sequences


def natural(model: HookedModel, *, samples: int, tokens: int, seed: int) -> list[Prompt]:
    """Pieces of the held-out documents of the project's corpus, `tokens` long.

    Raises:
        InputDataError: the model came without a tokenizer, or no document is long enough.
    """
    if model.tokenizer is None:
        raise InputDataError("natural text needs a tokenizer, and this model came without one; give prompts")
    texts = corpus_texts("held_out")
    return [
        Prompt(ids=tuple(ids), answer=())
        for ids in sequences(model, "natural", texts=texts, tokens=tokens, count=samples, seed=seed)
    ]


def passkeys(model: HookedModel, step: int, *, lengths: Sequence[int], count: int, size: int, seed: int) -> Prompt:
    """The passkey prompt of one training step, at one of the lengths at random; it does not depend on other steps.

    Raises:
        InputDataError: the model came without a tokenizer.
        OptionError: so many passkeys do not fit into the length.
    """
    if model.tokenizer is None:
        raise InputDataError("passkeys are text, and this model came without a tokenizer; give prompts")
    draw = generator(seed, step)
    length = int(draw.choice(np.asarray(lengths)))
    return passkey.prompts(
        model.tokenizer, lengths=(length,), passkeys=count, size=size, seed=int(draw.integers(2**32))
    )[0]


def shuffled(prompt: Prompt, stop: int, draw: np.random.Generator) -> Prompt:
    """The prompt with its tokens from the second up to `stop` in random order: what can be kept or retrieved is there, but not in place."""
    whole = np.asarray(prompt.whole)
    whole[1:stop] = draw.permutation(whole[1:stop])
    ids = tuple(whole.tolist())
    return replace(prompt, ids=ids[: len(prompt.ids)], answer=ids[len(prompt.ids) :])


def check_prompts(model: HookedModel, prompts: Sequence[Prompt], rows: str | None, seen: int) -> None:
    """Raise unless every prompt fits the model, has the rows, and is longer than the `seen` keys that streaming keeps.

    Raises:
        OptionError: too long, too short, or no prompts.
        InputDataError: rows that a prompt lacks.
        UnsupportedModelError: an encoder-decoder, whose prompts are not what its decoder attends to.
    """
    if model.is_encoder_decoder:
        raise UnsupportedModelError("streaming heads are those of decoders alone; this model is an encoder-decoder")
    if not prompts:
        raise OptionError("no prompts were given; give at least one")
    limit = model.context_length
    for prompt in prompts:
        size = len(prompt.whole)
        if limit is not None and size > limit:
            raise OptionError(
                f"a prompt of {size} tokens does not fit into the {limit} that the model reads; give shorter ones"
            )
        if size <= seen:
            raise OptionError(
                f"sinks and window keep {seen} keys, all of a prompt of {size} tokens: nothing would be cut; give longer prompts or smaller sizes"
            )
        if rows is not None and not prompt.rows.get(rows):
            raise InputDataError(f"a prompt has no rows {rows!r}; it has {', '.join(prompt.rows)}")
