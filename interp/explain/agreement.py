"""How far two scores of the same tokens agree in rank. Agreement only: it says nothing about whether either is faithful.

Two methods can agree and both be wrong, and methods that disagree can both be right about different questions; "Song of (Dis)agreement" (Neely et al.
2022) finds none that agree strongly on transformers and warns against reading rank correlation as faithfulness. Hence a table of
pairs, without a verdict; what judges an explanation is `interp.explain.faithfulness`.

    kendall    tau-b, ties corrected
    spearman   Pearson correlation of the mid-ranks
    top-k      1 - K / K_max, K the Kendall distance of the two top-k lists with penalty p = 0.5 (Fagin et al. 2003, "Comparing top k lists"):
               1 for each pair that both lists order and order differently, or that shows one list to be wrong; p for each pair of which both
               members are in one list only, and neither in the other. K_max = k^2 + p k (k - 1), of disjoint lists. In [0, 1]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.errors import OptionError, ShapeError
from interp.explain.question import Target, Text, ask
from interp.explain.ranking import METHODS, Scores, scores_of
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator

PENALTY: Final = 0.5
ROWS = 512
"""Rows of the table of pairs that are compared at a time."""
LABEL: Final = "agreement in rank only; not a measure of faithfulness"


def agreement(
    model: HookedModel,
    prompt: Text,
    target: Target = None,
    *,
    methods: Sequence[str] | Mapping[str, Scores] = tuple(METHODS),
    top: int = 10,
    draws: int = 20,
    seed: int = 0,
) -> Result:
    """Rank agreement of every pair of methods on the tokens before the last one.

    Args:
        model, prompt, target: see `interp.explain.question.ask`.
        methods: names of `interp.explain.ranking.METHODS`, or scores by name.
        top: length of the top lists; no longer than the text.
        draws: shuffles of the second method's scores for the control, at least 2.
        seed: of those.

    Returns:
        Result "explain.agreement", a row for each pair: first, second, score (Kendall's tau-b), control and spread (mean and standard
        deviation of tau-b after shuffling), spearman, top_k, label; layer and head are -1. Arrays: the scores by name.

    Raises:
        OptionError: fewer than two methods or draws, top below 1, or an unknown method.
    """
    question = ask(model, prompt, target)
    given = dict(methods) if isinstance(methods, Mapping) else {name: name for name in methods}
    if len(given) < 2 or draws < 2 or top < 1:
        raise OptionError(f"wanted at least two methods, draws >= 2 and top >= 1; got {list(given)}, {draws} and {top}")
    scores = {name: scores_of(model, question, x)[1] for name, x in given.items()}
    rows: list[dict[str, Any]] = []
    for n, (a, b) in enumerate(combinations(scores, 2)):
        x, y = scores[a][:-1], scores[b][:-1]
        draw = generator(seed, n)
        shuffled = [kendall(x, draw.permutation(y)) for _ in range(draws)]
        rows.append(
            {
                "layer": -1,
                "head": -1,
                "first": a,
                "second": b,
                "score": kendall(x, y),
                "spread": np.std(shuffled, ddof=1),
                "control": np.mean(shuffled),
                "spearman": spearman(x, y),
                "top_k": top_agreement(x, y, min(top, len(x))),
                "label": LABEL,
            }
        )
    manifest = model.manifest() | {
        "method": "agreement",
        "source": "Fagin et al. 2003; Neely et al. 2022",
        "question": question.record(model),
        "settings": {"methods": list(scores), "top": top, "penalty": PENALTY, "draws": draws},
        "seed": seed,
        "label": LABEL,
    }
    return Result(kind="explain.agreement", table=pd.DataFrame(rows), manifest=manifest, arrays=scores)


def kendall(x: Scores, y: Scores) -> float:
    """Kendall's tau-b in [-1, 1], NaN if one side is all ties; O(n^2) time, O(n) memory."""
    _same_length(x, y)
    both = ties_x = ties_y = 0.0
    n = len(x)
    for start in range(0, n, ROWS):
        i = np.arange(start, min(start + ROWS, n))[:, None]
        later = np.arange(n) > i
        dx, dy = (np.sign(z[None] - z[i]) * later for z in (x, y))
        both += float((dx * dy).sum())
        ties_x += float(((dx == 0) & later).sum())
        ties_y += float(((dy == 0) & later).sum())
    pairs = n * (n - 1) / 2
    scale = np.sqrt((pairs - ties_x) * (pairs - ties_y))
    return both / scale if scale > 0 else float("nan")


def spearman(x: Scores, y: Scores) -> float:
    """Spearman's rho in [-1, 1], NaN if one side is all ties."""
    _same_length(x, y)
    a, b = (r - r.mean() for r in (_midranks(x), _midranks(y)))
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def top_agreement(x: Scores, y: Scores, k: int) -> float:
    """Agreement of the two top-k lists in [0, 1]; of equal scores the earlier token is listed first.

    Raises:
        OptionError: k outside 1 to n.
    """
    _same_length(x, y)
    if not 1 <= k <= len(x):
        raise OptionError(f"k: wanted 1 to {len(x)}, got {k}")
    places = [{int(t): place for place, t in enumerate(np.argsort(-z, kind="stable")[:k])} for z in (x, y)]
    distance = 0.0
    for i, j in combinations(sorted(set(places[0]) | set(places[1])), 2):
        orders = [_order(list_, i, j) for list_ in places]
        if None in orders:
            # Both in one list, neither in the other: which way the other has them is not known.
            distance += PENALTY
        else:
            distance += orders[0] != orders[1]
    most = k * k + PENALTY * k * (k - 1)
    return 1.0 - distance / most


def _order(places: Mapping[int, int], i: int, j: int) -> int | None:
    """-1 if i stands before j, 1 if behind, None if neither is listed; what is not listed stands behind what is."""
    if i not in places and j not in places:
        return None
    return -1 if places.get(i, len(places)) < places.get(j, len(places)) else 1


def _midranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    values, number, count = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return (ends - (count - 1) / 2)[number] if len(values) else x


def _same_length(x: Scores, y: Scores) -> None:
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ShapeError(f"wanted two scores of the same two or more tokens, got shapes {x.shape} and {y.shape}")
