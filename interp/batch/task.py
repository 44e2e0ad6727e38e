"""What a job is made of, so that analyses and engines need not know each other: `Task`, `Unit`, `Recipe`, `Runner`, `Engine`.

A task knows what is to be measured: its settings, its shards (each a `Unit` of plain values), and how finished shards are folded. An engine
knows where: it gives units to workers and says how each ended. A worker needs two things only, both plain JSON: the `Recipe`, from which
`interp.batch.worker.open_runner` loads the model once, and then one `Unit` after the other. What a unit gives is the content of one file, which the
worker writes itself to the `Place` that the recipe names; nothing large ever travels back.

    job                      engine                        worker
    take units in plan order -> pending.take() -> unit     -> runner.run(unit, place, after) -> bytes -> place.write(unit.file, bytes)
    count, log, retry        <- tell(Report)               <- "context" after each context, then once "done" or "failed"
    fold in plan order
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from interp.batch.memory import give_back
from interp.batch.places import Place
from interp.errors import CorruptFileError

ATTEMPTS = 3
"""How often a shard is tried in one session before it is set aside."""
HERE = -1
"""The worker number of the process that runs the job."""
SHARD_FILE = re.compile(r"(.+/)?[0-9]{6}\.(parquet|zip)")
"""Names of shards' files: six digits and an ending, in folders where the task has several models."""

After = Callable[[int, float], None]
"""Called with the tokens that were measured and the seconds that it took."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One shard before it is measured: all that a worker needs beside the recipe.

    Attributes:
        index: place in the plan, from 0.
        file: name of the file that it becomes, in the job's place of shards, as `SHARD_FILE` says.
        work: plain JSON values that the task's runner understands, such as the token ids of some contexts.
        tokens: how much it is, for progress; 0 where that has no meaning.
    """

    index: int
    file: str
    work: Mapping[str, Any]
    tokens: int = 0

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def of(record: Mapping[str, Any]) -> Unit:
        """The unit of plain values."""
        return Unit(**record)


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """How a worker loads the model: the arguments of `interp.load` and the two settings of torch and kernels that change last bits.

    Attributes:
        name: as given by the person: a known name, hub id, folder or .gguf file.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", "cuda:1" ...; an engine may give each worker its own.
        backend: of the kernels.
        threads: of torch, in each worker.
        revision: of a hub model.
        offline: ask nobody.
    """

    name: str
    threads: int
    dtype: str = "float32"
    device: str = "cpu"
    backend: str = "auto"
    revision: str | None = None
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """From this any process on any machine that sees the same files can measure units of a job.

    Attributes:
        kind: of the task; names the runner in `interp.batch.worker.RUNNERS`.
        model: how to load it.
        plan: the plan's record. A worker whose model or software is another one refuses.
        place: where shards are written: a folder, or a URL that `interp.batch.places.open_place` knows.
    """

    kind: str
    model: ModelChoice
    plan: Mapping[str, Any]
    place: str

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def of(record: Mapping[str, Any]) -> Recipe:
        """The recipe of plain values.

        Raises:
            CorruptFileError: they are not those of a recipe.
        """
        try:
            return Recipe(**{**record, "model": ModelChoice(**record["model"])})
        except (KeyError, TypeError) as error:
            raise CorruptFileError(f"this is no recipe of a job ({error}); start the job again") from error


@runtime_checkable
class Runner(Protocol):
    """A worker's side of a task: a loaded model that measures units."""

    def run(self, unit: Unit, place: Place, after: After) -> bytes:
        """Measure a unit, and return the content of its file; `place` is for notes beside it, such as how batches were split."""
        ...


def work(runner: Runner, unit: Unit, place: Place, after: After) -> None:
    """Measure a unit, write its file, and give back the memory that it took: all that a worker does.

    Raises:
        InterpError: something concerns the whole job, such as a full disk.
        Exception: whatever the measurement raised; it concerns this unit.
    """
    place.write(unit.file, runner.run(unit, place, after))
    give_back()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an engine says of a unit.

    Attributes:
        kind: "context" (some of its tokens were measured), "done" (its file is written), "failed" (this attempt is over), or "notice".
        unit: which; None for a notice that is about no unit.
        worker: number of the worker, from 0, or `HERE`.
        tokens: of a context.
        seconds: of a context.
        message: the error of a failed attempt, or words for the person.
    """

    kind: Literal["context", "done", "failed", "notice"]
    unit: Unit | None = None
    worker: int = 0
    tokens: int = 0
    seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All shards of a job, as `Task.fold` gets them.

    Attributes:
        folder: of the job; the result goes there.
        place: where the shards lie.
        key: of the plan.
        started: when the job was begun, UTC.
        done: finished units, in plan order, without their `work`.
        set_aside: units that have no file, in plan order, without their `work`, each with its last error.
    """

    folder: Path
    place: Place
    key: str
    started: str
    done: tuple[Unit, ...]
    set_aside: tuple[tuple[Unit, str], ...]


@dataclass(kw_only=True, eq=False)
class Pending:
    """The units that wait: those to be tried again first, then the rest in plan order, each made when it is asked for.

    Attributes:
        units: all units that have no file yet, in plan order.
        again: failed ones that get another attempt.
        closed: nothing more is given out, because the person asked to stop.
    """

    units: Iterator[Unit]
    again: deque[Unit] = field(default_factory=deque)
    closed: bool = False

    def take(self) -> Unit | None:
        """The next unit, None if there is none now. After a "failed" report there may be one again."""
        if self.closed:
            return None
        return self.again.popleft() if self.again else next(self.units, None)


@runtime_checkable
class Engine(Protocol):
    """Where units are measured."""

    def run(self, recipe: Callable[[], Recipe], pending: Pending, tell: Callable[[Report], None]) -> None:
        """Measure what is pending, and tell of it as it happens; returns, or raises, with no worker left.

        Takes a unit only when a worker is free for it (a text may be larger than memory), and ends when `take` gives None and no unit is
        under way. Each unit taken gets exactly one "done" or "failed" report; after a failed one `take` may give it once more. A worker that
        dies fails the unit it had, and another is started in its place.

        Args:
            recipe: makes the recipe for workers in other processes.
            pending: the units.
            tell: takes each report; called from the thread that called `run`.

        Raises:
            InterpError: one that a worker raised on purpose: it concerns the whole job (wrong model, full disk), not one unit.
        """
        ...


Ended = TypeVar("Ended", covariant=True)


@runtime_checkable
class Task(Protocol[Ended]):
    """What is to be measured; see `interp.batch.scan_task` for the one that all began with. `Ended` is what a finished job gives."""

    @property
    def kind(self) -> str:
        """Name of the task, in plans and recipes."""
        ...

    @property
    def manifest_file(self) -> str:
        """The manifest of the result in the job's folder: it, or its "job", has the plan's `key` and what was `set_aside`."""
        ...

    @property
    def result_file(self) -> str:
        """A file that a finished job has beside it."""
        ...

    def record(self) -> Mapping[str, Any]:
        """All settings that the numbers depend on, plain values: the plan. Its hash is the job's key."""
        ...

    def units(self) -> Iterator[Unit]:
        """The shards in plan order, the same ones on each call."""
        ...

    def totals(self) -> tuple[int | None, int | None]:
        """(shards, tokens) that there will be, each None where unknown before the end."""
        ...

    def check(self, unit: Unit, place: Place) -> None:
        """See that the file of a unit was measured on this very unit.

        Raises:
            PlanMismatchError: it was not.
            CorruptFileError: it is damaged.
        """
        ...

    def runner(self) -> Runner:
        """A runner in this process, with the model that the task has already."""
        ...

    def recipe(self, place: str) -> Recipe:
        """How workers in other processes get the same.

        Raises:
            OptionError: they cannot, because the model was not loaded by name.
        """
        ...

    def fold(self, job: Job) -> Ended:
        """Make the result of the finished units, in plan order, and write it into the job's folder."""
        ...

    def finished(self, folder: Path) -> Ended:
        """The result of a job that was finished before."""
        ...
