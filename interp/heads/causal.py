"""The causal test of retrieval heads: mask the top k of them, or k random heads of the same layers, and ask for the needle again.

Wu et al. 2024 (arXiv 2404.15574), section 3: masking the 30 strongest of 1,024 heads halves needle recall (43.5 against 88.3 with random
heads, read off their pictures; heads.md section 1). What this differs in, on purpose: the random heads come from the same layers, several
times, by seed; masking holds during the prefill as well as in the answer (theirs reaches the decode steps only); and the ways to mask are
named: their "masking" is uniform attention (`kind="uniform"`), the default here is a zero output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from interp.errors import OptionError
from interp.heads.ablation import Kind, ablation, mean_outputs
from interp.heads.confirm_tasks import Task, needle_task
from interp.heads.tables import named
from interp.interventions.controls import random_heads, within_half
from interp.interventions.where import Head
from interp.ledger import Ledger, Metrics
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator

COUNTS = (1, 5, 10, 20)
LEDGER = "causal_retrieval.json"


def causal_retrieval(
    model: HookedModel,
    result: Result,
    *,
    k: Sequence[int] = COUNTS,
    draws: int = 5,
    kind: Kind = "zero",
    task: Task | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Needle recall after masking the top k heads of a ranking, and after masking k random heads of the same layers.

    Args:
        model: a decoder with a tokenizer.
        result: ranks the heads by its score, e.g. of `interp.heads.retrieval`. At most half of a layer's heads are taken, so that random
            others are left; heads beyond that are passed over and counted in the manifest.
        k: how many heads to mask.
        draws: random sets for each k, at least 2.
        kind: how to mask.
        task: what to measure, None for `interp.heads.confirm_tasks.needle_task` with its defaults; its first metric is the score.
        seed: of the draws, the prompts and the mean outputs.
        folder: keeps finished evaluations, so that the same call goes on where it was interrupted.
        progress: called with (evaluations done, evaluations).

    Returns:
        Result "heads.causal_retrieval", one row per k: k, heads, metric, base, ablated, control_mean, control_std, draws; score, the recall
        that is lost; control, the mean loss with random heads; spread, its standard deviation over draws. layer and head are -1.
        Arrays: control [k, draw], the losses.

    Raises:
        OptionError: an unknown kind, k below 1 or beyond half of the heads, or fewer than two draws.
    """
    named("kind", kind, get_args(Kind))
    counts = sorted(set(k))
    ranked = [(layer, head) for layer, head, _ in result.top(model.layers * model.heads)]
    usable = within_half(ranked, model.heads)
    if draws < 2 or not counts or counts[0] < 1 or counts[-1] > len(usable):
        raise OptionError(
            f"wanted draws >= 2 and 1 <= k <= {len(usable)} (half of every layer), got {draws} and {list(k)}"
        )
    task = task or needle_task(model, seed=seed)
    metric, better = next(iter(task.better.items()))
    sign = 1.0 if better == "lower" else -1.0
    means = mean_outputs(model, seed=seed) if kind == "mean" else None
    record = {
        "model": model.manifest()["model"],
        "dtype": str(model.dtype),
        "ranking": usable,
        "task": {"task": task.name, **task.settings},
        "kind": kind,
        "seed": seed,
    }
    ledger = Ledger(None if folder is None else Path(folder) / LEDGER, record)
    done, total = 0, 1 + len(counts) * (1 + draws)

    def evaluate(name: str, heads: Sequence[Head]) -> float:
        nonlocal done

        def measure() -> Metrics:
            if not heads:
                return task.measure(model)
            with model.edit(ablation(heads, kind, means)):
                return task.measure(model)

        value = ledger.get(name, measure)[metric]
        done += 1
        if progress is not None:
            progress(done, total)
        return value

    base = evaluate("base", ())
    rows, losses = [], []
    for count in counts:
        top = usable[:count]
        ablated = evaluate(f"top {count}", top)
        values = np.array(
            [
                evaluate(f"random {count}: draw {n}", random_heads(top, model.heads, generator(seed, 1000 * count + n)))
                for n in range(draws)
            ]
        )
        loss = sign * (values - base)
        losses.append(loss)
        rows.append(
            {
                "layer": -1,
                "head": -1,
                "score": sign * (ablated - base),
                "spread": loss.std(ddof=1),
                "control": loss.mean(),
                "k": count,
                "heads": " ".join(f"{layer}.{head}" for layer, head in top),
                "kind": kind,
                "metric": metric,
                "base": base,
                "ablated": ablated,
                "control_mean": values.mean(),
                "control_std": values.std(ddof=1),
                "draws": draws,
            }
        )
    manifest = model.manifest() | {
        "method": "causal_retrieval",
        "source": "Wu et al. 2024 (arXiv 2404.15574), section 3",
        "settings": {"k": counts, "draws": draws, "kind": kind, "task": record["task"], "ranked_by": result.kind},
        "seed": seed,
        "passed_over": len([head for head in ranked[: counts[-1]] if head not in usable]),
    }
    return Result(
        kind="heads.causal_retrieval", table=pd.DataFrame(rows), manifest=manifest, arrays={"control": np.stack(losses)}
    )
