"""The key of a plan changes with everything that changes numbers, and a refusal names what differs."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from interp.batch.plan import Plan, plan_key, refuse_other_plan
from interp.errors import OptionError, PlanMismatchError

PLAN = Plan(
    model={"name": "m", "sha256": "0" * 64},
    text={"kind": "file", "name": "a.txt", "sha256": "1" * 64},
    statistics=("entropy", "induction_mass"),
    layers=(0, 1, 2),
    context=2048,
    shard=4,
    max_tokens=None,
    join=False,
    special=((1,), ()),
    bos="as the tokenizer does: adds special tokens",
    dtype="float32",
    device="cpu",
    threads=2,
    backend="auto",
    runs=("cpu",),
    versions={"interp": "0.1.0", "torch": "2.13.0"},
)
CHANGES: dict[str, Any] = {
    "model": {"name": "m", "sha256": "2" * 64},
    "text": {"kind": "file", "name": "a.txt", "sha256": "2" * 64},
    "statistics": ("entropy",),
    "layers": (0, 1),
    "context": 1024,
    "shard": 5,
    "max_tokens": 100,
    "join": True,
    "special": ((), (1,)),
    "bos": "forced off",
    "dtype": "bfloat16",
    "device": "cuda",
    "threads": 1,
    "backend": "portable",
    "runs": ("portable",),
    "versions": {"interp": "0.1.1", "torch": "2.13.0"},
    "batch": 2,
    "pack": True,
    "bucket": 8,
}


def test_every_field_is_tried() -> None:
    assert set(CHANGES) == {f.name for f in fields(Plan)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_key(name: str) -> None:
    assert replace(PLAN, **{name: CHANGES[name]}).key != PLAN.key


def test_key_survives_a_trip_through_a_file() -> None:
    assert plan_key(json.loads(json.dumps(PLAN.record()))) == PLAN.key
    assert plan_key(dict(reversed(PLAN.record().items()))) == PLAN.key


def test_same_plan_is_accepted() -> None:
    refuse_other_plan(json.loads(json.dumps(PLAN.record())), PLAN.record(), "runs/x")


def test_refusal_names_every_difference() -> None:
    other = replace(PLAN, context=1024, threads=1, text={**PLAN.text, "sha256": "2" * 64})
    with pytest.raises(PlanMismatchError) as caught:
        refuse_other_plan(PLAN.record(), other.record(), "runs/x")
    message = str(caught.value)
    assert message.startswith("runs/x holds a job with another plan")
    assert "context: 2048 / 1024" in message
    assert "threads: 2 / 1" in message
    assert 'text.sha256: "111' in message
    assert "shard" not in message


def test_definition_of_a_statistic_is_part_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.stats.catalogue import STATISTICS

    before = PLAN.key
    monkeypatch.setitem(STATISTICS, "entropy", replace(STATISTICS["entropy"], formula="something else"))
    assert PLAN.key != before


def test_impossible_plans() -> None:
    with pytest.raises(OptionError, match="shard must be at least 1"):
        replace(PLAN, shard=0)
    with pytest.raises(OptionError, match="no statistic"):
        replace(PLAN, statistics=())
