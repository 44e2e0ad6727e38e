"""Comprehensiveness and sufficiency of a highlight, and their mean over sizes (AOPC), beside random and recent tokens.

With f(x) = p(target | x), R the highest-scored k % of the tokens before the last one (DeYoung et al. 2020, ERASER, arXiv 1911.03429):

    comprehensiveness   f(x) - f(x without R)        high: the highlight was needed
    sufficiency         f(x) - f(x with R alone)     low: the highlight was enough
    AOPC                the mean over k in {1, 5, 10, 20, 50} %, as in their code

Also in nats (`log`: the same with ln f), and for the whole distribution: KL(full || cut) and the change of its entropy (cut - full).

How tokens are removed: their keys are hidden from every row in every layer (`KnockOut`), rows renormalise, all other tokens keep their
positions. That is exact removal of what flows from a token by attention; what is out of distribution stays so, the known weakness of every
removal. The last token cannot be removed (its stream is what is read) and stays in both. A sink is special: hiding the first token breaks
many models whatever it says; `keep=(0,)` leaves it in everywhere, and the difference is worth looking at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from interp.errors import OptionError
from interp.explain.question import Question, Target, Text, ask, log_probabilities
from interp.explain.ranking import Scores, scores_of
from interp.explain.rollout import check_keys
from interp.interventions.knockout import KnockOut
from interp.interventions.places import as_spans
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator

SOURCE = "DeYoung et al. 2020, ERASER (arXiv 1911.03429)"
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of the tokens in ERASER's AOPC."""
AOPC = "AOPC"
EFFECTS = ("drop", "log", "kl", "entropy")


def faithfulness(
    model: HookedModel,
    prompt: Text,
    target: Target = None,
    *,
    scores: str | Scores = "rollout",
    shares: Sequence[float] = SHARES,
    keep: Sequence[int] = (),
    draws: int = 5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Comprehensiveness and sufficiency of the tokens that a method scores highest.

    Args:
        model, prompt, target: see `interp.explain.question.ask`.
        scores: a name of `interp.explain.ranking.METHODS`, or one number for each token.
        shares: of the tokens that can be removed, rounded up to whole tokens.
        keep: positions that are never removed.
        draws: random sets of each size, at least 2.
        seed: of those.
        progress: called with (forward passes done, passes).

    Returns:
        Result "explain.faithfulness", a row for each measure and size, AOPC last: measure, bin ("5 %", ... "AOPC"), share, count (tokens in the
        highlight); score (fall of the probability), control and spread (mean and standard deviation over random sets of the same size)
        and recency (the last tokens of the same size), and the same as log, kl and entropy with _control, _spread and _recency; layer and head
        are -1. Arrays: "scores" [position]; "order", positions by score, highest first; "random" [draw, measure, size, effect].

    Raises:
        OptionError: shares outside (0, 1], fewer than two draws, positions to keep that do not exist or leave none.
    """
    question = ask(model, prompt, target)
    check_keys("keep", keep, question.row)
    free = [position for position in range(question.row) if position not in set(keep)]
    if not free or draws < 2 or not shares or not all(0 < share <= 1 for share in shares):
        raise OptionError(
            f"wanted shares in (0, 1], at least two draws and a token that can be removed; got {list(shares)}, {draws} and {len(free)} tokens"
        )
    name, given = scores_of(model, question, scores)
    cut = Cut(model=model, question=question, free=tuple(free), full=log_probabilities(model, question.ids))
    counts = [math.ceil(share * len(free)) for share in shares]
    # Stable: of equal scores the earlier token comes first.
    order = sorted(free, key=lambda position: -given[position])
    orders = {"scores": order, "recency": free[::-1]}
    for draw in range(draws):
        orders[f"random {draw}"] = generator(seed, draw).permutation(free).tolist()
    found: dict[str, list[list[list[float]]]] = {}
    done, total = 0, 2 * len(counts) * len(orders)
    for label, ranked in orders.items():
        found[label] = [[], []]
        for count in counts:
            for measure, part in enumerate((ranked[:count], ranked[count:])):
                found[label][measure].append(cut.effects(part))
                done += 1
                if progress is not None:
                    progress(done, total)
    # [measure, size, effect], the mean over sizes appended as one more size.
    whole = {label: np.concatenate([x, np.mean(x, 1, keepdims=True)], 1) for label, x in found.items()}
    random = np.stack([whole[f"random {draw}"] for draw in range(draws)])
    rows: list[dict[str, Any]] = []
    for measure, said in enumerate(("comprehensiveness", "sufficiency")):
        for size, share in enumerate([*shares, None]):
            cells = {"": whole["scores"], "_control": random.mean(0), "_spread": random.std(0, ddof=1)}
            cells["_recency"] = whole["recency"]
            row: dict[str, Any] = {"layer": -1, "head": -1, "measure": said}
            row |= {"bin": AOPC if share is None else f"{100 * share:g} %", "share": np.nan if share is None else share}
            row["count"] = -1 if share is None else counts[size]
            for e, effect in enumerate(EFFECTS):
                row |= {_column(effect, suffix): x[measure, size, e] for suffix, x in cells.items()}
            rows.append(row)
    manifest = model.manifest() | {
        "method": "faithfulness",
        "source": SOURCE,
        "question": question.record(model),
        "settings": {
            "scores": name,
            "shares": list(shares),
            "keep": list(keep),
            "draws": draws,
            "removal": "keys hidden from every row in every layer (KnockOut), rows renormalised",
        },
        "seed": seed,
        "probability": float(cut.full[question.target].exp()),
    }
    arrays = {"scores": given, "order": np.asarray(order), "random": random}
    return Result(kind="explain.faithfulness", table=pd.DataFrame(rows), manifest=manifest, arrays=arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """What removing tokens of a question does.

    Attributes:
        model, question: what is asked.
        free: positions that may be removed.
        full: log-probabilities of the whole text, float64 [vocabulary].
    """

    model: HookedModel
    question: Question
    free: tuple[int, ...]
    full: Tensor

    def effects(self, removed: Sequence[int], rows: Sequence[int] | None = None) -> list[float]:
        """Fall of p, fall of ln p, KL(full || cut) and rise of the entropy, when these keys are hidden from `rows` (None: from all)."""
        if not removed:
            return [0.0] * len(EFFECTS)
        edit = KnockOut(keys=as_spans(removed), rows=None if rows is None else as_spans(rows))
        with self.model.edit(edit):
            cut = log_probabilities(self.model, self.question.ids)
        full, at = self.full, self.question.target
        kl = (full.exp() * (full - cut)).sum()
        entropy = (full.exp() * full).sum() - (cut.exp() * cut).sum()
        return [float(x) for x in (full[at].exp() - cut[at].exp(), full[at] - cut[at], kl, entropy)]


def _column(effect: str, suffix: str) -> str:
    """Name of a column; the fall of the probability is the score."""
    if effect != "drop":
        return effect + suffix
    return suffix.removeprefix("_") or "score"
