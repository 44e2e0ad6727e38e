"""`interp heads` and `interp sinks`: results in their folders, tables on standard output, exit codes, files of the field there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.cli.main import app
from interp.heads.published import read_gates, read_gates_config, read_patterns, read_scores, write_gates, write_scores
from interp.results import Result

COMMANDS = (
    "retrieval", "qrhead", "streaming", "previous-token", "duplicate-token", "induction",
    "successor", "successor-probe", "succession-attention", "copying", "patterns", "flexprefill",
    "gates", "report", "confirm", "causal", "deploy", "page", "import", "export",
)  # fmt: skip


def interp(*words: str | Path) -> Ran:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


def test_help_names_every_command() -> None:
    shown = interp("heads", "--help").stdout
    assert [name for name in COMMANDS if f"  {name} " not in shown] == []
    assert "  report " in interp("sinks", "--help").stdout
    for name in COMMANDS:
        assert interp("heads", name, "--help").exit_code == 0, name


def test_an_analysis_is_saved_and_printed(tmp_path: Path) -> None:
    ran = interp(
        "heads", "induction", "tiny/llama", "--out", tmp_path / "a", "--samples", "2", "--seed", "3", "-k", "4"
    )
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "a")
    assert (saved.kind, saved.manifest["seed"], saved.manifest["settings"]["samples"]) == ("heads.induction", 3, 2)
    layer, head, score = saved.top(1)[0]
    assert f"{layer}.{head}" in ran.stdout
    assert f"{score:.3g}" in ran.stdout
    assert "control" in ran.stdout
    again = interp(
        "heads",
        "induction",
        "tiny/llama",
        "--out",
        tmp_path / "a",
        "--samples",
        "2",
        "--seed",
        "3",
        "--json",
        "-k",
        "2",
    )
    rows = [json.loads(line) for line in again.stdout.splitlines()]
    assert len(rows) == 2
    assert set(rows[0]) == {"layer", "head", "score", "spread", "control"}


def test_a_saved_result_is_shown_and_drawn_without_a_model(tmp_path: Path) -> None:
    interp("heads", "induction", "tiny/llama", "--out", tmp_path / "a", "--samples", "2", "--quiet")
    (layer, head, score), *_ = Result.load(tmp_path / "a").top(1, by="control")
    shown = interp("show", tmp_path / "a", "-k", "1", "-s", "control")
    assert shown.exit_code == 0, shown.stderr
    assert f"{layer}.{head}" in shown.stdout
    assert f"{score:.3g}" in shown.stdout
    (row,) = [json.loads(line) for line in interp("show", tmp_path / "a", "-k", "1", "--json").stdout.splitlines()]
    assert (row["layer"], row["head"], row["score"]) == Result.load(tmp_path / "a").top(1)[0]
    drawn = interp("report", tmp_path / "a")
    assert drawn.exit_code == 0, drawn.stderr
    assert "<script" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert interp("show", tmp_path / "a", "-s", "scores").exit_code == 2


def test_a_folder_of_something_else_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    ran = interp("heads", "copying", "no/such/model", "--out", tmp_path)
    assert ran.exit_code == 1
    assert "choose a new folder" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["heads", "induction", "tiny/llama", "--out", "a", "--form", "rasor"],
        ["heads", "retrieval", "tiny/llama", "--out", "a", "--depths", "10,50"],
        ["heads", "streaming", "tiny/llama", "--out", "a", "--form", "gates"],
        ["heads", "report", "tiny/llama", "--out", "a", "--rule", "retrival=0.2"],
        ["heads", "report", "tiny/llama", "--out", "a", "--rule", "retrieval=much"],
        ["heads", "import", "x.json", "--out", "a", "--format", "onnx"],
        ["heads", "induction", "tiny/llama"],
    ],
)
def test_wrong_usage(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = interp(*words)
    assert ran.exit_code == 2, ran.stderr
    assert ran.stdout == ""
    assert not (tmp_path / "a").exists()


def test_sinks(tmp_path: Path) -> None:
    ran = interp(
        "sinks",
        "report",
        "tiny/llama",
        "--out",
        tmp_path / "s",
        "--tokens",
        "32",
        "--sequences",
        "3",
        "--long-tokens",
        "64",
    )
    assert ran.exit_code == 0, ran.stderr
    assert Result.load(tmp_path / "s").manifest["settings"]["sequences"] == 3


def test_report_confirm_and_page(tmp_path: Path) -> None:
    out = tmp_path / "r"
    words = ("--tokens", "64", "--samples", "2", "--parts", "copying,random tokens,features", "--pages", "1")
    ran = interp("heads", "report", "tiny/gpt2", "--out", out, *words, "--rule", "duplicate=0.0")
    assert ran.exit_code == 0, ran.stderr
    assert (out / "atlas.html").exists()
    assert "duplicate" in ran.stdout
    assert "copying: measured" in ran.stderr
    assert Result.load(out / "embedding").kind == "heads.embedding"
    pages = list((out / "heads").glob("*.html"))
    assert len(pages) == 1  # one head for the one label that any head can earn
    again = interp("heads", "report", "tiny/gpt2", "--out", out, *words)
    assert "copying: used again" in again.stderr
    interp("heads", "report", "tiny/gpt2", "--out", out, *words, "--rule", "duplicate=0.0")
    like = ("--model", "tiny/gpt2")  # the manifest says tiny/gpt2-0, with the seed of its weights
    confirmed = interp("heads", "confirm", out, "--kinds", "zero", "--draws", "2", "--labels", "duplicate", *like)
    assert confirmed.exit_code == 0, confirmed.stderr
    assert "loss on the second half" in confirmed.stdout
    assert '"confirmed":[{' in (out / "atlas.html").read_text(encoding="utf-8")
    page = interp("heads", "page", out, "1.2", *like)
    assert page.exit_code == 0, page.stderr
    assert (out / "heads" / "1.2.html").exists()
    other = interp("heads", "page", out, "1.2", "--model", "tiny/llama")
    assert other.exit_code == 2
    assert "--model" in other.stderr
    assert interp("heads", "page", out, "1-2", *like).exit_code == 2
    assert interp("heads", "causal", out).exit_code == 2


def test_files_of_the_field_there_and_back(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((5, 3, 2))
    write_scores(tmp_path / "s.json", scores)
    assert interp("heads", "import", tmp_path / "s.json", "-o", tmp_path / "s", "-f", "retrieval-head").exit_code == 0
    assert interp("heads", "export", tmp_path / "s", "-o", tmp_path / "t.json", "-f", "retrieval-head").exit_code == 0
    np.testing.assert_array_equal(read_scores(tmp_path / "t.json"), scores)

    gates, config = np.random.default_rng(1).random((3, 2)), {"sink_size": 16, "recent_size": 64}
    write_gates(tmp_path / "duo", gates, config)
    ran = interp(
        "heads", "import", tmp_path / "duo", "-o", tmp_path / "g", "-f", "duo-attention", "--queries-per-group", "3"
    )
    assert ran.exit_code == 0, ran.stderr
    assert Result.load(tmp_path / "g").table["head"].nunique() == 6
    assert interp("heads", "export", tmp_path / "g", "-o", tmp_path / "back", "-f", "duo-attention").exit_code == 0
    np.testing.assert_array_equal(read_gates(tmp_path / "back"), gates)
    assert read_gates_config(tmp_path / "back") == config

    text = [{"0": ["vertical_and_slash", 100, 800, 0.9], "1": ["stream_llm", 10, 20, 0.5]}]
    (tmp_path / "p.json").write_text(json.dumps(text))
    assert interp("heads", "import", tmp_path / "p.json", "-o", tmp_path / "p", "-f", "minference", "-q").exit_code == 0
    assert interp("heads", "export", tmp_path / "p", "-o", tmp_path / "q.json", "-f", "minference").exit_code == 0
    assert read_patterns(tmp_path / "q.json").equals(read_patterns(tmp_path / "p.json"))

    wrong = interp("heads", "export", tmp_path / "s", "-o", tmp_path / "x", "-f", "duo-attention")
    assert wrong.exit_code == 2
    assert "heads.retrieval" in wrong.stderr
