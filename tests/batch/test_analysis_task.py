"""Analyses as jobs: the same numbers as the analysis called by itself, kept part by part, whatever is interrupted."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp.batch.analysis_task import WHOLE, AnalysisTask, analysis_runner, whole
from interp.batch.endings import IncompleteJobError
from interp.batch.engine_local import LocalEngine
from interp.batch.job import run_job
from interp.batch.places import LocalPlace
from interp.batch.status import job_status
from interp.batch.task import ModelChoice
from interp.errors import CaptureError, CorruptFileError, OptionError, OutputError, PlanMismatchError
from interp.heads.copying import copying
from interp.heads.labels import Rules
from interp.heads.report import load_report, report
from interp.models.hooked import HookedModel
from interp.models.load import load
from interp.results import Result
from interp.sinks.report import report as sinks_report

PARTS = ["copying", "random tokens", "features"]
HEADS = {"tokens": 64, "samples": 2, "parts": PARTS, "seed": 3}
SINKS = {"tokens": 29, "sequences": 3, "long_tokens": 61, "form": "paper", "seed": 5}


@pytest.fixture(scope="module")
def gpt2() -> Iterator[HookedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load("tiny/gpt2")
    torch.set_num_threads(threads)


def heads(model: HookedModel, **more: object) -> AnalysisTask:
    return AnalysisTask(model=model, analysis="heads.report", settings=HEADS, **more)  # type: ignore[arg-type]


def test_a_report_of_heads_is_that_of_the_analysis_itself(gpt2: HookedModel, tmp_path: Path) -> None:
    wanted = report(gpt2, folder=tmp_path / "plain", tokens=64, samples=2, parts=PARTS, seed=3)
    steps: list[tuple[str, int, int]] = []
    result = run_job(heads(gpt2, say=lambda *step: steps.append(step)), tmp_path / "job")
    pd.testing.assert_frame_equal(result.table, wanted.table)
    assert {part["outcome"] for part in result.manifest["parts"].values()} == {"measured"}
    assert {name for name, _, _ in steps} == set(PARTS)
    wide, parts = load_report(tmp_path / "job")
    pd.testing.assert_frame_equal(wide.table, wanted.table)
    assert set(parts) == {"copying", "previous_token", "duplicate_token", "induction", "features"}
    status = job_status(tmp_path / "job")
    assert (status.kind, status.state, status.shards, status.shards_total) == ("heads.report", "finished", 3, 3)
    # finished: other rules label anew, and nothing is measured
    steps.clear()
    strict = run_job(heads(gpt2, choices={"rules": Rules(duplicate=0.0)}), tmp_path / "job")
    assert steps == []
    assert {part["outcome"] for part in strict.manifest["parts"].values()} == {"used again"}
    relabelled = report(
        gpt2, folder=tmp_path / "plain", tokens=64, samples=2, parts=PARTS, seed=3, rules=Rules(duplicate=0.0)
    )
    pd.testing.assert_frame_equal(strict.table, relabelled.table)
    with pytest.raises(PlanMismatchError, match=r"settings\.seed: 3 / 4"):
        run_job(AnalysisTask(model=gpt2, analysis="heads.report", settings={**HEADS, "seed": 4}), tmp_path / "job")


def test_parts_that_are_there_are_not_measured_again(
    gpt2: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(heads(gpt2), tmp_path)
    before = Result.load(tmp_path / "report").table
    (tmp_path / "report" / "manifest.json").unlink()
    (tmp_path / "parts" / "000001.zip").unlink()
    names: set[str] = set()
    run_job(heads(gpt2, say=lambda name, done, total: names.add(name)), tmp_path)
    assert names == {"random tokens"}
    pd.testing.assert_frame_equal(Result.load(tmp_path / "report").table, before)


def test_what_a_model_cannot_do_is_named(tmp_path: Path) -> None:
    settings = {**HEADS, "parts": ["copying", "random tokens", "retrieval"]}
    result = run_job(AnalysisTask(model=load("tiny/bert"), analysis="heads.report", settings=settings), tmp_path)
    assert {part["outcome"] for part in result.manifest["parts"].values()} == {"not measured"}
    assert all("causal" in part["reason"] for part in result.manifest["parts"].values())


def test_sinks_are_those_of_the_analysis_itself(gpt2: HookedModel, tmp_path: Path) -> None:
    wanted = sinks_report(gpt2, tokens=29, count=3, long_tokens=61, form="paper", seed=5)
    task = AnalysisTask(model=gpt2, analysis="sinks", settings=SINKS)
    result = run_job(task, tmp_path)
    pd.testing.assert_frame_equal(result.table, wanted.table)
    saved = Result.load(tmp_path)
    pd.testing.assert_frame_equal(saved.table, wanted.table)
    assert set(saved.arrays) == set(wanted.arrays)
    assert saved.manifest["settings"]["sequences"] == 3
    assert {p.name for p in tmp_path.iterdir()} == {"table.parquet", "arrays.safetensors", "manifest.json", "parts"}
    pd.testing.assert_frame_equal(run_job(task, tmp_path).table, wanted.table)
    with pytest.raises(PlanMismatchError, match=r"settings\.sequences: 3 / 4"):
        run_job(AnalysisTask(model=gpt2, analysis="sinks", settings={**SINKS, "sequences": 4}), tmp_path)
    with pytest.raises(PlanMismatchError, match="holds a sinks job"):
        run_job(
            AnalysisTask(model=gpt2, analysis="entropy", settings={"tokens": 16, "sequences": 2, "seed": 0}), tmp_path
        )


def test_a_part_that_fails_is_left_out_and_said(
    gpt2: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.batch import analysis_task

    real = analysis_task.heads_report

    def fail(model: HookedModel, **options: object) -> Result:
        if options["parts"] == ["features"]:
            raise RuntimeError("no memory")
        return real(model, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(analysis_task, "heads_report", fail)
        with pytest.raises(IncompleteJobError, match="1 of 3 shards are missing") as caught:
            run_job(heads(gpt2), tmp_path)
    assert "copying" in caught.value.result.table
    assert "features" not in caught.value.result.table
    job = json.loads((tmp_path / "report" / "manifest.json").read_text())["job"]
    assert job["set_aside"] == [{"part": "features", "error": "RuntimeError: no memory"}]
    assert job_status(tmp_path).state == "incomplete"
    assert "features" in run_job(heads(gpt2), tmp_path).table


def test_damaged_and_hostile_archives(gpt2: HookedModel, tmp_path: Path) -> None:
    task = AnalysisTask(model=gpt2, analysis="sinks", settings=SINKS)
    run_job(task, tmp_path)
    (tmp_path / "manifest.json").unlink()
    shard = tmp_path / "parts" / "000000.zip"
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    with pytest.raises(CorruptFileError, match=r"000000\.zip is damaged"):
        run_job(task, tmp_path)
    with zipfile.ZipFile(shard, "w") as archive:
        archive.comment = b"0123456789abcdef"
        archive.writestr("../../evil", "x")
    with pytest.raises(PlanMismatchError, match="another plan"):
        run_job(task, tmp_path)
    with zipfile.ZipFile(shard, "w") as archive:
        archive.comment = job_status(tmp_path).key.encode()
        archive.writestr("../../evil", "x")
    with pytest.raises(CorruptFileError, match="outside its folder"):
        run_job(task, tmp_path)
    assert not (tmp_path.parent / "evil").exists()


def test_errors_raised_on_purpose_and_unknown_names(gpt2: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"an analysis must be one of heads\.report, sinks, entropy"):
        AnalysisTask(model=gpt2, analysis="heads", settings={})
    with pytest.raises(OptionError, match="parts must be among"):
        run_job(
            AnalysisTask(model=gpt2, analysis="heads.report", settings={**HEADS, "parts": ["copy"]}), tmp_path / "a"
        )
    with pytest.raises((OptionError, CaptureError), match="tokens"):
        run_job(AnalysisTask(model=gpt2, analysis="heads.report", settings={**HEADS, "tokens": 10**6}), tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "table.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds table\.parquet but no plan\.json"):
        run_job(AnalysisTask(model=gpt2, analysis="sinks", settings=SINKS), tmp_path / "c")


def test_an_analysis_that_only_this_process_knows(gpt2: HookedModel, tmp_path: Path) -> None:
    wanted = copying(gpt2, samples=2, seed=7)
    steps: list[tuple[str, int, int]] = []
    task = AnalysisTask(
        model=gpt2,
        analysis="heads.copying",
        settings={"samples": 2, "seed": 7},
        made=whole(copying, {"samples": "samples", "seed": "seed"}),
        say=lambda *step: steps.append(step),
    )
    pd.testing.assert_frame_equal(run_job(task, tmp_path).table, wanted.table)
    assert steps and {part for part, _, _ in steps} == {WHOLE}
    saved = Result.load(tmp_path)
    pd.testing.assert_frame_equal(saved.table, wanted.table)
    np.testing.assert_array_equal(saved.arrays["score"], wanted.arrays["score"])
    steps.clear()
    run_job(task, tmp_path)
    assert steps == [], "a finished one is used as it is"
    with pytest.raises(PlanMismatchError, match=r"settings\.seed: 7 / 8"):
        run_job(replace(task, settings={"samples": 2, "seed": 8}), tmp_path)
    choice = ModelChoice(name="tiny/gpt2", threads=1)
    with pytest.raises(OptionError, match=r"heads\.copying runs in one process"):
        run_job(replace(task, choice=choice), tmp_path / "other", engine=LocalEngine(workers=1))


def test_steps_are_signs_of_life(gpt2: HookedModel, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    runner = analysis_runner(gpt2, AnalysisTask(model=gpt2, analysis="sinks", settings=SINKS).record())
    unit = next(AnalysisTask(model=gpt2, analysis="sinks", settings=SINKS).units())
    runner.run(unit, LocalPlace(folder=tmp_path), lambda tokens, seconds: told.append((tokens, seconds)))
    assert len(told) > 2 and set(told[:-1]) == {(0, 0.0)} and told[-1][1] > 0


@pytest.mark.medium
def test_workers_measure_parts(gpt2: HookedModel, tmp_path: Path) -> None:
    wanted = report(gpt2, folder=tmp_path / "plain", tokens=64, samples=2, parts=PARTS, seed=3)
    choice = ModelChoice(name="tiny/gpt2", threads=1)
    result = run_job(heads(gpt2, choice=choice), tmp_path / "job", engine=LocalEngine(workers=2))
    pd.testing.assert_frame_equal(result.table, wanted.table)
