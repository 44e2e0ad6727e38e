"""Does a label hold? Ablate the labelled heads, and as many random heads of the same layers, and see which costs the model more.

    harm      = how far the metric moves the bad way when the labelled heads are ablated
    control   = the same for `draws` sets of random other heads, as many in each layer (mean; spread: their standard deviation)

in three kinds of ablation, because they disagree (heads.md section 1): zero output; the mean output over natural text; uniform attention,
which is what the released code of Wu et al. does when it "masks" a head. A label is confirmed where the harm stands clear of the control;
a small model may well do a task by other heads, and then its labels say where heads look, no more. What each label is tested by stands in
`interp.heads.confirm_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from interp.errors import OptionError
from interp.heads.ablation import Kind, ablation, mean_outputs
from interp.heads.confirm_tasks import TASK_OF, TASKS, Task
from interp.heads.labels import labelled
from interp.heads.tables import named
from interp.interventions.controls import random_heads, within_half
from interp.interventions.where import Head
from interp.ledger import Ledger, Metrics
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import generator

MOST = 10
"""Heads of a label that are ablated together, the highest-scoring ones."""
LEDGER = "evaluations.json"


def confirm(
    model: HookedModel,
    heads: Mapping[str, Sequence[Head]] | Result,
    *,
    tasks: Mapping[str, Task] | None = None,
    kinds: Sequence[Kind] = get_args(Kind),
    draws: int = 5,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Ablate the heads of each label and random heads of the same layers.

    Args:
        model: a decoder with a tokenizer.
        heads: label -> heads; or a report (`interp.heads.report`), of which the 10 highest-scoring heads of each label are taken, at most
            half of a layer, so that random others are left in it.
        tasks: label -> task, None for those of `interp.heads.confirm_tasks` with their defaults.
        kinds: ways to ablate.
        draws: sets of random heads, at least 2.
        seed: of the draws, the tasks and the mean outputs.
        folder: keeps finished evaluations in `evaluations.json`, so that the same call goes on where it was interrupted.
        progress: called with (evaluations done, evaluations).

    Returns:
        Result "heads.confirm", one row per label, kind and metric: label, heads (as "layer.head ..."), kind, task, metric, better, base
        (unablated), ablated, control_mean, control_std, draws; score, the harm; control, the mean harm of random heads; spread, its
        standard deviation over draws. layer and head are -1: a row is about a set of heads. Arrays: control [row, draw], the harms.

    Raises:
        OptionError: an unknown kind, fewer than two draws, a label without a task, no heads, or too many heads of a layer.
    """
    for kind in kinds:
        named("kinds", kind, get_args(Kind))
    if draws < 2 or not kinds:
        raise OptionError(f"wanted draws >= 2 and at least one kind, got {draws} and {list(kinds)}")
    sets = {label: tuple(chosen) for label, chosen in _sets(heads, model.heads).items() if chosen}
    if not sets:
        raise OptionError(
            "no label has a head, so there is nothing to confirm; look at the raw scores, or at other thresholds"
        )
    chosen = dict(tasks) if tasks is not None else default_tasks(model, sets, seed=seed)
    if missing := sorted(set(sets) - set(chosen)):
        raise OptionError(f"no task for {', '.join(missing)}; give tasks={{label: Task}} (known: {', '.join(TASK_OF)})")
    means = mean_outputs(model, seed=seed) if "mean" in kinds else None
    controls = {
        label: [random_heads(group, model.heads, generator(seed, 1000 * n + draw)) for draw in range(draws)]
        for n, (label, group) in enumerate(sets.items())
    }
    record = {
        "model": model.manifest()["model"],
        "dtype": str(model.dtype),
        "heads": sets,
        "tasks": {label: {"task": chosen[label].name, **chosen[label].settings} for label in sets},
        "seed": seed,
    }
    ledger = Ledger(None if folder is None else Path(folder) / LEDGER, record)
    total, done = len({chosen[label].name for label in sets}) + len(sets) * len(kinds) * (1 + draws), 0

    def evaluate(name: str, task: Task, group: Sequence[Head], kind: Kind | None) -> Metrics:
        nonlocal done

        def measure() -> Metrics:
            if kind is None:
                return task.measure(model)
            with model.edit(ablation(group, kind, means)):
                return task.measure(model)

        found = ledger.get(name, measure)
        done += 1
        if progress is not None:
            progress(done, total)
        return found

    bases: dict[str, Metrics] = {}
    rows: list[dict[str, Any]] = []
    harms: list[list[float]] = []
    for label, group in sets.items():
        task = chosen[label]
        if task.name not in bases:
            bases[task.name] = evaluate(f"{task.name}: base", task, (), None)
        base = bases[task.name]
        for kind in kinds:
            ablated = evaluate(f"{label}: {kind}", task, group, kind)
            others = [evaluate(f"{label}: {kind}: draw {n}", task, x, kind) for n, x in enumerate(controls[label])]
            for metric, better in task.better.items():
                sign = 1.0 if better == "lower" else -1.0
                values = np.array([x[metric] for x in others])
                harm = sign * (values - base[metric])
                harms.append(harm.tolist())
                rows.append(
                    {
                        "layer": -1,
                        "head": -1,
                        "score": sign * (ablated[metric] - base[metric]),
                        "spread": harm.std(ddof=1),
                        "control": harm.mean(),
                        "label": label,
                        "heads": " ".join(f"{layer}.{head}" for layer, head in group),
                        "kind": kind,
                        "task": task.name,
                        "metric": metric,
                        "better": better,
                        "base": base[metric],
                        "ablated": ablated[metric],
                        "control_mean": values.mean(),
                        "control_std": values.std(ddof=1),
                        "draws": draws,
                    }
                )
    manifest = model.manifest() | {
        "method": "confirm",
        "source": "heads.md section 14; ablations: Michel et al. 2019, Wang et al. 2023, Wu et al. 2024",
        "settings": {"kinds": list(kinds), "draws": draws, "most": MOST, "tasks": record["tasks"]},
        "seed": seed,
        "controls": controls,
    }
    return Result(
        kind="heads.confirm", table=pd.DataFrame(rows), manifest=manifest, arrays={"control": np.array(harms)}
    )


def default_tasks(model: HookedModel, labels: Iterable[str], *, seed: int = 0) -> dict[str, Task]:
    """The task of each of the labels, one object per task; labels without one are left out."""
    wanted = {label: TASK_OF[label] for label in labels if label in TASK_OF}
    made = {name: TASKS[name](model, seed=seed) for name in dict.fromkeys(wanted.values())}
    return {label: made[name] for label, name in wanted.items()}


def _sets(heads: Mapping[str, Sequence[Head]] | Result, width: int) -> dict[str, list[Head]]:
    if isinstance(heads, Result):
        if "labels" not in heads.table.columns:
            raise OptionError(
                f"a {heads.kind} result has no labels; give a report (interp.heads.report), or label -> heads"
            )
        return {label: within_half(group, width, MOST) for label, group in labelled(heads.table).items()}
    return {label: [(int(a), int(b)) for a, b in group] for label, group in heads.items()}
