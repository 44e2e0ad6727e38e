"""Long-prefix induction on real text: does a head lose its target when the match in front of it is cut to one token? (Kissane et al. 2024)

Where row t of a head gives more than 0.3 of its attention to a token j (never the first), the prefix is the number of tokens that match
backwards, from x[t] = x[j - 1] on. Where it is at least 2, the source-side token two before the attended one, x[j - 2], is replaced by
another, and the same cell is measured again:

    before      mean attention at (t, j)
    score       the same with x[j - 2] replaced                     a long-prefix head loses it, a short-prefix head keeps it
    control     the same with another token in front of t replaced, one that neither match holds

Published for GPT-2 small: 5.1 falls from 0.55 to 0.05, 5.5 keeps 0.43. One pass per text, two per cell and head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import InputDataError, OptionError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.sequences import ordinary_tokens

KIND = "saes.prefix_on_text"
ATTENDED, CASES = 0.3, 20
"""Attention above which a cell counts, and cells per head."""


def prefix_on_text(
    model: HookedModel,
    heads: Sequence[tuple[int, int]],
    contexts: Sequence[Sequence[int]],
    *,
    attended: float = ATTENDED,
    cases: int = CASES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Cut the match in front of what heads attend to, on text.

    Args:
        model: a decoder.
        heads: (layer, head) pairs, those that `long_prefix` tagged.
        contexts: token ids of each text.
        attended: attention above which a cell counts.
        cases: cells per head at most, drawn from all.
        seed: of the cells and of the tokens put in.
        progress: called with (heads done, heads).

    Returns:
        Result "saes.prefix_on_text", one row per head: score, spread (standard deviation over cells), control, before, cells (tried), found
        (with a prefix of 2 or more) and prefix_1 (with one of 1), over all texts. Scores of a head without a cell are NaN.

    Raises:
        OptionError: no heads, heads that do not exist, or no cases.
        InputDataError: no texts.
    """
    if not heads or cases < 1 or _bad(model, heads):
        raise OptionError(f"wanted heads of the model and cases >= 1; got {list(heads)} and {cases}")
    if not contexts:
        raise InputDataError("no texts given")
    given = [tuple(int(i) for i in ids) for ids in contexts]
    vocabulary = ordinary_tokens(model)
    layers = sorted({layer for layer, _ in heads})
    found: dict[tuple[int, int], list[tuple[int, int, int, int, float]]] = {head: [] for head in heads}
    for n, ids in enumerate(given):
        run = model.run(list(ids), layers=layers, collect=["entropy"], logits="none")
        for head in heads:
            weights = run.attention[head].dense()
            for t, j in (weights > attended).nonzero().tolist():
                if j > 0:
                    found[head].append((n, t, j, matching(ids, t, j), float(weights[t, j])))
    rows: list[dict[str, Any]] = []
    for k, head in enumerate(heads):
        random = np.random.default_rng([seed, *head])
        long = [case for case in found[head] if case[3] >= 2]
        some = [long[i] for i in random.permutation(len(long))[:cases]]
        after = np.array([_again(model, given[case[0]], case, head, vocabulary, random) for case in some]).reshape(
            -1, 2
        )
        rows.append(
            {
                "layer": head[0], "head": head[1],
                "score": _mean(after[:, 0]),
                "spread": float(np.std(after[:, 0], ddof=1)) if len(after) > 1 else np.nan,
                "control": _mean(after[:, 1]),
                "before": _mean(np.array([case[4] for case in some])),
                "cells": len(some), "found": len(long), "prefix_1": sum(case[3] == 1 for case in found[head]),
            }
        )  # fmt: skip
        if progress is not None:
            progress(k + 1, len(heads))
    manifest = model.manifest() | {
        "method": "prefix_on_text",
        "source": "long-prefix induction on text; Kissane et al. 2024 (arXiv 2406.17759)",
        "settings": {"texts": len(given), "tokens": sum(map(len, given)), "attended": attended, "cases": cases},
        "seed": seed,
    }
    return Result(kind=KIND, table=pd.DataFrame(rows), manifest=manifest)


def matching(ids: Sequence[int], row: int, key: int) -> int:
    """Number of tokens that match backwards, x[row] and x[key - 1] first; 0 for a key that is no follower of the row's token."""
    size = 0
    while key - 1 - size >= 0 and key - 1 < row and ids[row - size] == ids[key - 1 - size]:
        size += 1
    return size


def _bad(model: HookedModel, heads: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs that are no heads of the model."""
    return [(a, b) for a, b in heads if not (0 <= a < model.layers and 0 <= b < model.heads)]


def _again(
    model: HookedModel,
    ids: tuple[int, ...],
    case: tuple[int, int, int, int, float],
    head: tuple[int, int],
    vocabulary: np.ndarray,
    random: np.random.Generator,
) -> tuple[float, float]:
    """The cell with the match cut to 1, and with a token outside both matches replaced (NaN where there is none)."""
    _, t, j, size, _ = case
    held = {*range(t - size, t + 1), *range(j - 1 - size, j + 1), 0}
    free = [i for i in range(1, t) if i not in held]
    values = []
    for place in (j - 2, int(random.choice(free)) if free else None):
        if place is None:
            values.append(float("nan"))
            continue
        changed = list(ids[: t + 1])
        changed[place] = int(random.choice(np.setdiff1d(vocabulary, changed)))
        run = model.run(changed, layers=[head[0]], collect=["entropy"], logits="none")
        values.append(float(run.attention[head][t, j]))
    return values[0], values[1]


def _mean(x: np.ndarray) -> float:
    known = x[~np.isnan(x)]
    return float(known.mean()) if len(known) else float("nan")
