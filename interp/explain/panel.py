"""The minimum honesty panel: what has to stand beside a picture of highlighted tokens before anything is claimed from it.

    comprehensiveness   p lost when the highlighted tokens are removed                  beside random and recent tokens
    sufficiency         p lost when only they are left (low is good)                    beside random and recent tokens
    edges               ln p lost when only the edges last row -> highlight are cut     beside random and recent tokens
    disagreement        distance of plain and norm-weighted attention in the last row   beside shuffled norms
    sink mass           weight of the last row on the first token                       beside the share 1 / n of uniform attention

The last two are means over all heads, their spread over heads. No verdict is drawn: `beaten` is the share of random sets that the highlight
does better than, and what to call "better than chance" is the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import OptionError
from interp.explain.faithfulness import EFFECTS, Cut
from interp.explain.norms import norms
from interp.explain.question import Target, Text, ask, log_probabilities
from interp.explain.ranking import Scores, recent, scores_of
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator

SOURCE = "DeYoung et al. 2020; Geva et al. 2023 (arXiv 2304.14767); Kobayashi et al. 2020"
SHARE = 0.1
"""Share of the tokens in a highlight."""


def panel(
    model: HookedModel,
    prompt: Text,
    target: Target = None,
    *,
    scores: str | Scores = "rollout",
    share: float = SHARE,
    draws: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Check one highlight, the `share` of tokens that a method scores highest, in every way of the module's list.

    Args:
        model, prompt, target: see `interp.explain.question.ask`.
        scores: a name of `interp.explain.ranking.METHODS`, or one number for each token.
        share: of the tokens before the last one, rounded up, in (0, 1).
        draws: random sets, at least 2.
        seed: of those and of the shuffled norms.
        progress: called with (sets of tokens done, sets).

    Returns:
        Result "explain.panel", a row for each check: check, score, control and spread (of random sets; for the last two checks see the module),
        recency, beaten (share of random sets that do worse; NaN for the last two), unit; layer and head are -1. Arrays: "scores"
        [position], "highlight" positions, "random" [draw, check] of the first three checks.

    Raises:
        OptionError: a share outside (0, 1), fewer than two draws, or a text in which the highlight is everything.
    """
    if not 0 < share < 1 or draws < 2:
        raise OptionError(f"wanted a share in (0, 1) and draws >= 2, got {share} and {draws}")
    question = ask(model, prompt, target)
    name, given = scores_of(model, question, scores)
    free = tuple(range(question.row))
    count = math.ceil(share * len(free))
    if count >= len(free):
        raise OptionError(f"{share:g} of {len(free)} tokens is all of them; give a longer text or a smaller share")
    cut = Cut(model=model, question=question, free=free, full=log_probabilities(model, question.ids))
    total, done = draws + 2, 0

    def measure(order: list[int]) -> list[float]:
        nonlocal done
        top, rest = order[:count], order[count:]
        found = [
            cut.effects(top)[EFFECTS.index("drop")],
            cut.effects(rest)[EFFECTS.index("drop")],
            cut.effects(top, rows=(question.row,))[EFFECTS.index("log")],
        ]
        done += 1
        if progress is not None:
            progress(done, total)
        return found

    def highest(x: Scores) -> list[int]:
        return sorted(free, key=lambda position: -x[position])

    order = highest(given)
    ours, late = np.array(measure(order)), measure(highest(recent(model, question)))
    random = np.array([measure(generator(seed, d).permutation(free).tolist()) for d in range(draws)])
    # Sufficiency is better when it is lower.
    worse = np.stack([random[:, 0] < ours[0], random[:, 1] > ours[1], random[:, 2] < ours[2]], 1).mean(0)
    rows: list[dict[str, Any]] = []
    for n, (check, unit) in enumerate(
        (("comprehensiveness", "probability"), ("sufficiency", "probability"), ("edges", "nats"))
    ):
        rows.append(
            {
                "check": check,
                "score": ours[n],
                "spread": random[:, n].std(ddof=1),
                "control": random[:, n].mean(),
                "recency": late[n],
                "beaten": worse[n],
                "unit": unit,
            }
        )
    weighted = norms(model, prompt, question.target, seed=seed)
    heads: Any = weighted.table
    rows += [
        _of_heads("disagreement", heads["score"], float(heads["control"].mean()), "total variation"),
        _of_heads("sink mass", heads["first_weight"], 1.0 / len(question.ids), "weight"),
    ]
    table = pd.DataFrame(rows)
    table.insert(0, "layer", -1)
    table.insert(1, "head", -1)
    manifest = model.manifest() | {
        "method": "panel",
        "source": SOURCE,
        "question": question.record(model),
        "settings": {"scores": name, "share": share, "count": count, "draws": draws},
        "seed": seed,
        "probability": float(cut.full[question.target].exp()),
        "highlight": [{"position": at, "token": model.tokens([question.ids[at]])[0]} for at in order[:count]],
    }
    arrays = {"scores": given, "highlight": np.asarray(order[:count]), "random": random}
    return Result(kind="explain.panel", table=table, manifest=manifest, arrays=arrays)


def _of_heads(check: str, values: Any, control: float, unit: str) -> dict[str, Any]:
    found = {"check": check, "score": float(values.mean()), "spread": float(values.std(ddof=1)), "control": control}
    return found | {"recency": np.nan, "beaten": np.nan, "unit": unit}
