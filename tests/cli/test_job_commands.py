"""`interp job`: status, going on and merging by the folder alone; workers on the command line; exit code 3; progress of several workers."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.batch.events import Event
from interp.batch.failures import Failure, log_failure
from interp.batch.lock import locked
from interp.cli.main import app
from interp.cli.progress import watching
from interp.results import Result

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 12
SETTINGS = ("--context", "48", "--per-shard", "3", "--threads", "1", "--thumbnails", "0")
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
    words = (*SETTINGS, "--statistics", "entropy,alpha")
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


@pytest.mark.parametrize("words", [("--workers", "0"), ("--engine", "cloud"), ("--batch", "0"), ("--patience", "9")])
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


@pytest.mark.parametrize(
    "words",
    [
        ("previous-token", "--samples", "2"),
        ("induction", "--form", "text", "--samples", "2", "--tokens", "64"),
        ("copying", "--samples", "2"),
        ("streaming", "--samples", "2", "--tokens", "64", "--sinks", "2", "--window", "8"),
    ],
    ids=lambda words: words[0],
)
def test_single_analyses_are_jobs(tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "h"
    ran = interp("heads", words[0], "tiny/llama", "--out", out, *words[1:], "--threads", "1", "-q")
    assert ran.exit_code == 0, ran.stderr
    (found,) = events(interp("job", "status", out, "--json"))
    kind = f"heads.{words[0].replace('-', '_')}"
    assert (found["kind"], found["state"], found["shards"], found["shards_total"]) == (kind, "finished", 1, 1)
    assert Result.load(out).kind == kind
    before = (out / "table.parquet").read_bytes()
    (out / "manifest.json").unlink()
    (out / "parts" / "000000.zip").unlink()
    monkeypatch.chdir(tmp_path)
    assert events(interp("job", "status", out, "--json"))[0]["state"] == "stopped"
    assert interp("job", "merge", out).exit_code == 1, "there is nothing to merge"
    again = interp("job", "resume", out, "-q")
    assert again.exit_code == 0, again.stderr
    assert (out / "table.parquet").read_bytes() == before
    other = interp("heads", words[0], "tiny/llama", "--out", out, *words[1:], "--seed", "9", "--threads", "1", "-q")
    assert other.exit_code == 1
    assert "settings.seed: 0 / 9" in other.stderr
    assert (out / "table.parquet").read_bytes() == before


def test_every_analysis_of_heads_is_a_job(tmp_path: Path) -> None:
    """Each command takes its folder before it measures: a folder that another process works on is refused."""
    names = (
        "retrieval", "qrhead", "streaming", "previous-token", "duplicate-token", "induction",
        "successor", "successor-probe", "succession-attention", "copying", "patterns", "flexprefill",
    )  # fmt: skip
    (tmp_path / "parts").mkdir()
    with locked(tmp_path / "parts"):
        for name in names:
            ran = interp("heads", name, "tiny/llama", "--out", tmp_path, "-q")
            assert (ran.exit_code, "another process" in ran.stderr) == (1, True), name


def test_a_single_analysis_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("interp.heads.copying")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory")

    words = ("heads", "copying", "tiny/llama", "--out", tmp_path, "--samples", "2", "--threads", "1", "-q")
    with monkeypatch.context() as patch:
        patch.setattr(module, "copying", fail)
        ran = interp(*words)
    assert ran.exit_code == 1
    assert "RuntimeError: no memory" in ran.stderr
    (found,) = events(interp("job", "status", tmp_path, "--json"))
    assert [f["set_aside"] for f in found["failures"]] == [False, False, True]  # type: ignore[attr-defined, index]
    unfit = interp("job", "resume", tmp_path, "--workers", "2")
    assert unfit.exit_code == 2
    assert "has no --workers" in unfit.stderr
    assert interp("job", "resume", tmp_path, "-q").exit_code == 0


def test_shards_in_another_place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ("scan", "tiny/llama", "--text", "a.txt", "--out", "out", *SETTINGS)
    words = (*words, "--statistics", "entropy,alpha", "-q", "--shards")
    assert interp(*words, "there").exit_code == 0
    out, there = tmp_path / "out", tmp_path / "there"
    assert len(list(there.glob("[0-9]*.parquet"))) == SHARDS
    assert not list((out / "parts").glob("*.parquet"))
    assert (out / "stats.parquet").read_bytes() == (whole / "out" / "stats.parquet").read_bytes()
    record = json.loads((out / "parts" / "plan.json").read_text(encoding="utf-8"))
    assert record["shards_at"] == "../there"
    assert record["key"] == json.loads((whole / "out" / "parts" / "plan.json").read_text(encoding="utf-8"))["key"]
    (out / "manifest.json").unlink()
    (there / "000002.parquet").unlink()
    # all of it moved, and nothing said but the folder
    (tmp_path / "b").mkdir()
    for name in ("out", "there", "a.txt"):
        shutil.move(tmp_path / name, tmp_path / "b" / name)
    (found,) = events(interp("job", "status", "b/out", "--json"))
    assert (found["state"], found["shards"], found["shards_total"]) == ("stopped", SHARDS - 1, SHARDS)
    assert interp("job", "merge", "b/out", "-q").exit_code == 3
    assert interp("job", "resume", "b/out", "-q").exit_code == 0
    assert len(list((tmp_path / "b" / "there").glob("[0-9]*.parquet"))) == SHARDS
    assert (tmp_path / "b/out/stats.parquet").read_bytes() == (whole / "out" / "stats.parquet").read_bytes()
    monkeypatch.chdir(tmp_path / "b")
    other = interp(*words, "elsewhere")
    assert other.exit_code == 1
    assert "lie in" in other.stderr and "elsewhere was asked for" in other.stderr
    assert not (tmp_path / "b" / "elsewhere").exists()


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Scans of two models; of the second one shard is lost, and its result."""
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "many"
    words = ("--text", tmp_path / "a.txt", *SETTINGS, "-q")
    ran = interp("scan", "tiny/llama", "--model", "tiny/gpt2", *words, "--statistics", "entropy", "--out", out)
    assert ran.exit_code == 0, ran.stderr
    (out / "model=gpt2" / "manifest.json").unlink()
    (out / "model=gpt2" / "parts" / "000001.parquet").unlink()
    return out


def test_jobs_of_several_models(several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in several.glob("model=*/stats.parquet")}
    llama, gpt2, both = events(interp("job", "status", several, "--json"))
    assert [llama["model"], llama["state"], llama["shards"]] == ["llama", "finished", SHARDS]
    assert [gpt2["model"], gpt2["state"], gpt2["shards"]] == ["gpt2", "stopped", SHARDS - 1]
    assert both == {
        "models": 2, "state": "stopped", "shards": 2 * SHARDS - 1, "shards_total": 2 * SHARDS, "failures": 0,
    }  # fmt: skip
    shown = interp("job", "status", several)
    assert "9 of 10" in shown.stdout and "all 2" in shown.stdout
    assert "goes on with all of them" in shown.stderr
    merged = interp("job", "merge", several, "-q")
    assert merged.exit_code == 3
    assert "gpt2: 1 of 5 shards are missing" in merged.stderr
    assert events(interp("job", "status", several, "--json"))[2]["state"] == "incomplete"
    # a third model that was not begun yet, as after a kill
    record = json.loads((several / "models.json").read_text(encoding="utf-8"))
    shutil.rmtree(several / "model=gpt2")
    left = events(interp("job", "status", several, "--json"))
    assert [(x.get("model"), x["state"]) for x in left] == [
        ("llama", "finished"),
        ("gpt2", "not begun"),
        (None, "stopped"),
    ]
    failed = interp("job", "merge", several, "-q")
    assert failed.exit_code == 1, "nothing of one model is worse than some shards"
    assert "gpt2: no shard could be measured" in failed.stderr
    assert interp("job", "resume", several, "-q").exit_code == 0
    assert {path: path.read_bytes() for path in several.glob("model=*/stats.parquet")} == before
    assert json.loads((several / "models.json").read_text(encoding="utf-8")) == record
    assert events(interp("job", "status", several, "--json"))[2]["state"] == "finished"
    one = interp("job", "resume", several / "model=gpt2")
    assert one.exit_code == 1
    assert "give the folder of all of them" in one.stderr


def test_shards_of_several_models_in_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TEXT, encoding="utf-8")
    words = ("--text", "a.txt", "--context", "48", "--per-shard", "9", "--threads", "1", "--thumbnails", "0", "-q")
    words = (*words, "--statistics", "entropy", "--out", "many", "--shards", "there")
    assert interp("scan", "tiny/llama", "--model", "tiny/gpt2", *words).exit_code == 0
    assert {path.parent.name for path in Path("there").glob("*/000001.parquet")} == {"model=llama", "model=gpt2"}
    # the second model as it was before it began
    shutil.rmtree(tmp_path / "many/model=gpt2")
    shutil.rmtree(tmp_path / "there/model=gpt2")
    monkeypatch.chdir(tmp_path / "many")
    assert interp("job", "resume", tmp_path / "many", "-q").exit_code == 0
    assert len(list((tmp_path / "there/model=gpt2").glob("*.parquet"))) == 2
    (*_, both) = events(interp("job", "status", tmp_path / "many", "--json"))
    assert (both["state"], both["shards"], both["shards_total"]) == ("finished", 4, 4)
    assert not list((tmp_path / "many").rglob("[0-9]*.parquet"))


def test_a_model_that_fails_does_not_keep_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    words = ("--text", tmp_path / "a.txt", "--context", "48", "--threads", "1", "--thumbnails", "0", "-q", "--offline")
    words = (*words, "--statistics", "entropy", "--out", tmp_path / "many")
    ran = interp("scan", "tiny/llama", "--model", "no/such-model", "--model", "tiny/gpt2", *words)
    assert ran.exit_code == 1
    assert "no/such-model" in ran.stderr
    assert {path.parent.name for path in (tmp_path / "many").glob("*/stats.parquet")} == {"model=llama", "model=gpt2"}


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
