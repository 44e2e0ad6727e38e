"""`run_job`: measure the shards of a task that are not there yet, in a folder that survives everything, and fold them.

The folder holds `parts/`: `plan.json` (what is measured, with which settings, versions and threads), one file per finished shard (whole or
absent), `failures.jsonl` (every attempt that failed); and what the task makes of the shards at the end. Shards are kept apart and folded in plan
order, so neither the order in which they finish nor the number of interruptions changes a bit of the result.

A shard that fails is tried again, up to `ATTEMPTS` times in one session, and then set aside with its error while the rest goes on; the next
session tries it anew. An error that interp raises on purpose concerns the whole job and stops it; what is finished is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from interp.batch.endings import IncompleteJobError, JobFailedError
from interp.batch.engine_local import InProcess
from interp.batch.events import Event, Kind, Watcher
from interp.batch.failures import Failure, log_failure
from interp.batch.files import read_json
from interp.batch.folder import JobFolder, Resume, claim, prepare
from interp.batch.interrupt import ScanInterruptedError, two_step_interrupts
from interp.batch.lock import locked
from interp.batch.places import Place, open_place, place_of
from interp.batch.plan import plan_key
from interp.batch.result import PARTS
from interp.batch.task import ATTEMPTS, HERE, SHARD_FILE, Engine, Job, Pending, Report, Task, Unit

HOPELESS = 3
"""So many shards set aside while none was ever finished end the job: the fault is not one of single shards."""
UNTOLD = "not measured"

Ended = TypeVar("Ended")


def run_job(
    task: Task[Ended],
    folder: str | Path,
    *,
    engine: Engine | None = None,
    resume: Resume = "auto",
    watch: Watcher | None = None,
    shards: str | None = None,
    measure: bool = True,
) -> Ended:
    """Run a task in a folder, or what is left of it.

    Args:
        task: what is to be measured.
        folder: of the job. Part of the same plan in it is gone on with; a finished one is returned as it is.
        engine: where shards are measured; None for this process.
        resume: "auto", "require" (there must be something to go on with) or "never" (there must not).
        watch: called with every `Event`.
        shards: folder or URL where shard files go; None for where they went when the job was begun, `parts/` in its folder if nothing
            was said.
        measure: False folds what is there, and measures nothing.

    Raises:
        IncompleteJobError: shards are missing; the result of the others was written.
        JobFailedError: none could be measured.
        PlanMismatchError: the folder holds another plan, or its shards another text.
        OutputError: the folder cannot be written, or another process is working on it. Finished shards are kept.
        ScanInterruptedError: Ctrl-C came; the shards under way were finished first. A second Ctrl-C raises KeyboardInterrupt at once.
        InterpError: what the task or a worker raised on purpose.
    """
    folder = Path(folder)
    where = place_of(folder, shards)
    session = _Session(task=task, watch=watch or _ignore, place=open_place(where), parts=folder / PARTS)
    with locked(prepare(folder)), two_step_interrupts(session.wind_up) as interrupts:
        there = any(SHARD_FILE.fullmatch(name) for name in session.place.names())
        job = claim(folder, task, resume, shards=there, where=where)
        if job.finished:
            return session.already_done(job)
        begun = engine or InProcess(runner=task.runner, place=session.place)
        session.measure(begun if measure else None, lambda: task.recipe(where))
        if interrupts.asked:
            raise ScanInterruptedError(session.tell("interrupted", "run the same command again to go on"))
        return session.finish(job)


@dataclass(kw_only=True, eq=False)
class _Session:
    """One session of a job: what it has done so far, and the steps of doing the rest."""

    task: Task[Any]
    watch: Watcher
    place: Place
    parts: Path
    pending: Pending = field(default_factory=lambda: Pending(units=iter(())))
    seen: list[Unit] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    partial: Counter[int] = field(default_factory=Counter)
    workers: set[int] = field(default_factory=set)
    shards: int = 0
    tokens: int = 0
    measured: int = 0
    seconds: float = 0.0

    def tell(self, kind: Kind, message: str = "", worker: int | None = None) -> Event:
        """Send an event to the watcher."""
        shards, tokens = self.task.totals()
        event = Event(
            kind=kind,
            key=plan_key(self.task.record()),
            shards=self.shards,
            shards_total=shards,
            tokens=self.tokens,
            tokens_total=tokens,
            measured=self.measured,
            seconds=self.seconds,
            worker=worker,
            workers=max(1, len(self.workers)),
            message=message,
        )
        self.watch(event)
        return event

    def wind_up(self) -> None:
        """Give out no more shards after Ctrl-C, and tell the person."""
        self.pending.closed = True
        self.tell("notice", "finishing this shard; press Ctrl-C again to stop at once")

    def already_done(self, job: JobFolder) -> Any:
        """The finished job of the same plan."""
        result = self.task.finished(job.folder)
        manifest = read_json(job.folder / self.task.manifest_file)
        tokens = manifest.get("tokens")
        self.shards = manifest.get("job", manifest).get("shards", 0)
        self.tokens = tokens.get("tokens", 0) if isinstance(tokens, dict) else 0
        self.tell("done", "already done")
        return result

    def measure(self, engine: Engine | None, recipe: Callable[[], Any]) -> None:
        """Measure the shards that are not there yet."""
        there = self.place.names()
        finished = sum(1 for name in there if SHARD_FILE.fullmatch(name))
        self.tell("plan", f"{finished} shards are there already" if finished else "")
        self.pending = Pending(units=self._missing(there), closed=self.pending.closed)
        if engine is not None:
            engine.run(recipe, self.pending, self._hear)
            return
        while (unit := self.pending.take()) is not None:
            self.set_aside[unit.index] = UNTOLD

    def finish(self, job: JobFolder) -> Any:
        """Fold the shards, and say what is missing."""
        done = tuple(unit for unit in self.seen if unit.index not in self.set_aside)
        if not done:
            raise JobFailedError(self._hopeless())
        set_aside = tuple((unit, self.set_aside[unit.index]) for unit in self.seen if unit.index in self.set_aside)
        key = plan_key(self.task.record())
        result = self.task.fold(
            Job(folder=job.folder, place=self.place, key=key, started=job.started, done=done, set_aside=set_aside)
        )
        if set_aside:
            unit, error = set_aside[0]
            numbers = ", ".join(str(unit.index) for unit, _ in set_aside[:20])
            message = (
                f"{len(set_aside)} of {len(self.seen)} shards are missing ({numbers}; shard {unit.index}: {error}); the result is of the others. "
                f"`interp job resume {job.folder}` tries them again"
            )
            self.tell("incomplete", f"{len(set_aside)} shards are missing")
            raise IncompleteJobError(message, result)
        self.tell("done")
        return result

    def _missing(self, there: set[str]) -> Iterator[Unit]:
        """The units that have no file yet; the others are checked and counted on the way."""
        for unit in self.task.units():
            self.seen.append(replace(unit, work={}))
            if unit.file in there:
                self.task.check(unit, self.place)
                self.tokens += unit.tokens
                self._finished(None)
            else:
                yield unit

    def _finished(self, worker: int | None) -> None:
        self.shards += 1
        self.tell("shard", worker=worker)

    def _hear(self, report: Report) -> None:
        """Take a report of the engine."""
        worker = None if report.worker == HERE else report.worker
        if worker is not None:
            self.workers.add(worker)
        if report.kind == "context":
            if report.unit is not None:
                self.partial[report.unit.index] += report.tokens
            self.tokens += report.tokens
            self.measured += report.tokens
            self.seconds += report.seconds
            self.tell("context", worker=worker)
        elif report.kind == "done":
            if report.unit is not None:
                self.partial.pop(report.unit.index, None)
            self._finished(worker)
        elif report.kind == "failed" and report.unit is not None:
            self._failed(report.unit, report, worker)
        else:
            self.tell("notice", report.message, worker)

    def _failed(self, unit: Unit, report: Report, worker: int | None) -> None:
        self.attempts[unit.index] += 1
        attempt = self.attempts[unit.index]
        last = attempt >= ATTEMPTS
        # What was counted of the attempt is counted anew by the next one.
        self.tokens -= self.partial[unit.index]
        self.measured -= self.partial.pop(unit.index, 0)
        log_failure(
            self.parts,
            Failure(shard=unit.index, attempt=attempt, set_aside=last, worker=report.worker, error=report.message),
        )
        if last:
            self.set_aside[unit.index] = report.message
        else:
            self.pending.again.append(unit)
        then = "it is set aside" if last else "it is tried again"
        self.tell("failed", f"shard {unit.index} failed, attempt {attempt}: {report.message}; {then}", worker)
        if len(self.set_aside) >= HOPELESS and not self.shards:
            raise JobFailedError(self._hopeless())

    def _hopeless(self) -> str:
        index, error = next(iter(self.set_aside.items()), (0, "there is none"))
        return f"no shard could be measured; shard {index}: {error}. Look at {self.parts / 'failures.jsonl'}, or try a smaller job"


def _ignore(_event: Event) -> None:
    """Watch nothing."""
