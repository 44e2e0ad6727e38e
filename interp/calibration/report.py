"""`calibrate`: search on one side of a task, report on the other, beside random heads and, for ACT, random keys.

    gain      = metric with the selected heads calibrated together, less the metric of the model as it is, mean over held-out prompts
    low, high = 95 % bootstrap interval of the gain: prompts are drawn with replacement, both scores of a prompt together (paired)
    control   = the same gain for random other heads of the same layers with the same settings, mean of several draws; spread: their standard
                deviation. For ACT also: the selected heads, with random keys of the same mass in place of the sinks that it finds

Metrics: accuracy (the right option has the largest logit of the options), option log-probability (of the right one among the options; what
the search goes by), and log-probability (over the whole vocabulary), in nats. Heads are selected one by one and calibrated together; the
column `search` has the gain of the set on the prompts that chose it, which is where selection flatters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.calibration.controls import RandomKeys, random_settings, with_random_keys
from interp.calibration.methods import METHODS, Method, var
from interp.calibration.search import HEADS, Selection, describe, in_force_now, search, selected
from interp.calibration.tasks import CalibrationTask
from interp.calibration.variants import OPTIONS, option_scores
from interp.errors import OptionError
from interp.interventions.act import ACT
from interp.interventions.answers import answer_states, scores_of
from interp.interventions.readout import Readout
from interp.interventions.saved import to_json
from interp.interventions.where import HeadEdit
from interp.ledger import Ledger
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt, generator

METRICS: Final = ("accuracy", "option log-probability", "log-probability")
DRAWS: Final = 5
RESAMPLES: Final = 10_000
LEVEL: Final = 0.95
LEDGER: Final = "held_out.json"
Scores = NDArray[np.float64]
"""[metric, prompt], metrics as in `METRICS`."""


def calibrate(
    model: HookedModel,
    task: CalibrationTask,
    *,
    method: str | Method = "act",
    heads: int | None = HEADS,
    layers: Sequence[int] | None = None,
    selection: Selection | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Search heads to calibrate, and test them on prompts that the search has not seen.

    Args:
        model: a decoder.
        task: prompts of both sides; see `interp.calibration.TASKS`.
        method: a name of `interp.calibration.METHODS` with its defaults ("var" takes the task's marked group), or a `Method`.
        heads: how many heads the search verifies exactly, None for all.
        layers: layers to search, None for all.
        selection: which heads to keep, None for any gain of option log-probability.
        draws: random sets of each control, at least 2.
        seed: of controls, sign flips and resamples.
        folder: keeps finished passes, so that the same call goes on where it was interrupted.
        progress: called with (part, done, of), parts "search" and "held out".

    Returns:
        Result "calibration", one row per metric and control: metric, base, calibrated; score, the gain; low, high; control, the mean gain of the
        control; spread, its standard deviation over draws; against ("random heads", "random keys"), search, draws, heads (how many),
        mass (of the random keys over that of the sinks: where nearly every key is a sink, as in short prompts, there is not as much left, and this
        control is weaker the further it is below 1). layer and
        head are -1: a row is about a set of heads. Where no head was kept, calibrated is base and there is nothing to control. Manifest:
        "heads", the verified heads with their gains; "controls"; "edits", what `save_calibration` writes.
        Arrays: base, calibrated [metric, prompt]; random_heads, random_keys [draw, metric, prompt]; and the search's, "search_" before them.

    Raises:
        EditError: a method whose interventions cannot be saved.
        OptionError: an unknown method, fewer than two draws, or a method that wants a group where the task marks none.
        UnsupportedModelError, CaptureError: as `search`.
    """
    if draws < 2:
        raise OptionError(f"wanted at least 2 draws of random sets, got {draws}")
    chosen = method if isinstance(method, Method) else method_for(method, task)
    to_json(chosen.edits({(0, 0): chosen.settings[0]}))  # what cannot be saved is refused before anything is measured
    tell = progress or (lambda part, done, total: None)
    rule = selection or Selection()
    found = search(
        model,
        task.search,
        chosen,
        heads=heads,
        layers=layers,
        selection=rule,
        seed=seed,
        folder=folder,
        progress=lambda done, total: tell("search", done, total),
    )
    kept = selected(found)
    edits = chosen.edits(kept)
    controls = {"random heads": [random_settings(kept, model.heads, generator(seed, n)) for n in range(draws)]}
    sets: dict[str, list[tuple[HeadEdit, ...]]] = {}
    if kept:
        sets["random heads"] = [chosen.edits(x) for x in controls["random heads"]]
    random_keys: list[tuple[RandomKeys, ...]] = []
    if kept and all(type(e) is ACT for e in edits):
        random_keys = [with_random_keys(edits, seed * draws + n) for n in range(draws)]
        sets["random keys"] = [tuple(x) for x in random_keys]
    record = {
        "model": model.manifest()["model"],
        "dtype": str(model.dtype),
        "interventions": in_force_now(),
        "method": describe(chosen),
        "prompts": [[list(p.ids), p.answer[0], list(p.choices[OPTIONS])] for p in task.held_out],
        "search": [list(p.ids) for p in task.search],
    }
    ledger = Ledger(None if folder is None else Path(folder) / LEDGER, record)
    readout = Readout(model)
    total, done = 1 + bool(kept) * 2 + sum(map(len, sets.values())), 0

    def measured(name: str, prompts: Sequence[Prompt], interventions: Sequence[HeadEdit]) -> Scores:
        nonlocal done
        cell = ledger.get(name, lambda: _cell(evaluate(readout, prompts, interventions), interventions))
        done += 1
        tell("held out", done, total)
        return np.array([[cell[f"{metric} {k}"] for k in range(len(prompts))] for metric in METRICS])

    said = " ".join(f"{layer}.{head}@{setting:g}" for (layer, head), setting in sorted(kept.items()))
    base = measured("base", task.held_out, ())
    calibrated = measured(f"calibrated {said}", task.held_out, edits) if kept else base
    on_search = measured(f"on the search side {said}", task.search, edits) if kept else None
    drawn: dict[str, list[Scores]] = {
        name: [measured(f"{name} {n} of seed {seed}: {said}", task.held_out, x) for n, x in enumerate(some)]
        for name, some in sets.items()
    }
    flattered = _search_gains(found, on_search)
    reached = [ledger.cells[f"random keys {n} of seed {seed}: {said}"]["reached"] for n in range(len(random_keys))]
    rows = [
        _row(number, metric, base, calibrated, against, drawn.get(against, []), seed)
        | {"search": flattered.get(metric, np.nan), "draws": len(drawn.get(against, [])), "heads": len(kept)}
        | {"mass": float(np.mean(reached)) if against == "random keys" else np.nan}
        for against in (sets or {"random heads": []})
        for number, metric in enumerate(METRICS)
    ]
    table: Any = found.table[found.table["verified"]]
    manifest = model.manifest() | {
        "method": chosen.name,
        "source": "search and held-out test of attention calibration (ACT: arXiv 2406.15765), controls of the same size and mass",
        "task": {"name": task.name, **task.settings},
        "settings": {
            "calibration": describe(chosen),
            "chance": task.chance,
            "prompts": {"search": len(task.search), "held out": len(task.held_out)},
            "draws": draws,
            "resamples": RESAMPLES,
            "level": LEVEL,
            **{name: found.manifest["settings"][name] for name in ("layers", "heads", "selection", "interventions")},
        },
        "seed": seed,
        "candidates": found.manifest["candidates"],
        "moved": found.manifest["moved"],
        "heads": [{str(k): _plain(v) for k, v in row.items()} for row in table.to_dict("records")],
        "controls": {name: [_named(x) for x in some] for name, some in controls.items()}
        | ({"random keys: mass over that of the sinks": reached} if reached else {}),
        "calibrated": _named(kept),
        "edits": json.loads(to_json(edits)) if kept else None,
    }
    arrays = {"base": base, "calibrated": calibrated}
    arrays |= {name.replace(" ", "_"): np.stack(some) for name, some in drawn.items()}
    arrays |= {f"search_{name}": x for name, x in found.arrays.items()}
    return Result(kind="calibration", table=pd.DataFrame(rows), manifest=manifest, arrays=arrays)


def method_for(name: str, task: CalibrationTask) -> Method:
    """A method by name with its defaults; "var" with the group that the task marks.

    Raises:
        OptionError: an unknown method, or no group.
    """
    if name not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}; got {name!r}")
    if name != "var":
        return METHODS[name]()
    if task.group is None:
        raise OptionError(
            f"{task.name} marks no group of tokens that all its prompts share; give method=interp.calibration.var(group)"
        )
    return var((task.group,))


def evaluate(readout: Readout, prompts: Sequence[Prompt], interventions: Sequence[HeadEdit] = ()) -> Scores:
    """Accuracy, option log-probability and log-probability of each prompt, under interventions: float64 [metric, prompt].

    Args:
        readout: of the model.
        prompts: with choices "options".
        interventions: none to measure the model as it is.
    """
    if interventions:
        with readout.model.edit(*interventions):
            return evaluate(readout, prompts)
    states = answer_states(readout, prompts)
    scores = scores_of(readout, prompts, states, choices=OPTIONS)
    with torch.no_grad():
        among, _ = option_scores(readout, prompts, torch.cat(states))
    return np.stack([scores.correct.astype(np.float64), among.double().cpu().numpy(), scores.logprob])


def bootstrap(
    gains: NDArray[np.float64], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired gains [prompt]: the prompts are drawn with replacement."""
    draws = np.random.default_rng(seed).integers(len(gains), size=(resamples, len(gains)))
    low, high = np.quantile(gains[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _row(
    number: int, metric: str, base: Scores, calibrated: Scores, against: str, drawn: list[Scores], seed: int
) -> dict[str, Any]:
    """One metric beside one control."""
    gains = calibrated[number] - base[number]
    low, high = bootstrap(gains, seed=seed)
    controls = np.array([(x[number] - base[number]).mean() for x in drawn])
    return {
        "layer": -1,
        "head": -1,
        "score": gains.mean(),
        "spread": controls.std(ddof=1) if drawn else np.nan,
        "control": controls.mean() if drawn else np.nan,
        "metric": metric,
        "base": base[number].mean(),
        "calibrated": calibrated[number].mean(),
        "low": low,
        "high": high,
        "against": against,
    }


def _search_gains(found: Result, on_search: Scores | None) -> dict[str, float]:
    """Gain of the set on the search's own prompts, of the metrics that the search has of the model as it is."""
    if on_search is None:
        return {}
    base = {METRICS[0]: found.arrays["base_correct"], METRICS[1]: found.arrays["base_logprob"]}
    return {metric: float(on_search[METRICS.index(metric)].mean() - x.mean()) for metric, x in base.items()}


def _cell(scores: Scores, interventions: Sequence[HeadEdit]) -> dict[str, float]:
    """Scores as a ledger keeps them, and how near random keys came to the mass of the sinks."""
    cell = {f"{m} {k}": float(x) for m, row in zip(METRICS, scores, strict=True) for k, x in enumerate(row)}
    ratios = [x for e in interventions if isinstance(e, RandomKeys) for x in e.reached]
    return cell | ({"reached": float(np.mean(ratios)) if ratios else np.nan} if _has_random_keys(interventions) else {})


def _has_random_keys(interventions: Sequence[HeadEdit]) -> bool:
    return any(isinstance(e, RandomKeys) for e in interventions)


def _named(heads: Mapping[tuple[int, int], float]) -> dict[str, float]:
    return {f"{layer}.{head}": setting for (layer, head), setting in heads.items()}


def _plain(value: Any) -> Any:
    """A value of a table as JSON has it; NaN is None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
