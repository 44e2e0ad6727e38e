"""`interp calibrate`: a folder that holds the result and the file, the same command again, wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.batch.lock import locked
from interp.cli.main import app
from interp.results import Result

QUICK = ("--task", "succession", "--prompts", "4", "--heads", "3", "--draws", "2")


def interp(*words: str | Path) -> Ran:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


def test_a_calibration_is_searched_tested_and_saved(tmp_path: Path) -> None:
    out = tmp_path / "c"
    ran = interp(
        "calibrate", "tiny/llama", *QUICK, "--method", "temperature", "--margin", "-99", "--most", "2", "-o", out
    )
    assert ran.exit_code == 0, ran.stderr
    assert "option log-probability" in ran.stdout
    assert "random heads" in ran.stdout
    saved = Result.load(out / "result")
    assert (saved.kind, saved.manifest["task"]["name"], len(saved.manifest["calibrated"])) == (
        "calibration",
        "succession",
        2,
    )
    record = json.loads((out / "calibration.json").read_text())
    assert record["method"]["name"] == "temperature"
    assert (out / "calibration.html").exists()
    ledger = (out / "parts" / "search.json").stat().st_mtime_ns
    again = interp("calibrate", "tiny/llama", *QUICK, "--method", "temperature", "--margin", "1e6", "-o", out, "--json")
    assert again.exit_code == 0, again.stderr
    assert (out / "parts" / "search.json").stat().st_mtime_ns == ledger, "no pass of the search is repeated"
    rows = [json.loads(line) for line in again.stdout.splitlines()]
    assert [row["score"] for row in rows] == [0.0, 0.0, 0.0]
    assert not (out / "calibration.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--task", "riddles"),
        ("--method", "atc"),
        ("--heads", "few"),
        ("--layers", "a-b"),
        ("--metric", "loss"),
        ("--detection", "code", "--method", "var"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    ran = interp("calibrate", "tiny/llama", *words, "--out", tmp_path / "a")
    assert ran.exit_code == 2, ran.stderr
    assert not (tmp_path / "a").exists()


def test_a_folder_of_something_else_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "mine.txt").write_text("x")
    ran = interp("calibrate", "no/such/model", "--out", tmp_path)
    assert ran.exit_code == 1
    assert "choose a new folder" in ran.stderr


def test_a_method_that_changes_nothing_says_so(tmp_path: Path) -> None:
    ran = interp("calibrate", "tiny/llama", *QUICK, "--method", "act", "--layers", "0", "--out", tmp_path / "c")
    assert ran.exit_code == 0, ran.stderr
    moved = Result.load(tmp_path / "c" / "result").manifest["moved"]
    assert ("changes no head" in ran.stderr) == (moved == 0)
    code = interp("calibrate", "tiny/llama", *QUICK, "--detection", "code", "--layers", "0", "--out", tmp_path / "d")
    assert code.exit_code == 0, code.stderr
    found = Result.load(tmp_path / "d" / "result").manifest
    assert found["settings"]["calibration"]["detection"] == "code"
    assert found["moved"] > moved


def test_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with locked(tmp_path / "parts"):
        ran = interp("calibrate", "tiny/llama", *QUICK, "--out", tmp_path)
    assert (ran.exit_code, "another process" in ran.stderr) == (1, True)
    assert not (tmp_path / "result").exists()
