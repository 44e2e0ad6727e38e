"""One job by several processes that do not know each other, such as a Slurm array: each measures its own shards, and the last step folds them.

Part i of n measures the shards i-1, i-1+n, i-1+2n ... of the plan into the job's `parts/`, as one process would; its own log of failures and its
lock lie in `array/i-of-n/`. When all parts are done, the same scan without a part finds every shard there and folds them, to the same bits as
one process that did it all. A part that is run again goes on where it stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from interp.batch.events import Watcher
from interp.batch.files import read_json, write_json
from interp.batch.folder import claim, keep_place, prepare
from interp.batch.job import run_job
from interp.batch.lock import locked
from interp.batch.places import Place, place_of
from interp.batch.plan import refuse_other_plan
from interp.batch.result import PLAN
from interp.batch.task import Engine, Job, Recipe, Runner, Task, Unit
from interp.errors import OptionError, OutputError, PlanMismatchError

ARRAY: Final = "array"
PART_FILE: Final = "part.json"
BEGIN_SECONDS: Final = 60.0
"""How long to wait for other parts that begin at the same moment."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a job.

    Attributes:
        number: from 1.
        of: how many parts there are.

    Raises:
        OptionError: there is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise OptionError(f"a part must be one of 1/n to n/n; got {self.number}/{self.of}")

    @staticmethod
    def parse(text: str) -> Part:
        """The part that "2/8" names.

        Raises:
            OptionError: it names none.
        """
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
        if found is None:
            raise OptionError(f"a part must look like 2/8, the second of eight; got {text!r}")
        return Part(number=int(found[1]), of=int(found[2]))


@dataclass(frozen=True, kw_only=True)
class PartDone:
    """A finished part: which, and how many shards and tokens it has."""

    part: Part
    shards: int
    tokens: int


def run_part(
    task: Task[Any],
    folder: str | Path,
    part: Part,
    *,
    engine: Engine | None = None,
    watch: Watcher | None = None,
    shards: str | None = None,
) -> PartDone:
    """Measure one part of a job; the job's folder must be one that all parts see.

    Args:
        task: the whole job, the same in each part.
        folder: of the whole job.
        part: which.
        engine: where its shards are measured; None for this process.
        watch: called with every `Event`.
        shards: folder or URL where shard files go, as in `run_job`; the same in each part.

    Raises:
        PlanMismatchError: the folder holds another plan.
        InterpError: as `run_job`.
    """
    folder = Path(folder)
    where = place_of(folder, shards)
    _begin(folder, task, where)
    own = _PartOfTask(task=task, part=part)
    if next(own.units(), None) is None:
        return PartDone(part=part, shards=0, tokens=0)
    place = folder / ARRAY / f"{part.number}-of-{part.of}"
    return run_job(own, place, engine=engine, watch=watch, shards=where)


@dataclass(frozen=True, kw_only=True, eq=False)
class _PartOfTask:
    """Every n-th shard of a task; folding it leaves a note."""

    task: Task[Any]
    part: Part

    manifest_file = PART_FILE
    result_file = PART_FILE

    @property
    def kind(self) -> str:
        """That of the whole task."""
        return self.task.kind

    def record(self) -> Mapping[str, Any]:
        """That of the whole task."""
        return self.task.record()

    def units(self) -> Iterator[Unit]:
        """The shards of this part."""
        return islice(self.task.units(), self.part.number - 1, None, self.part.of)

    def totals(self) -> tuple[int | None, int | None]:
        """(shards, tokens); the tokens are an equal share of all."""
        shards, tokens = self.task.totals()
        return (
            None if shards is None else len(range(self.part.number - 1, shards, self.part.of)),
            None if tokens is None else tokens // self.part.of,
        )

    def check(self, unit: Unit, place: Place) -> None:
        """As the whole task."""
        self.task.check(unit, place)

    def runner(self) -> Runner:
        """As the whole task."""
        return self.task.runner()

    def recipe(self, place: str) -> Recipe:
        """As the whole task."""
        return self.task.recipe(place)

    def fold(self, job: Job) -> PartDone:
        """Note what is done."""
        tokens = sum(unit.tokens for unit in job.done)
        set_aside = [{"shard": unit.index, "error": error} for unit, error in job.set_aside]
        note = {"key": job.key, "shards": len(job.done), "tokens": {"tokens": tokens}, "set_aside": set_aside}
        write_json(job.folder / PART_FILE, note)
        return PartDone(part=self.part, shards=len(job.done), tokens=tokens)

    def finished(self, folder: Path) -> PartDone:
        """What the note says."""
        note = read_json(folder / PART_FILE)
        return PartDone(part=self.part, shards=note["shards"], tokens=note["tokens"]["tokens"])


def _begin(folder: Path, task: Task[Any], where: str) -> None:
    """See that the folder is for this plan, or begin it; unfinished files of the other parts are left alone."""
    parts = prepare(folder)
    until = time.monotonic() + BEGIN_SECONDS
    while True:
        try:
            with locked(parts):
                if (parts / PLAN).exists():
                    refuse_other_plan(read_json(parts / PLAN).get("plan", {}), task.record(), str(folder))
                    keep_place(folder, where)
                else:
                    claim(folder, task, "auto", shards=False, where=where)
            return
        except PlanMismatchError:
            raise
        except OutputError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
