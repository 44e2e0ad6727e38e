"""`job_status`: how far a job is, read from its folder; needs no model and no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from interp.batch.failures import Failure, read_failures
from interp.batch.files import read_json
from interp.batch.lock import holder
from interp.batch.places import open_place, recorded_place
from interp.batch.result import MANIFEST, PARTS, PLAN, model_folder, model_labels, steps_folder
from interp.batch.task import SHARD_FILE
from interp.errors import OutputError
from interp.ledger import finished_evaluations

State = Literal["running", "stopped", "incomplete", "finished"]
WORST_LAST: Final[tuple[State, ...]] = ("finished", "incomplete", "stopped", "running")
"""Of several jobs the last of these that any has is that of all."""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How far a job is.

    Attributes:
        kind: of the task.
        key: of the plan.
        state: "running" (a process works on it), "finished", "incomplete" (folded without some shards), or "stopped".
        process: number of the process that works on it, None if none does.
        started: UTC.
        shards: finished ones in the place where they go.
        shards_total: None where the text is streamed and its length unknown.
        evaluations: finished ones of an analysis that keeps each, such as `interp heads confirm`; 0 of one that keeps whole shards only.
        splits: shards whose batches were split because memory ran out.
        failures: attempts that failed, oldest first.
        plan: the plan's record.
    """

    kind: str
    key: str
    state: State
    process: int | None
    started: str
    shards: int
    shards_total: int | None
    evaluations: int
    splits: int
    failures: tuple[Failure, ...]
    plan: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """Plain values for one line of JSON, without the plan."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("plan", "failures")},
            "failures": [vars(failure) for failure in self.failures],
        }


def job_status(folder: str | Path) -> JobStatus:
    """Read how far a job is.

    Args:
        folder: of the job (`--out`). Shards that were sent elsewhere (`--shards`) are counted there.

    Raises:
        OutputError: it holds no job, or the place of its shards cannot be listed.
        CorruptFileError: its plan is damaged.
    """
    folder = Path(folder)
    parts = folder / PARTS
    if not (parts / PLAN).exists():
        raise OutputError(f"{folder} holds no job ({PARTS}/{PLAN} is missing); begin one with --out {folder}")
    begun = read_json(parts / PLAN)
    place = folder / begun.get("manifest", MANIFEST)
    manifest = read_json(place) if place.exists() else {}
    ended = manifest.get("job", manifest)
    names = open_place(recorded_place(folder, begun)).names()
    process = holder(parts)
    done = ended.get("key") == begun.get("key")
    state: State = "incomplete" if ended.get("set_aside") else "finished"
    return JobStatus(
        kind=begun.get("kind", "scan"),
        key=begun["key"],
        state="running" if process is not None else state if done else "stopped",
        process=process,
        started=str(begun.get("started", "")),
        shards=sum(1 for name in names if SHARD_FILE.fullmatch(name)),
        shards_total=begun.get("shards") or (ended.get("shards") if done else None),
        evaluations=sum(map(finished_evaluations, steps_folder(folder, begun["key"]).glob("*.json"))),
        splits=sum(1 for name in names if name.endswith(".split.json")),
        failures=tuple(read_failures(parts)),
        plan=begun.get("plan", {}),
    )


def models_status(folder: str | Path) -> dict[str, JobStatus | None]:
    """How far the scans of several models are: label -> status, None for a model that was not begun.

    Raises:
        CorruptFileError: a file is damaged.
        OutputError: as `job_status`.
    """
    places = {label: model_folder(Path(folder), label) for label in model_labels(Path(folder))}
    return {label: job_status(place) if (place / PARTS / PLAN).exists() else None for label, place in places.items()}


def common_state(jobs: Iterable[JobStatus | None]) -> State:
    """The state of several jobs together: "running" if one is, "stopped" if one is or was not begun, "incomplete" if one is, "finished"."""
    states: list[State] = ["stopped" if job is None else job.state for job in jobs]
    return max(states, key=WORST_LAST.index) if states else "stopped"
