"""`interp explain`, `interp sinks streaming`, `interp heads deploy`: results in their folders, tables, and refusals before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.cli.explain import CHECKS, COLUMNS
from interp.cli.main import app
from interp.results import Result
from interp.tasks.prompt import Prompt

TEXT = "to explain a token is not to justify it"


def interp(*words: str | Path) -> Ran:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_is_saved_printed_and_drawn(check: str, tmp_path: Path) -> None:
    ran = interp(
        "explain", "tiny/llama", "--text", TEXT, "--target", "!", "--check", check, "--out", tmp_path / "a", "--draws", "2", "-q"
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "a")
    assert saved.kind == f"explain.{check}"
    assert saved.manifest["question"]["target_token"] == "!"
    assert set(COLUMNS[check]) <= set(saved.table.columns)
    figure = saved.plot(theme="dark")
    assert len(figure.data) > 0
    assert saved.manifest["model"]["name"] in figure.layout.title.text


def test_the_panel_says_what_was_highlighted(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    ran = interp(
        "explain", "tiny/gpt2", "--file", tmp_path / "text.txt", "--out", tmp_path / "a", "--scores", "recency", "--draws", "2",
        "--share", "0.05",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    for word in ("comprehensiveness", "sufficiency", "edges", "disagreement", "sink mass", "prediction"):
        assert word in ran.stdout, word
    assert f"{len(TEXT) - 2}:'i'" in ran.stderr, "the last token but one"


def test_rows_as_json(tmp_path: Path) -> None:
    words = ("explain", "tiny/gpt2", "--text", TEXT, "--check", "rollout", "--json", "-k", "3", "-q")
    ran = interp(*words, "--out", tmp_path / "a")
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(rows) == 3
    assert rows[0]["score"] >= rows[1]["score"] >= rows[2]["score"]
    assert rows[0]["spread"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--check", "lime", "--text", TEXT), "--check"),
        ((), "--text"),
        (("--text", TEXT, "--file", "x"), "--text"),
        (("--text", TEXT, "--share", "0.1,0.2"), "one --share"),
        (("--text", TEXT, "--scores", "lime"), "method must be one of"),
        (("--file", "/nowhere/at/all"), "cannot be read"),
    ],
)
def test_wrong_usage_is_a_sentence(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ran = interp("explain", "tiny/gpt2", "--out", tmp_path / "a", "--draws", "2", *words)
    assert ran.exit_code in (1, 2)
    assert said in ran.stderr
    assert not (tmp_path / "a").exists()


def test_streaming_losses(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(9 * TEXT, encoding="utf-8")
    words = (
        "--tokens",
        "61",
        "--pieces",
        "2",
        "--size",
        "17",
        "--sinks",
        "1,4",
        "--newline",
        "17",
        "--text",
        tmp_path / "long.txt",
    )
    ran = interp("sinks", "streaming", "tiny/llama", "--out", tmp_path / "a", *words)
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "a" / "result")
    assert saved.kind == "sinks.streaming"
    for policy in saved.manifest["policies"]:
        assert policy in ran.stdout
    assert [trace.name for trace in saved.plot().data] == saved.manifest["policies"]
    (ledger,) = (tmp_path / "a" / "parts").glob("steps-*/streaming_loss.json")
    assert len(json.loads(ledger.read_text())["cells"]) == 12


def test_a_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Prompt(ids=tuple(range(7, 90)), answer=(), meta={"answer": "a needle"})
    monkeypatch.setattr("interp.tasks.needle.prompts", lambda *given, **more: [asked])
    scored = interp(
        "heads", "streaming", "tiny/llama", "--out", tmp_path / "scores", "--form", "output", "--tokens", "61", "--samples", "2",
        "--sinks", "2", "--window", "9", "-q",
    )  # fmt: skip
    assert scored.exit_code == 0, scored.stderr
    sizes = ("--sinks", "2", "--window", "9", "--tokens", "61", "--samples", "1", "--draws", "2")
    ran = interp("heads", "deploy", "tiny/llama", tmp_path / "scores", "--out", tmp_path / "a", *sizes)
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "a" / "result")
    assert saved.kind == "heads.deployment"
    table = saved.table.set_index("metric")
    assert table.loc["cache bytes", "score"] < 0.8 * table.loc["cache bytes", "base"]
    assert "all heads stream" in ran.stdout
    assert len(saved.plot().data) == 12
    other = interp("heads", "deploy", "tiny/gpt2", tmp_path / "scores", "--out", tmp_path / "b", *sizes)
    assert other.exit_code == 2
    assert "tiny/llama-0" in other.stderr
