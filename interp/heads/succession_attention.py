"""Do heads look from an element of an ordered list to the one before it? The behavioural complement of the successor score.

A list of single-token words with a comma after each: w_1 , w_2 , w_3 ... Element k stands two tokens behind element k - 1, so the attention
in question is at offset 2 (the score of the released code of a decomposition study, heads.md section 5):

    score = mean over elements of A[w_k, w_{k-1}] on ordered lists, less the same on lists of random words

Rows whose previous element is the first token of the text are left out: that key is an attention sink. Random words are a weak control:
a head that links words of one kind (two months, two numbers) in any order scores as well. The column `unordered` is the attention on the
same words shuffled; what `ordered` has above it is what the order itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputDataError, OptionError
from interp.heads.positional import offset_masses
from interp.heads.tables import head_table
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator
from interp.tasks.succession import JOINT, Chain, chains
from interp.tasks.vocabulary import continuation, first_ids, ordinary_ids

CASE = "space plain"
WORD_CHECK = 20
"""Random ids drawn for each random word until one is a word with a space before it."""


def succession_attention(
    model: HookedModel,
    *,
    elements: int = 7,
    samples: int = 40,
    lists: Sequence[Chain] | None = None,
    bos: bool | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Score every head by how much more it looks at the previous element in ordered lists than in lists of random words.

    Args:
        model: a decoder with a tokenizer.
        elements: words of a list.
        samples: lists, dealt in turn to the tasks that have so many single-token words in a row.
        lists: ordered lists as tokens; None takes those of the tokenizer, with a space before each word.
        bos: None leaves the choice of a BOS token to the tokenizer.
        seed: of the starts and the random words.
        progress: called with (lists done, lists).

    Returns:
        Result "heads.succession_attention": score in [-1, 1], spread (standard deviation over lists), control (the attention in lists of
        random words), ordered (that in ordered lists), unordered (the same words in random order; mere word kind is shared). Arrays: score
        [sample, layer, head].

    Raises:
        OptionError: fewer than four elements or two samples.
        InputDataError: no tokenizer, or no list with enough single-token words in a row.
    """
    if elements < 4 or samples < 2:
        raise OptionError(f"wanted elements >= 4 and samples >= 2, got {elements} and {samples}")
    if model.tokenizer is None:
        raise InputDataError("ordered lists are written in words, and this model came without a tokenizer")
    lists = chains(model.tokenizer, cases=[CASE]) if lists is None else list(lists)
    usable = [(chain, starts) for chain in lists if (starts := _starts(chain, elements))]
    if not usable:
        raise InputDataError(f"no list has {elements} single-token words in a row; ask for fewer elements")
    ordinary = ordinary_ids(model.tokenizer)
    comma = continuation(model.tokenizer, " a", JOINT)
    if len(comma) != 1:
        raise InputDataError("this tokenizer has no single token for a comma")
    before = first_ids(model.tokenizer, bos)
    texts: dict[str, list[list[int]]] = {"ordered": [], "random": [], "unordered": []}
    for sample in range(samples):
        draw = generator(seed, sample)
        chain, starts = usable[sample % len(usable)]
        words = _run(chain, int(draw.choice(starts)), elements)
        others = _random_words(model, ordinary, elements, draw)
        for name, row in (("ordered", words), ("random", others), ("unordered", draw.permutation(words).tolist())):
            texts[name].append([*before, *(token for word in row for token in (word, comma[0]))])
    rows = [len(before) + 2 * k for k in range(1, elements) if len(before) + 2 * k > 2]
    found: dict[str, NDArray[np.float64]] = {}
    for done, (name, some) in enumerate(texts.items()):

        def say(count: int, done: int = done) -> None:
            if progress is not None:
                progress((done * samples + count) // len(texts), samples)

        found[name] = offset_masses(model, some, (2,), say=say)[..., rows, 0].mean(-1, dtype=np.float64)
    score = found["ordered"] - found["random"]
    table = head_table(
        score,
        control=found["random"].mean(0),
        extra={name: found[name].mean(0) for name in ("ordered", "unordered")},
    )
    manifest = model.manifest() | {
        "method": "succession_attention",
        "source": "behavioural complement of Gould et al. 2023 (arXiv 2312.09230)",
        "settings": {
            "elements": elements,
            "samples": samples,
            "lists": [f"{chain.task}, {chain.case}" for chain, _ in usable],
            "bos": len(before),
            "rows": "elements whose previous element is not the first token",
        },
        "seed": seed,
    }
    arrays = {"score": score.astype(np.float32)}
    return Result(kind="heads.succession_attention", table=table, manifest=manifest, arrays=arrays)


def _run(chain: Chain, start: int, elements: int) -> list[int]:
    """Tokens of a run of the list from a token on; shorter where the chain breaks."""
    following = dict(chain.pairs)
    run = [start]
    while len(run) < elements and run[-1] in following:
        run.append(following[run[-1]])
    return run


def _starts(chain: Chain, elements: int) -> list[int]:
    """Tokens from which a run of distinct elements goes on long enough."""
    return [t for t in chain.tokens.values() if len(set(_run(chain, t, elements))) == elements]


def _random_words(
    model: HookedModel, ordinary: NDArray[np.int64], elements: int, draw: np.random.Generator
) -> list[int]:
    """Distinct random tokens that are words with a space before them, or any ordinary tokens where those are rare."""
    found: list[int] = []
    ids = draw.permutation(ordinary)[: WORD_CHECK * elements].tolist()
    for token, text in zip(ids, model.tokens(ids), strict=True):
        if text[:1] == " " and text[1:].isalpha() and len(found) < elements:
            found.append(token)
    return (found + [token for token in ids if token not in found])[:elements]
