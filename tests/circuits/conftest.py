"""Prompts for tiny models, and prompts whose circuit is planted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture
def pairs_of():
    """Random clean and corrupted prompts with an answer and a wrong one: `pairs_of(count, length)`."""
    from interp.tasks.prompt import Prompt

    def make(count=3, length=11, seed=0):
        draw = np.random.default_rng([seed, length])

        def words(n):
            return tuple(int(x) for x in draw.integers(7, 263, n))

        return [
            Prompt(
                ids=words(length),
                corrupt=words(length),
                answer=(20 + n,),
                wrong=(90 + n,),
                key_sets={"two": (3, 5)},
                rows={"late": (length - 2,)},
            )
            for n in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def copying():
    """A planted retrieval model, the places of its heads, and prompts "... a b ... a" -> b; corrupted, the first a is another word."""
    from interp.models.planted import planted
    from interp.tasks.prompt import Prompt

    model, where = planted("retrieval")
    draw = np.random.default_rng(5)
    found = []
    for n in range(4):
        words = [int(w) for w in draw.choice(np.arange(1, 97), size=14, replace=False)]
        at = 3 + n
        ids = (*words[:13], words[at])
        corrupt = (*words[:at], words[13], *words[at + 1 : 13], words[at])
        found.append(
            Prompt(ids=ids, corrupt=corrupt, answer=(words[at + 1],), wrong=(words[11],), key_sets={"found": (at + 1, at + 2), "asked": (at, at + 1)})
        )  # fmt: skip
    return model, where, found
