"""Analyses that keep their own steps are jobs too: stopped in the middle they go on behind the last step, and end as if undisturbed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.batch.lock import locked
from interp.cli.main import app
from interp.heads import duo_gates
from interp.heads.published import read_gates
from interp.ledger import Ledger, Metrics
from interp.results import Result
from interp.tasks.prompt import Prompt

ANSWER = {"answer": "a needle"}
LIKE = ("--model", "tiny/llama", "--threads", "1")
SIZES = ("--sinks", "2", "--window", "9", "--tokens", "61", "--samples", "1", "--draws", "2", "--threads", "1")
TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 40


def interp(*words: str | Path) -> Ran:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


def status(folder: Path) -> dict[str, Any]:
    ran = interp("job", "status", folder, "--json")
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of tiny/llama with a label, scores for a deployment, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "long.txt").write_text(TEXT, encoding="utf-8")
    words = ("--tokens", "64", "--samples", "2", "--parts", "copying,random tokens,features", "--pages", "0", "-q")
    report = interp("heads", "report", "tiny/llama", "--out", folder / "r", *words, "--rule", "duplicate=0.0")
    assert report.exit_code == 0, report.stderr
    words = ("--form", "output", "--tokens", "61", "--samples", "2", "--sinks", "2", "--window", "9", "-q")
    scores = interp("heads", "streaming", "tiny/llama", "--out", folder / "scores", *words)
    assert scores.exit_code == 0, scores.stderr
    return folder


@pytest.fixture(autouse=True)
def short_needles(monkeypatch: pytest.MonkeyPatch, inputs: Path) -> None:
    """Needle prompts that a tiny model reads, and scores to rank its heads by."""
    asked = Prompt(ids=tuple(range(7, 90)), answer=(), meta=ANSWER)
    monkeypatch.setattr("interp.tasks.needle.prompts", lambda *given, **more: [asked])
    module = import_module("interp.heads.report")
    wide, _ = module.load_report(inputs / "r")
    scores = {"retrieval": Result.load(inputs / "scores")}
    monkeypatch.setattr(module, "load_report", lambda folder: (wide, scores))


CASES: dict[str, Callable[[Path], tuple[str | Path, ...]]] = {
    "confirm": lambda at: ("heads", "confirm", at / "r", "--kinds", "zero", "--draws", "2", *LIKE),
    "causal_retrieval": lambda at: ("heads", "causal", at / "r", "--k", "1,2", "--draws", "2", *LIKE),
    "deployment": lambda at: ("heads", "deploy", "tiny/llama", at / "scores", *SIZES),
    "streaming": lambda at: (
        *("sinks", "streaming", "tiny/llama", "--tokens", "61", "--pieces", "2", "--size", "17", "--sinks", "1,4"),
        *("--newline", "17", "--text", at / "long.txt", "--threads", "1"),
    ),
}  # fmt: skip


def tables(folder: Path) -> dict[str, bytes]:
    """Every table under a job's folder but those of its parts."""
    found = {p.relative_to(folder): p for p in folder.rglob("*.parquet") if "parts" not in p.parts}
    return {str(name): path.read_bytes() for name, path in found.items()}


def counting(measured: list[str], most: int | None = None) -> Callable[[Ledger, str, Callable[[], Metrics]], Metrics]:
    """`Ledger.get` that notes what is measured, and is stopped instead of measuring more than so many."""
    get = Ledger.get

    def one(self: Ledger, evaluation: str, measure: Callable[[], Metrics]) -> Metrics:
        if evaluation not in self.cells:
            if len(measured) == most:
                raise KeyboardInterrupt
            measured.append(evaluation)
        return get(self, evaluation, measure)

    return one


@pytest.mark.parametrize("name", CASES)
def test_stopped_and_gone_on(name: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = CASES[name](inputs)
    undisturbed = interp(*words, "--out", tmp_path / "whole", "-q")
    assert undisturbed.exit_code == 0, undisturbed.stderr
    total = status(tmp_path / "whole")["evaluations"]
    assert total > 3
    measured: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "get", counting(measured, most=2))
        stopped = interp(*words, "--out", tmp_path / "a", "-q")
    assert stopped.exit_code == 130
    found = status(tmp_path / "a")
    assert (found["kind"].partition(".")[2], found["state"], found["shards"], found["shards_total"]) == (
        name, "stopped", 0, 1,
    )  # fmt: skip
    assert found["evaluations"] == 2
    monkeypatch.chdir(tmp_path)
    assert interp("job", "merge", tmp_path / "a", "-q").exit_code == 1, "there is nothing to merge"
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "get", counting(measured))
        again = interp("job", "resume", tmp_path / "a", "-q")
    assert again.exit_code == 0, again.stderr
    assert len(measured) == len(set(measured)) == total, "nothing twice, nothing lost"
    assert tables(tmp_path / "a") == tables(tmp_path / "whole") != {}
    assert [status(tmp_path / "a")[key] for key in ("state", "shards", "evaluations")] == ["finished", 1, total]
    shown = interp("job", "status", tmp_path / "a")
    assert "finished evaluations" in shown.stdout
    other = interp(*words, "--seed", "9", "--out", tmp_path / "a", "-q")
    assert other.exit_code == 1
    assert "settings.seed: 0 / 9" in other.stderr
    assert tables(tmp_path / "a") == tables(tmp_path / "whole")


def short_passkeys(_model: object, step: int, **_sizes: object) -> Prompt:
    """The prompt of a step, which a tiny model reads."""
    ids = tuple(np.random.default_rng([7, step]).integers(3, 263, 31).tolist())
    return Prompt(ids=ids, answer=(), rows={"labels": tuple(range(19, 31))})


def test_gates_go_on_behind_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("heads", "gates", "tiny/llama", "--steps", "4", "--tokens", "31", "--sinks", "2", "--window", "8")
    words = (*words, "--control", "--threads", "1", "-q", "--out")
    monkeypatch.setattr(duo_gates, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(duo_gates, "passkeys", short_passkeys)
    assert interp(*words, tmp_path / "whole").exit_code == 0
    steps: list[int] = []
    advance: Any = duo_gates._advance

    def cut(model: Any, state: Any, training: Any, prompt: Any) -> None:
        if len(steps) == 6:
            raise KeyboardInterrupt
        steps.append(state.step)
        advance(model, state, training, prompt)

    with monkeypatch.context() as patch:
        patch.setattr(duo_gates, "_advance", cut)
        assert interp(*words, tmp_path / "a").exit_code == 130
    assert steps == [0, 1, 2, 3, 0, 1], "the control's four, and two of the gates"
    assert status(tmp_path / "a")["state"] == "stopped"
    steps.clear()
    with monkeypatch.context() as patch:
        patch.setattr(duo_gates, "_advance", cut)
        assert interp("job", "resume", tmp_path / "a", "-q").exit_code == 0
    assert steps == [2, 3]
    assert tables(tmp_path / "a") == tables(tmp_path / "whole") != {}
    gates = Result.load(tmp_path / "a" / "result").arrays["gates"]
    assert (read_gates(tmp_path / "a" / "training") == gates).all()


def test_two_processes_do_not_share_a_folder(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with locked(tmp_path / "parts"):
        for words in (*(case(inputs) for case in CASES.values()), ("heads", "gates", "tiny/llama", "--steps", "1")):
            ran = interp(*words, "--out", tmp_path, "-q")
            assert (ran.exit_code, "another process" in ran.stderr) == (1, True), words


def test_steps_of_another_plan_are_not_used(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no shard finished another plan may begin in the folder; with other threads last bits may differ, so all is measured anew."""
    words = CASES["streaming"](inputs)
    measured: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "get", counting(measured, most=2))
        assert interp(*words, "--out", tmp_path, "-q").exit_code == 130
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "get", counting(measured))
        assert interp(*words[:-1], "2", "--out", tmp_path, "-q").exit_code == 0
    assert len(measured) == 2 + status(tmp_path)["evaluations"]
    assert measured[:2] == measured[2:4]
