"""`report`: the whole taxonomy of a model's heads in one table: every score with its spread and control, and labels by rule.

Every analysis runs with its default settings at the length and seed of the report. Its result is kept in a folder and used again when the
settings agree, so that an interrupted report goes on, and another threshold costs nothing. What cannot be measured on a model (an encoder, a
model without a tokenizer, a context that is too short) is named with its reason, never left out in silence.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.errors import (
    CaptureError,
    CorruptFileError,
    InputDataError,
    OptionError,
    OutputError,
    ShapeError,
    TooLargeError,
    UnsupportedModelError,
)
from interp.heads.labels import LABELS, Rules, in_words, passes
from interp.heads.report_parts import PARTS, Part, Plan, Results, wide_columns
from interp.ledger import write_whole
from interp.models.hooked import HookedModel
from interp.results import Result

Progress = Callable[[str, int, int], None]
REPORT: Final = "report"
RESULTS: Final = "results"
NOT_MEASURED: Final = "not_measured.json"
CANNOT: Final = (CaptureError, InputDataError, OptionError, ShapeError, TooLargeError, UnsupportedModelError)
"""Errors that say that a part cannot be measured on this model; others stop the report."""


def report(
    model: HookedModel,
    *,
    folder: str | Path,
    tokens: int = 2048,
    samples: int = 10,
    parts: Sequence[str] | None = None,
    rules: Rules | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Run every analysis of heads, and label the heads by rule.

    Args:
        model: any hooked model; a decoder with a tokenizer for scores.
        folder: new, or of an earlier report, whose results are used again where model and settings agree. Holds `results/NAME` (one
            `Result` each) and `report` (the table), which `load_report` reads.
        tokens: length of the long inputs (text, longest needle prompt).
        samples: random sequences and pieces of text of the analyses that average over them.
        parts: names of the parts to run, None for all (`interp.heads.report_parts.PARTS`).
        rules: thresholds of the labels, None for those of heads.md section 14.
        seed: of everything drawn.
        progress: called with (part, steps done, steps).

    Returns:
        Result "heads.report", one row per head. For each analysis NAME, NAME_spread and NAME_control; `labels`, joined by ", ", which
        `interp.heads.labels` explains; score, the number of labels; control, the number of labels that the controls would earn by the
        same rules; spread, NaN. The manifest says for each part "measured", "used again" or "not measured", with seconds and reason.

    Raises:
        OptionError: an unknown part, fewer than two samples, or a length that the model cannot read.
        OutputError: the folder cannot be written, or holds something else.
    """
    rules = rules or Rules()
    chosen = _chosen(parts)
    if samples < 2 or tokens < 64:
        raise OptionError(f"wanted samples >= 2 and tokens >= 64, got {samples} and {tokens}")
    if model.context_length is not None and tokens > model.context_length:
        raise OptionError(
            f"tokens={tokens}, and the model reads {model.context_length}; give tokens={model.context_length} or fewer"
        )
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / RESULTS).is_dir():
        raise OutputError(f"{folder.name} holds something that is not a report; choose a new folder")
    plan = Plan(tokens=tokens, samples=samples, seed=seed)
    of_model = _of_model(model)
    results: Results = {}
    record: dict[str, dict[str, Any]] = {}
    for part in chosen:

        def say(done: int, total: int, name: str = part.name) -> None:
            if progress is not None:
                progress(name, done, total)

        key = {"model": of_model, "settings": part.settings(plan)}
        found, record[part.name] = _part(model, part, plan, key, folder, say)
        results |= found
    table = _table(model, chosen, results, rules)
    earned: Any
    by_controls: Any
    earned, by_controls = (passes(table, rules, controls=judged) for judged in (False, True))
    manifest = model.manifest() | {
        "method": "report",
        "source": "heads.md section 14; every analysis names its own in results/NAME/manifest.json",
        "settings": vars(plan) | {"parts": [part.name for part in chosen], "rules": asdict(rules)},
        "seed": seed,
        "parts": record,
        "labels": {name: int(earned[name].sum()) for name in LABELS},
        "labels_by_controls": {name: int(by_controls[name].sum()) for name in LABELS},
    }
    result = Result(kind="heads.report", table=table, manifest=manifest)
    _keep(folder / REPORT, result)
    return result


def load_report(folder: str | Path) -> tuple[Result, Results]:
    """Read a report from its folder: the wide table, and the results of its parts by name.

    Raises:
        OutputError: the folder holds no finished report.
        CorruptFileError: a file is damaged.
    """
    folder = Path(folder)
    if not (folder / REPORT / "manifest.json").exists():
        raise OutputError(
            f"{folder.name} holds no finished report; run `interp heads report MODEL --out {folder.name}`"
        )
    wide = Result.load(folder / REPORT)
    measured = [name for part in wide.manifest["parts"].values() for name in part["results"]]
    return wide, {name: Result.load(folder / RESULTS / name) for name in measured}


def _chosen(parts: Sequence[str] | None) -> list[Part]:
    known = {part.name: part for part in PARTS}
    unknown = [name for name in parts or () if name not in known]
    if unknown or (parts is not None and not parts):
        raise OptionError(f"parts must be among {', '.join(known)}; got {', '.join(unknown) or 'none'}")
    return [part for part in PARTS if parts is None or part.name in parts]


def _of_model(model: HookedModel) -> dict[str, Any]:
    """What makes kept results those of this model, as it is read back from JSON."""
    manifest = model.manifest()
    versions = {"interp": manifest["versions"]["interp"]}
    return json.loads(json.dumps({"model": manifest["model"], "dtype": manifest["dtype"], "versions": versions}))


def _part(
    model: HookedModel, part: Part, plan: Plan, key: Mapping[str, Any], folder: Path, say: Callable[[int, int], None]
) -> tuple[Results, dict[str, Any]]:
    """The results of a part, kept or new, and what the manifest says of it."""
    kept = _kept(folder, part, key)
    if kept is not None:
        seconds = next(iter(kept.values())).manifest["report"]["seconds"]
        return kept, {"outcome": "used again", "seconds": seconds, "results": list(part.gives)}
    refused = _refused(folder)
    if refused.get(part.name, {}).get("key") == key:
        return {}, _not_measured(refused[part.name]["reason"], refused[part.name]["seconds"])
    began = time.monotonic()
    try:
        if not _causal(model):
            raise UnsupportedModelError("the analyses of heads need a causal decoder, and this model is none")
        found = part.measure(model, plan, say)
    except CANNOT as error:
        seconds = round(time.monotonic() - began, 1)
        write_whole(
            folder / RESULTS / NOT_MEASURED,
            {**refused, part.name: {"key": key, "reason": str(error), "seconds": seconds}},
        )
        return {}, _not_measured(str(error), seconds)
    seconds = round(time.monotonic() - began, 1)
    kept = {name: _keep(folder / RESULTS / name, _noted(result, key, seconds)) for name, result in found.items()}
    return kept, {"outcome": "measured", "seconds": seconds, "results": list(part.gives)}


def _causal(model: HookedModel) -> bool:
    return not model.is_encoder_decoder and bool(model.hf.can_generate())


def _not_measured(reason: str, seconds: float) -> dict[str, Any]:
    return {"outcome": "not measured", "seconds": seconds, "reason": reason, "results": []}


def _kept(folder: Path, part: Part, key: Mapping[str, Any]) -> Results | None:
    """The results of a part if all are there, whole, and of the same model and settings."""
    found: Results = {}
    for name in part.gives:
        try:
            found[name] = Result.load(folder / RESULTS / name)
        except CorruptFileError:
            return None
        if found[name].manifest.get("report", {}).get("key") != key:
            return None
    return found


def _noted(result: Result, key: Mapping[str, Any], seconds: float) -> Result:
    """A result whose manifest says of which model and settings it is."""
    manifest = {**result.manifest, "report": {"key": key, "seconds": seconds}}
    return Result(kind=result.kind, table=result.table, manifest=manifest, arrays=result.arrays)


def _keep(place: Path, result: Result) -> Result:
    """Keep a result whole or not at all: it is written beside its place, and moved there."""
    beside = place.with_name(f".{place.name}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        result.save(beside)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(beside, place)
    except OSError as error:
        raise OutputError(f"cannot keep {place.name}: {error.strerror or error}; choose another folder") from error
    return result


def _refused(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS / NOT_MEASURED
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path.name} cannot be read ({error}); delete it and run the report again") from error


def _table(model: HookedModel, parts: Sequence[Part], results: Results, rules: Rules) -> pd.DataFrame:
    """The wide table: one row per head, columns of every part, labels."""
    heads = pd.MultiIndex.from_product([range(model.layers), range(model.heads)], names=["layer", "head"])
    columns: dict[str, Any] = {}
    for part in parts:
        for name in part.gives:
            if name in results:
                columns |= {new: x.reindex(heads) for new, x in wide_columns(part, name, results[name]).items()}
    table = pd.DataFrame(columns, index=heads).reset_index()
    earned, by_controls = passes(table, rules), passes(table, rules, controls=True)
    counts = {
        "score": earned.sum(axis=1).astype(float),
        "spread": np.full(len(table), np.nan),
        "control": by_controls.sum(axis=1).astype(float),
        "labels": in_words(earned),
    }
    front = pd.DataFrame({"layer": table["layer"], "head": table["head"], **counts})
    return pd.concat([front, table.drop(columns=["layer", "head"])], axis=1)
