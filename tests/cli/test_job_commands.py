"""`interp job`: status, going on and merging by the folder alone; workers on the command line; exit code 3; progress of several workers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.batch.events import Event
from interp.batch.failures import Failure, log_failure
from interp.batch.lock import locked
from interp.cli.main import app
from interp.cli.progress import watching

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 12
SHARDS = 5
"""624 bytes in contexts of 47 and BOS: 13 contexts and a rest of 13, which is dropped; three to a shard."""


def interp(*words: str | Path) -> Ran:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


def events(ran: Ran) -> list[dict[str, object]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    words = (
        "--context",
        "48",
        "--per-shard",
        "3",
        "--threads",
        "1",
        "--statistics",
        "entropy,alpha",
        "--thumbnails",
        "0",
    )
    ran = interp("scan", "tiny/llama", "--text", folder / "a.txt", "--out", folder / "out", *words, "--quiet")
    assert ran.exit_code == 0, ran.stderr
    return folder


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """The same job without two of its shards, moved to another place with its text."""
    shutil.copytree(whole, tmp_path / "moved")
    out = tmp_path / "moved" / "out"
    (out / "manifest.json").unlink()
    (out / "stats.parquet").unlink()
    for index in (1, 4):
        (out / "parts" / f"{index:06d}.parquet").unlink()
    return out


def test_status(whole: Path, cut: Path) -> None:
    (found,) = events(interp("job", "status", whole / "out", "--json"))
    assert (found["kind"], found["state"], found["shards"], found["shards_total"]) == (
        "scan",
        "finished",
        SHARDS,
        SHARDS,
    )
    (found,) = events(interp("job", "status", cut, "--json"))
    assert (found["state"], found["shards"], found["failures"], found["process"]) == ("stopped", 3, [], None)
    log_failure(
        cut / "parts", Failure(shard=4, attempt=3, set_aside=True, worker=1, error="RuntimeError: [bold]no[/bold]")
    )
    shown = interp("job", "status", cut)
    assert shown.exit_code == 0
    assert "3 of 5" in shown.stdout
    assert "RuntimeError: [bold]no[/bold]" in shown.stdout
    assert "interp job resume" in shown.stderr
    with locked(cut / "parts"):
        (found,) = events(interp("job", "status", cut, "--json"))
        assert found["state"] == "running"
        busy = interp("job", "resume", cut)
    assert busy.exit_code == 1
    assert "another process" in busy.stderr


def test_resume_needs_the_folder_alone(whole: Path, cut: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    ran = interp("job", "resume", cut, "--json")
    assert ran.exit_code == 0, ran.stderr
    told = events(ran)
    assert [e["event"] for e in told] == ["plan", *["shard"] * SHARDS, "done"]
    assert told[0]["message"] == "3 shards are there already"
    assert (cut / "stats.parquet").read_bytes() == (whole / "out" / "stats.parquet").read_bytes()
    again = interp("job", "resume", cut, "--json")
    assert [(e["event"], e["message"]) for e in events(again)] == [("done", "already done")]


def test_merge_makes_do_with_what_is_there(whole: Path, cut: Path) -> None:
    ran = interp("job", "merge", cut, "--json")
    assert ran.exit_code == 3, ran.stderr
    assert events(ran)[-1]["event"] == "incomplete"
    assert "2 of 5 shards are missing (1, 4; shard 1: not measured)" in ran.stderr
    manifest = json.loads((cut / "manifest.json").read_text(encoding="utf-8"))
    assert [x["shard"] for x in manifest["set_aside"]] == [1, 4]
    assert manifest["tokens"]["measured"] == 9 * 48 == manifest["tokens"]["tokens"] - 4 * 48
    assert interp("show", cut).exit_code == 0
    assert "incomplete" in interp("job", "status", cut).stdout
    assert interp("job", "merge", cut, "-q").exit_code == 3
    assert interp("job", "resume", cut, "-q").exit_code == 0
    assert (cut / "stats.parquet").read_bytes() == (whole / "out" / "stats.parquet").read_bytes()
    assert interp("job", "merge", cut, "-q").exit_code == 0


def test_no_plan_and_no_result_names_a_place(whole: Path) -> None:
    command = whole / "out" / "parts" / "command.json"
    assert json.loads(command.read_text(encoding="utf-8"))["files"] == {"text": "../a.txt"}
    for path in (whole / "out").rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert str(whole).encode() not in path.read_bytes(), path.name


def test_folders_without_a_job(tmp_path: Path, cut: Path) -> None:
    for words in (("status",), ("resume",), ("merge",)):
        ran = interp("job", *words, tmp_path)
        assert ran.exit_code == 1
        assert "holds no job" in ran.stderr
    (cut / "parts" / "command.json").write_text("{", encoding="utf-8")
    assert "cannot be read" in interp("job", "resume", cut).stderr
    (cut / "parts" / "command.json").write_text(
        json.dumps({"words": ["dance"], "files": {}, "named": {}, "options": {}}), encoding="utf-8"
    )
    assert "no such command" in interp("job", "resume", cut).stderr


@pytest.mark.parametrize("words", [("--workers", "0"), ("--engine", "cloud"), ("--batch", "0")])
def test_wrong_usage(tmp_path: Path, words: tuple[str, str]) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    ran = interp("scan", "tiny/llama", "--text", tmp_path / "a.txt", "--out", tmp_path / "never", *words)
    assert ran.exit_code == 2, ran.stderr
    assert not (tmp_path / "never").exists()


def test_analyses_are_jobs(tmp_path: Path) -> None:
    words = ("--tokens", "32", "--sequences", "2", "--threads", "1", "-q")
    ran = interp("entropy", "tiny/llama", "--out", tmp_path / "e", *words)
    assert ran.exit_code == 0, ran.stderr
    (found,) = events(interp("job", "status", tmp_path / "e", "--json"))
    assert (found["kind"], found["state"], found["shards"]) == ("entropy", "finished", 1)
    before = (tmp_path / "e" / "table.parquet").read_bytes()
    (tmp_path / "e" / "manifest.json").unlink()
    (tmp_path / "e" / "parts" / "000000.zip").unlink()
    again = interp("job", "resume", tmp_path / "e", "-q")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "e" / "table.parquet").read_bytes() == before
    other = interp("entropy", "tiny/llama", "--out", tmp_path / "e", *words[:2], "--sequences", "3", "--threads", "1")
    assert other.exit_code == 1
    assert "settings.sequences: 2 / 3" in other.stderr


@pytest.mark.medium
def test_workers_on_the_command_line(whole: Path, cut: Path) -> None:
    ran = interp("job", "resume", cut, "--workers", "1", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert {e.get("worker") for e in events(ran)} == {None, 0}
    assert (cut / "stats.parquet").read_bytes() == (whole / "out" / "stats.parquet").read_bytes()


def test_bars_of_workers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with watching("scan x", as_json=False, quiet=False) as watch:
        for measured, worker in ((30, 0), (70, 1), (90, 0), (90, 1)):
            counts = {"tokens": measured, "tokens_total": 180, "measured": measured, "seconds": 1.0, "workers": 2}
            failed = (
                {"kind": "failed", "message": "shard 3 failed\x1b[2J"}
                if (measured, worker) == (90, 1)
                else {"kind": "context"}
            )
            watch(Event(key="k", worker=worker, **counts, **failed))  # type: ignore[arg-type]
    shown = capsys.readouterr().err
    assert "worker 0" in shown and "worker 1" in shown
    assert "50 tokens" in shown and "40 tokens" in shown and "90 tokens 180 tokens/s, 0:00 left" in shown
    assert "shard 3 failed\\x1b[2J" in shown
