"""Patience with actors that hang, against a stand-in for Ray: actors answer at once, or never. The clock is that of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from interp.batch import engine_ray
from interp.batch.engine_ray import TICK, RayEngine
from interp.batch.task import ModelChoice, Pending, Recipe, Report, Unit
from interp.errors import OptionError

LOADING = 25.0
MEASURING = 3.0


class StandIn:
    """Ray's functions that the engine uses; an answer is (when it is there, what it says)."""

    def __init__(self, hangs: dict[int, int]) -> None:
        self.clock = 1000.0
        self.hangs = dict(hangs)
        self.started = 0
        self.killed: list[int] = []
        self.exceptions = SimpleNamespace(RayError=ConnectionError)

    def is_initialized(self) -> bool:
        return True

    def remote(self, **_: Any) -> Callable[[type], Any]:
        return lambda _actor: SimpleNamespace(remote=self.start)

    def start(self, _recipe: str) -> Any:
        self.started += 1
        load = SimpleNamespace(remote=lambda: (self.clock + LOADING, '{"event": "ready"}'))
        return SimpleNamespace(load=load, measure=SimpleNamespace(remote=self.measure), number=self.started)

    def measure(self, unit: str) -> tuple[float, str]:
        index = json.loads(unit)["index"]
        self.hangs[index] = self.hangs.get(index, 0) - 1
        never = self.hangs[index] >= 0
        return (float("inf") if never else self.clock + MEASURING, '{"event": "done", "contexts": [[5, 0.5]]}')

    def wait(self, answers: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        first = min(answers)
        self.clock = min(max(first[0], self.clock), self.clock + timeout)
        return ([first], []) if first[0] <= self.clock else ([], answers)

    def get(self, answer: tuple[float, str]) -> str:
        return answer[1]

    def kill(self, handle: Any) -> None:
        self.killed.append(handle.number)


def run(monkeypatch: pytest.MonkeyPatch, hangs: dict[int, int], patience: float | None) -> tuple[StandIn, list[Report]]:
    """Run three units on two actors, giving failed ones back as a job does."""
    ray = StandIn(hangs)
    monkeypatch.setattr(engine_ray, "_ray", lambda: ray)
    monkeypatch.setattr(engine_ray, "time", SimpleNamespace(monotonic=lambda: ray.clock))
    pending = Pending(units=iter([Unit(index=i, file=f"{i:06d}.parquet", work={}) for i in range(3)]))
    reports: list[Report] = []

    def tell(report: Report) -> None:
        reports.append(report)
        if report.kind == "failed" and report.unit is not None:
            pending.again.append(report.unit)

    recipe = Recipe(kind="toy", model=ModelChoice(name="none", threads=1), plan={}, place="memory://place")
    RayEngine(workers=2, patience=patience).run(lambda: recipe, pending, tell)
    return ray, reports


def ends(reports: list[Report], kind: str) -> list[tuple[int | None, str]]:
    return [(r.unit.index if r.unit else None, r.message) for r in reports if r.kind == kind]


def test_an_actor_that_hangs_is_killed_and_its_unit_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, reports = run(monkeypatch, {1: 2}, patience=7.0)
    said = "the actor said nothing for 7 s, and was killed"
    assert ends(reports, "failed") == [(1, said), (1, said)]
    assert sorted(ends(reports, "done")) == [(0, ""), (1, ""), (2, "")]
    assert ray.started == 4, "two at first, and one for each that was killed"
    assert sorted(ray.killed) == [1, 2, 3, 4], "none outlives the engine"


@pytest.mark.parametrize("patience", [None, 4.0])
def test_loading_and_patient_waits_cost_nothing(monkeypatch: pytest.MonkeyPatch, patience: float | None) -> None:
    assert LOADING > TICK and LOADING > 4.0 > MEASURING
    ray, reports = run(monkeypatch, {}, patience=patience)
    assert ends(reports, "failed") == []
    assert ray.started == 2


def test_no_patience_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_ray, "_ray", lambda: StandIn({}))
    with pytest.raises(OptionError, match="patience must be a number of seconds above 0; got -1"):
        RayEngine(workers=1, patience=-1.0)
