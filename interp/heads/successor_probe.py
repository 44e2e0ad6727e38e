"""Do the words that successor heads read carry their number modulo 10, and do the heads use it? A linear probe, and its ablation.

Gould et al. 2023 (arXiv 2312.09230, sections 3 and 4) find "mod-10 features" in the effective embeddings e(s) of ordinal words: "February",
"second", "2" and "32" share one. Two questions, each with its control:

1. Is it there? A multinomial logistic regression (scikit-learn) reads the place of a word in its list, modulo m, from e(s). Accuracy on
   held-out words (every way of writing a word is held out together), and on held-out lists (trained on all other lists: only a code that
   lists share can do that; "Mon" goes with "Monday"). Control: the same with the places of each list shuffled, and other moduli.
2. Do the heads use it? The at most m - 1 directions that the probe reads are taken out of e(s) (the mean of the words stays), and the
   successor score is taken again. Control: the directions of probes fitted to shuffled places, of the same number, from the same words.

With few single-token numbers (SmolLM2 splits digits) most lists end before the places wrap around: read the manifest's counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from interp.errors import InputDataError, OptionError
from interp.heads.direct_path import DirectPath, Norms
from interp.heads.parts import Embedding
from interp.heads.successor import predict, tokens_of
from interp.heads.tables import head_table, named
from interp.heads.weights import read_weights
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.ordinals import ORDINALS
from interp.tasks.prompt import generator
from interp.tasks.succession import Chain, chains

MODULUS = 10
OTHER_MODULI = (7, 12)
KIN = {"day_prefixes": "days", "month_prefixes": "months"}
"""Lists whose words are those of another list, shortened; they are held out with it."""
FOLDS = 5
STRENGTH = 1.0
"""Inverse strength of the probe's L2 penalty, on vectors scaled to unit mean square."""
LEAST_WORDS = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class OrdinalWords:
    """Distinct tokens of ordered lists with their places.

    Attributes:
        ids: token ids [word].
        places: place in the list, from 1: [word].
        lists: number of the list, shortened lists being one with their own [word].
        words: number of the word, however it is written [word]; groups that must not be split between folds.
    """

    ids: NDArray[np.int64]
    places: NDArray[np.int64]
    lists: NDArray[np.int64]
    words: NDArray[np.int64]

    def shuffled(self, draw: np.random.Generator) -> NDArray[np.int64]:
        """The places with those of each list dealt out anew among its words (all ways of writing a word keep one place)."""
        places = self.places.copy()
        for name in np.unique(self.lists):
            mine = np.flatnonzero(self.lists == name)
            words = np.unique(self.words[mine])
            old = {w: self.places[mine[self.words[mine] == w][0]] for w in words}
            new = dict(zip(words, draw.permutation(list(old.values())), strict=True))
            places[mine] = [new[w] for w in self.words[mine]]
        return places


def successor_probe(
    model: HookedModel,
    *,
    embedding: Embedding = "mlp",
    norms: Norms = "model",
    modulus: int = MODULUS,
    lists: Sequence[Chain] | None = None,
    draws: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Probe e(s) for the place of ordinal words modulo 10, and measure what the successor score loses without the probe's directions.

    Args:
        model: a decoder with a tokenizer.
        embedding: variant of e(s), see `interp.heads.parts`.
        norms: see `interp.heads.direct_path`.
        modulus: m.
        lists: ordered lists of `interp.tasks.ordinals`, as tokens; None takes all that the tokenizer has.
        draws: shuffled probes that the controls average over, at least 2.
        seed: of the shuffles.
        progress: called with (steps done, steps).

    Returns:
        Result "heads.successor_probe". Columns: score, the successor score that a head loses when the probe's directions are taken out;
        control, the mean loss with the directions of shuffled probes, and spread, the standard deviation of that loss over draws; before
        and after, the scores. Manifest "probe": accuracy on held-out words and lists, with controls, for every modulus, and the counts.
        Arrays: directions [at most m - 1, d], orthonormal.

    Raises:
        OptionError: an unknown option, a modulus below 2, or fewer than two draws.
        InputDataError: no tokenizer, or fewer than 30 single-token words.
        UnsupportedModelError: a model whose weights cannot be read per head.
    """
    named("embedding", embedding, get_args(Embedding))
    named("norms", norms, get_args(Norms))
    if modulus < 2 or draws < 2:
        raise OptionError(f"wanted modulus >= 2 and draws >= 2, got {modulus} and {draws}")
    if model.tokenizer is None:
        raise InputDataError("the probe reads words, and this model came without a tokenizer")
    lists = chains(model.tokenizer) if lists is None else list(lists)
    found = ordinal_words(lists)
    if len(found.ids) < LEAST_WORDS:
        raise InputDataError(f"{len(found.ids)} single-token words are too few for a probe; it needs {LEAST_WORDS}")
    weights = read_weights(model)
    x = weights.effective_embedding(found.ids.tolist(), embedding).double().cpu().numpy()
    scale = float(np.sqrt(np.square(x - x.mean(0)).mean()))
    centred = (x - x.mean(0)) / scale
    steps, done = 2 + len(OTHER_MODULI) + draws, 0

    def say() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    accuracies = {}
    for m in dict.fromkeys((modulus, *OTHER_MODULI)):
        accuracies[str(m)] = _accuracies(centred, found, m, seed)
        say()
    path = DirectPath(weights, norms)
    streams = weights.effective_embedding(tokens_of(lists), embedding)
    mean = torch.as_tensor(x.mean(0), dtype=streams.dtype, device=streams.device)

    def without(directions: NDArray[np.float64]) -> NDArray[np.float64]:
        basis = torch.as_tensor(directions, dtype=streams.dtype, device=streams.device)
        kept = streams - (streams - mean) @ basis.T @ basis
        return predict(path, lists, kept[None])[0].correct.mean(0)

    before = predict(path, lists, streams[None])[0].correct.mean(0)
    directions = probe_directions(centred, found.places % modulus)
    after = without(directions)
    say()
    losses = []
    for draw in range(draws):
        places = found.shuffled(generator(seed, len(OTHER_MODULI) + modulus + draw))
        losses.append(before - without(probe_directions(centred, places % modulus)))
        say()
    table = head_table(np.stack(losses), control=np.mean(losses, axis=0), extra={"before": before, "after": after})
    table["score"] = (before - after).reshape(-1)
    manifest = model.manifest() | {
        "method": "successor_probe",
        "source": "Gould et al. 2023 (arXiv 2312.09230)",
        "settings": {"embedding": embedding, "norms": norms, "modulus": modulus, "draws": draws, "strength": STRENGTH},
        "seed": seed,
        "probe": {
            "words": len(found.ids),
            "by_list": dict(zip(_names(lists), np.bincount(found.lists).tolist(), strict=True)),
            "directions": len(directions),
            "accuracy": accuracies,
        },
    }
    return Result(
        kind="heads.successor_probe",
        table=table,
        manifest=manifest,
        arrays={"directions": directions.astype(np.float32)},
    )


def ordinal_words(lists: Sequence[Chain]) -> OrdinalWords:
    """The distinct tokens of some lists with their places; a token of two lists counts for the first."""
    rows: dict[int, tuple[int, int, int]] = {}
    names = _names(lists)
    words: dict[tuple[str, int], int] = {}
    for chain in lists:
        name = KIN.get(chain.task, chain.task)
        place = {word.casefold(): k + 1 for k, word in enumerate(ORDINALS[chain.task].words)}
        for word, token in chain.tokens.items():
            at = place[word.strip().casefold()]
            number = words.setdefault((name, at), len(words))
            rows.setdefault(token, (at, names.index(name), number))
    columns = np.array(list(rows.values()), dtype=np.int64).reshape(-1, 3).T
    return OrdinalWords(ids=np.array(list(rows), dtype=np.int64), places=columns[0], lists=columns[1], words=columns[2])


def probe_directions(x: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """An orthonormal basis of the directions that a probe for `labels` reads from x [word, d]: [at most labels - 1, d]."""
    coefficients = _probe().fit(x, labels).coef_
    coefficients = coefficients - coefficients.mean(0) if len(coefficients) > 1 else coefficients
    _, sizes, basis = np.linalg.svd(coefficients, full_matrices=False)
    return basis[sizes > 1e-6 * sizes[0]]


def _accuracies(x: NDArray[np.float64], found: OrdinalWords, modulus: int, seed: int) -> dict[str, float]:
    """Accuracy on held-out words and on held-out lists, each with the same for shuffled places, and the share of the largest class."""
    measured: dict[str, float] = {}
    for name, places in (("", found.places), ("_shuffled", found.shuffled(generator(seed, modulus)))):
        for held, groups, count in (("words", found.words, FOLDS), ("lists", found.lists, len(set(found.lists)))):
            folds = _folds(groups, count, seed) if count > 1 else []
            scores = cross_val_score(_probe(), x, places % modulus, cv=folds) if folds else [float("nan")]
            weights = [len(test) for _, test in folds] or None
            measured[f"held_out_{held}{name}"] = float(np.average(scores, weights=weights))
    largest = np.bincount(found.places % modulus).max() / len(found.places)
    return measured | {"largest_class": float(largest)}


def _folds(groups: NDArray[np.int64], count: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and test rows of `count` folds of whole groups, dealt at random.

    (scikit-learn's GroupKFold deals group k to fold k mod 5, which would hold out every word of a class modulo 10 together.)
    """
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    tests = [np.isin(groups, part) for part in np.array_split(order, count)]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]


def _probe() -> LogisticRegression:
    return LogisticRegression(C=STRENGTH, max_iter=2000)


def _names(lists: Sequence[Chain]) -> list[str]:
    """Names of the lists in the order of their numbers."""
    return list(dict.fromkeys(KIN.get(chain.task, chain.task) for chain in lists))
