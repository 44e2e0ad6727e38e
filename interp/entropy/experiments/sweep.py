"""All trainings of an experiment, one after the other, each kept when it is finished, so that the same command goes on from there.

A folder holds

    runs/NAME.parquet          the monitor's readings of a run: one row per measured step, layer and head
    runs/NAME.losses.parquet   its loss at every step
    runs/NAME.json             its outcome, written last: a run without it is trained again
    outcomes.csv               one row per run
    sinks.csv                  Sink_1 over steps, where it was measured
    manifest.json              the experiment and what it was run with
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.entropy.experiments.config import Experiment, Variant
from interp.entropy.experiments.outcome import behind, departs, first_alarm, lead, smoothed
from interp.entropy.experiments.train import Training, train, untrained_loss
from interp.errors import CorruptFileError, OutputError, PlanMismatchError
from interp.tasks.corpus import corpus, record

Count = Callable[[str, int, int], None]
STEPS = ("first_alarm", "first_collapse", "departs", "behind", "lead_departs", "lead_behind")
"""Columns of the outcomes that are steps, or empty."""
VERSIONS = ("interp", "torch", "scikit-learn")


def run_experiment(experiment: Experiment, folder: str | Path, *, progress: Count | None = None) -> pd.DataFrame:
    """Train what is not trained yet, and write the tables.

    Args:
        experiment: what to train.
        folder: of this experiment: new, or with earlier runs of it.
        progress: called with (run, steps done, steps in all).

    Returns:
        The outcomes, one row per run, as in outcomes.csv: the variant's columns; held_out_loss and held_out_accuracy; final_loss and
        lowest_loss, smoothed; lowest_entropy, the least mean entropy of any layer; first_alarm (drop, collapse or nonfinite), first_collapse
        (of that kind alone), departs and behind, lead_departs and lead_behind (from the first alarm), steps or empty; alarms, by kind; seconds.

    Raises:
        PlanMismatchError: the folder holds runs with other settings.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    say = progress or (lambda name, done, total: None)
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        _claim(experiment, folder)
        missing = [variant for variant in experiment.variants() if not _done(experiment, variant, folder)]
        for variant in missing:
            began = perf_counter()
            done = train(experiment, variant, progress=partial(say, variant.name))
            _keep(experiment, variant, done, perf_counter() - began, folder)
        table = outcomes(experiment, folder)
        table.to_csv(folder / "outcomes.csv", index=False, float_format="%.6g")
        sinks = sink_table(experiment, folder)
        if len(sinks):
            sinks.to_csv(folder / "sinks.csv", index=False, float_format="%.6g")
        if missing:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            _write(folder / "manifest.json", {**manifest, "finished": _now()})
    except OSError as error:
        raise OutputError(f"cannot write to {folder.name}: {error.strerror or error}; choose another folder") from error
    return table


def outcomes(experiment: Experiment, folder: str | Path) -> pd.DataFrame:
    """The outcomes of the runs that are finished; see `run_experiment`."""
    folder = Path(folder)
    found = [(v, _record(folder, v)) for v in finished(experiment, folder)]
    losses = {v: losses_of(folder, v) for v, _ in found}
    rows: list[dict[str, Any]] = []
    for variant, record_ in found:
        curve = losses[variant]
        remedied = [v for v in losses if v.remedy != "none" and _apart_from_remedy(v) == _apart_from_remedy(variant)]
        others = [losses[v] for v in remedied if len(losses[v]) == experiment.steps]
        untrained = untrained_loss(experiment)
        gone = departs(curve, untrained=untrained)
        padded = np.pad(curve, (0, experiment.steps - len(curve)), constant_values=np.nan)
        late = behind(padded, others, untrained=untrained)
        late = late if variant.remedy == "none" else None
        smooth = smoothed(curve)
        rows.append(
            {
                **asdict(variant),
                "held_out_loss": record_["held_out_loss"],
                "held_out_accuracy": record_["held_out_accuracy"],
                "final_loss": float(smooth[-1]),
                "lowest_loss": float(np.nanmin(smooth)),
                "lowest_entropy": record_["lowest_entropy"],
                "first_alarm": record_["first_alarm"],
                "first_collapse": min((a["step"] for a in record_["alarms"] if a["kind"] == "collapse"), default=None),
                "departs": gone,
                "behind": late,
                "lead_departs": lead(record_["first_alarm"], gone),
                "lead_behind": lead(record_["first_alarm"], late),
                "alarms": " ".join(f"{kind}:{n}" for kind, n in sorted(record_["alarm_kinds"].items())),
                "seconds": record_["seconds"],
            }
        )
    table = pd.DataFrame(rows)
    return table.astype(dict.fromkeys((c for c in STEPS if c in table), "Int64"))


def sink_table(experiment: Experiment, folder: str | Path) -> pd.DataFrame:
    """Sink_1 over steps of every finished run: the variant's columns, step, sink_1_EPS ..., alpha_1."""
    folder = Path(folder)
    done = finished(experiment, folder)
    return pd.DataFrame([{**asdict(v), **row} for v in done for row in _record(folder, v)["sinks"]])


def read_experiment(folder: str | Path) -> Experiment:
    """The experiment that a folder is of.

    Raises:
        CorruptFileError: no readable manifest.
    """
    folder = Path(folder)
    try:
        return Experiment.of(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["experiment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{folder.name} holds no readable manifest of an experiment ({error}); choose the folder that "
            "`interp entropy train` wrote, or a new one"
        ) from error


def finished(experiment: Experiment, folder: str | Path) -> list[Variant]:
    """The runs that are done, in the order of the sweep."""
    return [variant for variant in experiment.variants() if _done(experiment, variant, Path(folder))]


def alarm_of(folder: str | Path, variant: Variant) -> int | None:
    """Step of the first alarm that means collapse of a finished run, None without one."""
    return _record(Path(folder), variant)["first_alarm"]


def readings_of(folder: str | Path, variant: Variant) -> pd.DataFrame:
    """The monitor's readings of a finished run."""
    return pd.read_parquet(Path(folder) / "runs" / f"{variant.name}.parquet")


def losses_of(folder: str | Path, variant: Variant) -> NDArray[np.float64]:
    """The loss of every step of a finished run."""
    return pd.read_parquet(Path(folder) / "runs" / f"{variant.name}.losses.parquet")["loss"].to_numpy(np.float64)


def _apart_from_remedy(variant: Variant) -> tuple[float, str, float, str]:
    """What trainings share that are compared with each other, whatever their seed."""
    return variant.learning_rate, variant.attention, variant.weight_decay, variant.condition


def _claim(experiment: Experiment, folder: Path) -> None:
    """Write the manifest, or see that the one that is there is of the same training."""
    path = folder / "manifest.json"
    if path.exists():
        there = read_experiment(folder)
        if there.training_key() != experiment.training_key():
            raise PlanMismatchError(
                f"{folder.name} holds runs of {there.name} with other settings; choose a new folder"
            )
    elif any((folder / "runs").iterdir()):
        raise OutputError(f"{folder.name} holds runs without a manifest; choose a new folder")
    times: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    manifest: dict[str, Any] = {
        "experiment": experiment.record(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "started": times.get("started") or _now(),
        "finished": times.get("finished"),
    }
    if experiment.data == "topics":
        manifest["text"] = {"source": "interp.tasks.corpus, topics", **record(corpus("all", "topics"))}
    _write(path, manifest)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _keep(experiment: Experiment, variant: Variant, done: Training, seconds: float, folder: Path) -> None:
    kinds = [alarm.kind for alarm in done.alarms]
    base = folder / "runs" / variant.name
    done.readings.to_parquet(f"{base}.parquet", index=False)
    pd.DataFrame({"step": range(len(done.losses)), "loss": done.losses}).to_parquet(
        f"{base}.losses.parquet", index=False
    )
    _write(
        Path(f"{base}.json"),
        {
            "training": experiment.training_key(variant),
            "variant": asdict(variant),
            "held_out_loss": done.held_out_loss,
            "held_out_accuracy": done.held_out_accuracy,
            "lowest_entropy": _lowest(done.readings),
            "first_alarm": first_alarm(done.alarms),
            "alarm_kinds": {kind: kinds.count(kind) for kind in set(kinds)},
            "alarms": [asdict(alarm) for alarm in done.alarms],
            "sinks": done.sinks.to_dict("records"),
            "seconds": round(seconds, 1),
        },
    )


def _lowest(readings: pd.DataFrame) -> float:
    """The least mean entropy that any layer had; NaN without readings."""
    if readings.empty:
        return math.nan
    means: Any = readings.groupby(["step", "layer"])["entropy"].mean()
    return float(means.min())


def _done(experiment: Experiment, variant: Variant, folder: Path) -> bool:
    return (folder / "runs" / f"{variant.name}.json").exists() and _record(folder, variant)[
        "training"
    ] == experiment.training_key(variant)


def _record(folder: Path, variant: Variant) -> Mapping[str, Any]:
    path = folder / "runs" / f"{variant.name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(f"{path.name} is damaged ({error}); delete it and run the experiment again") from error


def _write(path: Path, record_: Mapping[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(record_, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
