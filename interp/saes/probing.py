"""Sparse probing: can a few features tell what a few numbers of z can or cannot (Gurnee et al. 2023, arXiv 2305.01610; SAEBench)?

The tasks ship with the code: yes-no questions about a token that its text alone answers (is it a digit, did it occur before ...). For each,
rows of both answers in equal number are drawn, contexts never shared between training and test; the k features whose means differ most on the
training rows go into a logistic regression. Beside its accuracy stand the same probe on the k best numbers of z, one on all of z, and the
features' own on shuffled answers, which shows what chance gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import OptionError
from interp.saes.core import SAE
from interp.saes.store import Store

Answer = Callable[[Sequence[str], Sequence[int]], list[bool]]
"""Strings and ids of a context's tokens -> the answer for each token."""

TEST_SHARE = 0.2
"""Share of the contexts that the probes are tested on."""
FEWEST = 20
"""Rows of either answer below which a task is left out, in training or in test."""
COLUMNS = ("task", "k", "accuracy", "z_same_k", "z_all", "shuffled", "train", "test")


def _digit(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    return [any(c.isdigit() for c in s) for s in strings]


def _capital(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    return [s.lstrip()[:1].isupper() for s in strings]


def _word_start(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    return [s[:1] == " " and s[1:2].isalpha() for s in strings]


def _repeated(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    seen: set[int] = set()
    answers = []
    for i in ids:
        answers.append(i in seen)
        seen.add(i)
    return answers


def _after_repeated(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    return [False, *_repeated(strings, ids)[:-1]]


def _in_brackets(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    depth, answers = 0, []
    for s in strings:
        answers.append(depth > 0)
        depth = max(depth + sum(c in "([{" for c in s) - sum(c in ")]}" for c in s), 0)
    return answers


def _after_newline(strings: Sequence[str], ids: Sequence[int]) -> list[bool]:
    return [False, *("\n" in s for s in strings[:-1])]


TASKS: Final[Mapping[str, Answer]] = {
    "digit": _digit,
    "capital": _capital,
    "word start": _word_start,
    "repeated": _repeated,
    "after a repeated token": _after_repeated,
    "in brackets": _in_brackets,
    "after a line end": _after_newline,
}
"""Name of a task -> its answers. "in brackets" and "after a ..." are about what stands before the token, so attention must bring it."""


@torch.no_grad()
def sparse_probing(
    sae: SAE,
    store: Store,
    layer: int,
    strings: Callable[[Sequence[int]], Sequence[str]],
    *,
    ks: Sequence[int] = (1, 2, 5),
    rows: int = 5_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Probe an autoencoder on the tasks that ship.

    Args:
        sae: the autoencoder.
        store: a harvest of text.
        layer: which of its layers.
        strings: what each token id says (`HookedModel.tokens`).
        ks: numbers of features.
        rows: at most so many per task, both answers together, training and test together.
        seed: of the draws.

    Returns:
        One row per task and k: accuracy of k features, of the k best numbers of z, of all of z, of k features on shuffled answers (each on
        test rows, 0.5 is chance), and the numbers of training and test rows. Tasks with too few rows of one answer are left out.

    Raises:
        OptionError: ks below 1, or more than there are features or numbers.
    """
    if not ks or min(ks) < 1 or max(ks) > min(sae.config.d_sae, sae.config.d_in):
        raise OptionError(f"ks must be from 1 to {min(sae.config.d_sae, sae.config.d_in)}; got {list(ks)}")
    generator = np.random.default_rng(seed)
    z, context, answers = _labelled(store, layer, strings)
    test_contexts = generator.permutation(int(context.max()) + 1)[: max(int(TEST_SHARE * (int(context.max()) + 1)), 1)]
    is_test = np.isin(context, test_contexts)
    table = []
    for task, answer in answers.items():
        train = _balanced(answer, ~is_test, int(rows * (1 - TEST_SHARE)), generator)
        test = _balanced(answer, is_test, int(rows * TEST_SHARE), generator)
        if min(len(train), len(test)) < 2 * FEWEST:
            continue
        x = {name: z[torch.from_numpy(at)].float() for name, at in (("train", train), ("test", test))}
        f = {name: sae.encode(part).numpy() for name, part in x.items()}
        raw = {name: part.numpy() for name, part in x.items()}
        y, y_test = answer[train], answer[test]
        # Both sides are shuffled: a probe that learned noise would still cut two clear groups apart, one way or the other.
        noise, noise_test = generator.permutation(y), generator.permutation(y_test)
        whole = _accuracy(raw, y, y_test, raw["train"].shape[1])
        for k in ks:
            found = (
                _accuracy(f, y, y_test, k),
                _accuracy(raw, y, y_test, k),
                whole,
                _accuracy(f, noise, noise_test, k),
            )
            table.append((task, k, *found, len(train), len(test)))
    return pd.DataFrame(table, columns=list(COLUMNS))


def _labelled(
    store: Store, layer: int, strings: Callable[[Sequence[int]], Sequence[str]]
) -> tuple[Tensor, NDArray[Any], dict[str, NDArray[Any]]]:
    """All rows of a layer, the context that each is in, and each task's answers."""
    z, contexts, answers = [], [], {task: [] for task in TASKS}
    before = 0
    for shard in range(store.shards):
        tokens = store.tokens(shard)
        here = tokens.contexts
        said = [list(strings(ids)) for ids in here]
        for task, answer in TASKS.items():
            flat = np.array([a for s, ids in zip(said, here, strict=True) for a in answer(s, ids)], dtype=bool)
            answers[task].append(flat[tokens.rows.numpy()])
        z.append(store.z(layer, shard))
        contexts.append(tokens.context.numpy() + before)
        before += len(here)
    return torch.cat(z), np.concatenate(contexts), {task: np.concatenate(parts) for task, parts in answers.items()}


def _balanced(answer: NDArray[Any], among: NDArray[Any], rows: int, generator: np.random.Generator) -> NDArray[Any]:
    """Numbers of rows, as many of either answer, at most `rows`."""
    yes, no = (generator.permutation(np.flatnonzero(among & (answer == wanted))) for wanted in (True, False))
    half = min(len(yes), len(no), rows // 2)
    return np.concatenate([yes[:half], no[:half]])


def _accuracy(x: Mapping[str, NDArray[Any]], y: NDArray[Any], y_test: NDArray[Any], k: int) -> float:
    """Accuracy on the test rows of a logistic regression on the k columns whose means differ most."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    train, test = x["train"], x["test"]
    scale = train.std(0) + 1e-9
    difference = np.abs(train[y].mean(0) - train[~y].mean(0))
    best = np.argsort(-difference, kind="stable")[:k]
    model = LogisticRegression(max_iter=1000)
    model.fit(train[:, best] / scale[best], y)
    return float(model.score(test[:, best] / scale[best], y_test))
