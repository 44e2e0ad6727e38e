"""Engines of one machine: `InProcess`, with the model that is there already, and `LocalEngine`, one process per worker.

Workers are fresh processes that run `interp.batch.worker`: each loads the model once, and whatever kills one (kill -9, the system for
want of memory, a crash in a kernel) costs one attempt at one shard. They speak JSON lines over pipes, end when this process ends, however it
ends, and inherit the lock of the job's folder until then.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Final

from interp.batch.failures import in_words, raised_by_worker
from interp.batch.places import Place
from interp.batch.task import HERE, Pending, Recipe, Report, Runner, Unit, work
from interp.errors import InterpError, OptionError, OutputError

STARTS: Final = 3
"""How often a worker may die in a row before it has loaded its model."""
CHUNK: Final = 1 << 16
BOOT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the job is gone")
from interp.batch.worker import main
main()
"""
"""What a worker begins with: Linux is to kill it with its job (PR_SET_PDEATHSIG), also while it still imports and cannot see its input end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InProcess:
    """Measure one unit after the other in this process.

    Attributes:
        runner: makes the runner, when there is something to measure.
        place: where shards are written.
    """

    runner: Callable[[], Runner]
    place: Place

    def run(self, recipe: Callable[[], Recipe], pending: Pending, tell: Callable[[Report], None]) -> None:
        """Measure what is pending; see `interp.batch.task.Engine`."""
        runner: Runner | None = None
        while (unit := pending.take()) is not None:
            runner = runner or self.runner()

            def after(tokens: int, seconds: float, unit: Unit = unit) -> None:
                tell(Report(kind="context", unit=unit, worker=HERE, tokens=tokens, seconds=seconds))

            try:
                work(runner, unit, self.place, after)
            except InterpError:
                raise
            except (
                Exception
            ) as error:  # whatever a model, a kernel or a library raises on this unit; the next may be fine
                tell(Report(kind="failed", unit=unit, worker=HERE, message=in_words(error)))
            else:
                tell(Report(kind="done", unit=unit, worker=HERE))


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Measure in processes of this machine, each with its own copy of the model.

    Attributes:
        workers: how many.
        devices: one for each worker, used in turn; empty leaves the recipe's.
        command: what starts a worker; the number of this process is added.
        patience: seconds after which a worker that has a shard and says nothing (it does after each batch) is killed, which fails this attempt;
            None waits for ever. The time in which it loads its model is not counted.

    Raises:
        OptionError: no worker, or no patience.
    """

    workers: int
    devices: Sequence[str] = ()
    command: Sequence[str] = (sys.executable, "-c", BOOT)
    patience: float | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise OptionError(f"workers must be at least 1; got {self.workers}")
        check_patience(self.patience)

    def run(self, recipe: Callable[[], Recipe], pending: Pending, tell: Callable[[Report], None]) -> None:
        """Measure what is pending; see `interp.batch.task.Engine`."""
        asked = recipe()
        crew: list[_Worker] = []
        for number in range(self.workers):
            device = self.devices[number % len(self.devices)] if self.devices else asked.model.device
            of_this = replace(asked, model=replace(asked.model, device=device))
            crew.append(_Worker(number=number, recipe=of_this, command=self.command, tell=tell))
        with selectors.DefaultSelector() as selector:
            try:
                while True:
                    for worker in crew:
                        if worker.unit is None and (unit := pending.take()) is not None:
                            worker.give(unit, selector)
                    if all(worker.unit is None for worker in crew):
                        return
                    for key, _ in selector.select(self._time_left(crew)):
                        key.data.listen(selector)
                    for worker in crew:
                        if self.patience is not None and worker.silence >= self.patience:
                            worker.give_up(self.patience, selector)
            finally:
                for worker in crew:
                    worker.end()

    def _time_left(self, crew: Sequence[_Worker]) -> float | None:
        """Seconds until patience with one of the workers ends; None waits for ever."""
        if self.patience is None:
            return None
        return max(0.0, self.patience - max(worker.silence for worker in crew))


def check_patience(seconds: float | None) -> None:
    """Refuse a patience that is no time. Raises OptionError."""
    if seconds is not None and not seconds > 0:
        raise OptionError(f"patience must be a number of seconds above 0; got {seconds:g}")


@dataclass(kw_only=True, eq=False)
class _Worker:
    """A worker: the process, if it runs, the unit that it has, and what it said so far."""

    number: int
    recipe: Recipe
    command: Sequence[str]
    tell: Callable[[Report], None]
    process: subprocess.Popen[bytes] | None = None
    complaints: IO[bytes] | None = None
    ready: bool = False
    unit: Unit | None = None
    heard: bytes = b""
    last: float = 0.0
    failed_starts: int = 0

    @property
    def silence(self) -> float:
        """Seconds since a worker that has its model and a unit said something, or got the unit; 0 for others."""
        return time.monotonic() - self.last if self.ready and self.unit is not None else 0.0

    def give(self, unit: Unit, selector: selectors.BaseSelector) -> None:
        """Give it a unit; a process is started where there is none."""
        self.unit = unit
        if self.process is None:
            self._start(selector)
        elif self.ready:
            self._send(unit.record())

    def listen(self, selector: selectors.BaseSelector) -> None:
        """Take what it says, or its death."""
        process = self.process
        if process is None or process.stdout is None:
            return
        content = os.read(process.stdout.fileno(), CHUNK)
        if not content:
            self._died(selector)
            return
        self.last = time.monotonic()
        *lines, self.heard = (self.heard + content).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def give_up(self, patience: float, selector: selectors.BaseSelector) -> None:
        """Kill it, and fail the unit it had."""
        if self.process is not None:
            self.process.kill()
            self._died(selector, f"the worker said nothing for {patience:g} s, and was killed")

    def end(self) -> None:
        """End the process, at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None
        if self.complaints is not None:
            self.complaints.close()
            self.complaints = None

    def _start(self, selector: selectors.BaseSelector) -> None:
        self.ready, self.heard = False, b""
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the process, and `end` closes it)
        try:
            self.process = subprocess.Popen(
                [*self.command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.complaints,
                bufsize=0,
                close_fds=False,  # the lock of the folder is inherited
                start_new_session=True,  # Ctrl-C is for this process, which lets workers finish their shards
                env={**os.environ, "OMP_NUM_THREADS": str(self.recipe.model.threads)},
            )
        except OSError as error:
            raise OutputError(f"a worker cannot be started: {error.strerror}; try fewer workers") from error
        selector.register(self.process.stdout, selectors.EVENT_READ, self)  # pyright: ignore[reportArgumentType]
        self._send(self.recipe.record())

    def _send(self, record: dict[str, Any]) -> None:
        process = self.process
        if process is None or process.stdin is None:
            return
        self.last = time.monotonic()
        left = memoryview(json.dumps(record).encode() + b"\n")
        try:
            while left:
                left = left[process.stdin.write(left) :]
        except BrokenPipeError:
            pass  # it died: its standard output says so, too, and is listened to

    def _hear(self, said: dict[str, Any]) -> None:
        unit, event = self.unit, said["event"]
        if event == "refused":
            raise raised_by_worker(said["error"], said["message"])
        if event == "ready":
            self.ready, self.failed_starts = True, 0
            if unit is not None:
                self._send(unit.record())
        elif event == "context":
            self._tell("context", tokens=said["tokens"], seconds=said["seconds"])
        elif unit is not None:
            self.unit = None
            self.tell(Report(kind=event, unit=unit, worker=self.number, message=said.get("message", "")))

    def _tell(self, kind: Any, **facts: Any) -> None:
        self.tell(Report(kind=kind, unit=self.unit, worker=self.number, **facts))

    def _died(self, selector: selectors.BaseSelector, why: str | None = None) -> None:
        """Fail the unit it had; one that died before it was ready is started once more."""
        process, unit, was_ready = self.process, self.unit, self.ready
        if process is None:
            return
        selector.unregister(process.stdout)  # pyright: ignore[reportArgumentType]
        status = process.wait()
        how = why or self._cause(status)
        self.end()
        if was_ready:
            self.unit = None
            if unit is not None:
                self.tell(Report(kind="failed", unit=unit, worker=self.number, message=how))
            return
        self.failed_starts += 1
        if self.failed_starts >= STARTS:
            raise OutputError(
                f"worker {self.number} cannot start: {how}; try fewer workers, or none (leave out --workers)"
            )
        self._start(selector)

    def _cause(self, status: int) -> str:
        """How a process ended, in words."""
        if status < 0:
            why = "; the system does this when memory runs out" if -status == signal.SIGKILL else ""
            return f"the worker was killed by {signal.Signals(-status).name}{why}"
        last = b""
        if self.complaints is not None:
            self.complaints.seek(0)
            last = (self.complaints.read().strip().splitlines() or [b""])[-1]
        return f"the worker ended with {status}: {last.decode('utf-8', 'replace')[:500]}"
