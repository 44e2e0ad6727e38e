"""`RayEngine`: the same plan on a Ray cluster: one actor per worker, each with its own copy of the model, on a GPU of its own where it needs one.

What travels is small: the recipe once to each actor, then one unit (token ids) at a time and back the times it took; shards are written by the
actors to the place of the recipe, which every machine must see (a shared folder, or a URL). An actor that dies, alone or with its machine, fails the
unit that it had, and another one is started wherever the cluster has room. Ray's own retries are off: the job counts the attempts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from interp.batch.engine_local import STARTS, check_patience
from interp.batch.failures import in_words, raised_by_worker
from interp.batch.places import Place, open_place
from interp.batch.task import Pending, Recipe, Report, Runner, Unit, work
from interp.errors import InterpError, OptionError, OutputError

TICK: Final = 10.0
"""Seconds between two looks at a cluster that has nothing to say."""
OBJECT_STORE: Final = 100 * 2**20
"""Bytes of shared memory for a cluster that is started here; units pass through it, arrays never do."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Measure in actors of a Ray cluster.

    Attributes:
        workers: how many actors.
        address: of a running cluster, "auto" for the one that this machine belongs to. None takes the one that RAY_ADDRESS names, as Ray itself
            does, and without it starts one of this machine alone, for this run.
        wait_for_room: seconds to wait, with nothing under way, for the cluster to have room for an actor.
        patience: seconds after which an actor that has a shard and did not answer is killed, which fails this attempt; None waits for ever. An
            actor answers once for each shard, when it is measured; the time in which it loads its model is not counted.

    Raises:
        OptionError: no worker, no patience, or no Ray.
    """

    workers: int
    address: str | None = None
    wait_for_room: float = 600.0
    patience: float | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise OptionError(f"workers must be at least 1; got {self.workers}")
        check_patience(self.patience)
        _ray()

    def run(self, recipe: Callable[[], Recipe], pending: Pending, tell: Callable[[Report], None]) -> None:
        """Measure what is pending; see `interp.batch.task.Engine`.

        Raises:
            OutputError: the cluster cannot be reached, has no room for an actor, or actors die while they load the model.
        """
        held = pending.take()
        if held is None:
            return
        asked = _everywhere(recipe())
        with _cluster(self, asked):
            crew = [_Member(number=number, recipe=asked, tell=tell) for number in range(self.workers)]
            try:
                _Foreman(crew=crew, pending=pending, held=held, engine=self, tell=tell).work()
            finally:
                for member in crew:
                    member.end()


class _Actor:
    """What runs on the cluster: the runner of a recipe. It speaks JSON, and raises nothing."""

    def __init__(self, recipe: str) -> None:
        self.recipe = Recipe.of(json.loads(recipe))
        self.open: tuple[Runner, Place] | None = None

    def load(self) -> str:
        """Load the model: "ready", or "refused" with the error that concerns the whole job."""
        from interp.batch.worker import open_runner  # brings torch, which only actors need

        try:
            self.open = open_runner(self.recipe), open_place(self.recipe.place)
        except InterpError as error:
            return _refused(error)
        return json.dumps({"event": "ready"})

    def measure(self, unit: str) -> str:
        """Measure a unit and write its file: "done" or "failed", with the tokens and seconds of its contexts; or "refused"."""
        if self.open is None:
            return json.dumps({"event": "failed", "contexts": [], "message": "the model is not loaded"})
        contexts: list[tuple[int, float]] = []
        try:
            work(self.open[0], Unit.of(json.loads(unit)), self.open[1], lambda *took: contexts.append(took))
        except InterpError as error:
            return _refused(error)
        except Exception as error:  # whatever a model, a kernel or a library raises on this unit; the next may be fine
            return json.dumps({"event": "failed", "contexts": contexts, "message": in_words(error)})
        return json.dumps({"event": "done", "contexts": contexts})


@dataclass(kw_only=True, eq=False)
class _Member:
    """An actor as the engine sees it: its handle, what it is doing, and the unit that it has."""

    number: int
    recipe: Recipe
    tell: Callable[[Report], None]
    handle: Any = None
    doing: Any = None
    ready: bool = False
    unit: Unit | None = None
    given: float = 0.0
    failed_starts: int = 0

    @property
    def silence(self) -> float:
        """Seconds since it got the unit that it has; 0 without one."""
        return time.monotonic() - self.given if self.unit is not None else 0.0

    @property
    def idle(self) -> bool:
        """Whether it can take a unit at once."""
        return self.ready and self.unit is None

    def start(self) -> None:
        """Ask the cluster for an actor; it is ready when its model is loaded."""
        model = self.recipe.model
        options = {"num_cpus": model.threads, "num_gpus": int(model.device.startswith("cuda"))}
        actor = _ray().remote(max_restarts=0, max_task_retries=0, **options)(_Actor)
        self.ready, self.handle = False, actor.remote(json.dumps(self.recipe.record()))
        self.doing = self.handle.load.remote()

    def give(self, unit: Unit) -> None:
        """Give it a unit."""
        self.unit, self.given = unit, time.monotonic()
        self.doing = self.handle.measure.remote(json.dumps(unit.record()))

    def listen(self) -> None:
        """Take the answer to what it was asked last, or its death."""
        doing, self.doing = self.doing, None
        try:
            said = json.loads(_ray().get(doing))
        except _ray().exceptions.RayError as error:
            self._died(in_words(error))
            return
        if said["event"] == "refused":
            raise raised_by_worker(said["error"], said["message"])
        if said["event"] == "ready":
            self.ready, self.failed_starts = True, 0
            return
        unit, self.unit = self.unit, None
        for tokens, seconds in said["contexts"]:
            self.tell(Report(kind="context", unit=unit, worker=self.number, tokens=tokens, seconds=seconds))
        self.tell(Report(kind=said["event"], unit=unit, worker=self.number, message=said.get("message", "")))

    def give_up(self, patience: float) -> None:
        """End the actor, and fail the unit it had."""
        self.doing = None
        self._died(f"the actor said nothing for {patience:g} s, and was killed")

    def end(self) -> None:
        """End the actor, at once."""
        if self.handle is not None:
            _ray().kill(self.handle)
            self.handle = None

    def _died(self, why: str) -> None:
        unit, self.unit = self.unit, None
        if not self.ready:
            self.failed_starts += 1
            if self.failed_starts >= STARTS:
                raise OutputError(f"actor {self.number} cannot start: {why}; try fewer workers")
        self.end()
        self.start()
        if unit is not None:
            self.tell(Report(kind="failed", unit=unit, worker=self.number, message=why))


@dataclass(kw_only=True, eq=False)
class _Foreman:
    """Gives units to actors as they become free, and waits for what they say."""

    crew: list[_Member]
    pending: Pending
    held: Unit | None
    engine: RayEngine
    tell: Callable[[Report], None]
    waited: float = field(default=0.0)

    def work(self) -> None:
        """Until nothing is pending and nothing under way."""
        for member in self.crew:
            member.start()
        while True:
            for member in self.crew:
                if member.idle and (unit := self._next()) is not None:
                    member.give(unit)
            under_way = any(member.unit is not None for member in self.crew)
            if not under_way:
                # Nobody is free, or there is nothing left: taking one more tells which.
                self.held = self._next()
                if self.held is None:
                    return
            self._listen(under_way)

    def _next(self) -> Unit | None:
        unit, self.held = self.held, None
        return unit or self.pending.take()

    def _listen(self, under_way: bool) -> None:
        """Wait for the next answers; with nothing under way, not for ever."""
        by_answer = {member.doing: member for member in self.crew if member.doing is not None}
        patience, tick = self.engine.patience, TICK
        if patience is not None:
            tick = min(tick, max(0.0, patience - max(member.silence for member in self.crew)))
        answers, _ = _ray().wait(list(by_answer), num_returns=1, timeout=tick)
        for answer in answers:
            by_answer[answer].listen()
        for member in self.crew:
            if patience is not None and member.silence >= patience:
                member.give_up(patience)
        self.waited = 0.0 if answers or under_way else self.waited + tick
        if self.waited >= self.engine.wait_for_room:
            raise OutputError(
                f"the cluster had no room for an actor in {self.engine.wait_for_room:.0f} seconds; give it more machines, or ask for fewer --threads"
            )
        if self.waited and self.waited == tick:
            self.tell(Report(kind="notice", message="waiting for the cluster: no actor has its model loaded yet"))


@contextmanager
def _cluster(engine: RayEngine, recipe: Recipe) -> Iterator[None]:
    """Be connected to a cluster: to the one that this process is connected to already, to the one at the address, or to one started here."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    here = {
        "num_cpus": max(engine.workers * recipe.model.threads, os.cpu_count() or 1),
        "object_store_memory": OBJECT_STORE,
        "include_dashboard": False,
    }
    address = engine.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # Read by the processes that are started now: they tell nobody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init("local", **here, **quiet) if address is None else ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise OutputError(
            f"the Ray cluster {address or 'of this machine'} cannot be used: {in_words(error)}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _everywhere(recipe: Recipe) -> Recipe:
    """The recipe with a place that other processes find, wherever they were started."""
    return recipe if "://" in recipe.place else replace(recipe, place=str(Path(recipe.place).resolve()))


def _refused(error: InterpError) -> str:
    return json.dumps({"event": "refused", "error": type(error).__name__, "message": str(error)})


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise OptionError("the engine 'ray' needs Ray: pip install 'interp[ray]'") from error
    return ray
