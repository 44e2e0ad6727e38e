"""Parts of a job: what independent processes measure folds to the bytes of one process, and other plans are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.batch.array import Part, run_part
from interp.batch.endings import IncompleteJobError
from interp.batch.scan import scan, scan_task
from interp.errors import OptionError, OutputError, PlanMismatchError
from interp.models.toy import tiny

TEXTS = [f"The {n} clocks were striking thirteen, thirteen, thirteen, and the wind was vile. " * 2 for n in range(7)]
SETTINGS: dict[str, Any] = {"context": 64, "shard": 2, "thumbnails": 0}


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_fold_to_the_whole(tmp_path: Path, parts: int) -> None:
    model = tiny("llama")
    whole = scan(model, TEXTS, out=tmp_path / "whole", **SETTINGS)
    together = tmp_path / "together"
    done = [
        run_part(scan_task(model, TEXTS, **SETTINGS), together, Part(number=i, of=parts)) for i in range(parts, 0, -1)
    ]
    assert sum(d.shards for d in done) == whole.manifest["shards"] >= 5
    assert sum(d.tokens for d in done) == whole.manifest["tokens"]["tokens"]
    folded = scan(model, TEXTS, out=together, measure=False, **SETTINGS)
    assert (together / "stats.parquet").read_bytes() == (tmp_path / "whole/stats.parquet").read_bytes()
    assert folded.manifest["tokens"] == whole.manifest["tokens"]


def test_a_part_again_measures_nothing(tmp_path: Path) -> None:
    task = scan_task(tiny("llama"), TEXTS, **SETTINGS)
    part = Part(number=2, of=3)
    first = run_part(task, tmp_path, part)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.parquet")}
    assert run_part(task, tmp_path, part) == first and len(before) == first.shards
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.parquet")}


def test_parts_whose_shards_lie_elsewhere(tmp_path: Path) -> None:
    model = tiny("llama")
    scan(model, TEXTS, out=tmp_path / "whole", **SETTINGS)
    together, url = tmp_path / "together", f"memory://{tmp_path.name}/parts"
    for i in (2, 1):
        run_part(scan_task(model, TEXTS, **SETTINGS), together, Part(number=i, of=2), shards=url)
    with pytest.raises(OutputError, match="was asked for"):
        run_part(scan_task(model, TEXTS, **SETTINGS), together, Part(number=1, of=2), shards=str(tmp_path / "x"))
    scan(model, TEXTS, out=together, measure=False, **SETTINGS)
    assert (together / "stats.parquet").read_bytes() == (tmp_path / "whole/stats.parquet").read_bytes()
    assert not list(together.rglob("[0-9]*.parquet"))


def test_missing_parts_are_said(tmp_path: Path) -> None:
    model = tiny("llama")
    run_part(scan_task(model, TEXTS, **SETTINGS), tmp_path, Part(number=1, of=2))
    with pytest.raises(IncompleteJobError, match="shards are missing"):
        scan(model, TEXTS, out=tmp_path, measure=False, **SETTINGS)


def test_more_parts_than_shards(tmp_path: Path) -> None:
    done = run_part(scan_task(tiny("llama"), TEXTS[:1], **SETTINGS), tmp_path, Part(number=9, of=9))
    assert (done.shards, done.tokens) == (0, 0)


def test_another_plan_is_refused(tmp_path: Path) -> None:
    model = tiny("llama")
    run_part(scan_task(model, TEXTS, **SETTINGS), tmp_path, Part(number=1, of=2))
    other = scan_task(model, TEXTS, **{**SETTINGS, "context": 48})
    with pytest.raises(PlanMismatchError, match="context: 64 / 48"):
        run_part(other, tmp_path, Part(number=2, of=2))


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "1/0", "-1/2"])
def test_no_such_part(text: str) -> None:
    with pytest.raises(OptionError, match="part must"):
        Part.parse(text)


def test_parse() -> None:
    assert Part.parse("2/8") == Part(number=2, of=8)
