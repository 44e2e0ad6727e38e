"""The commands, called in this process: what goes to which stream, exit codes, and errors in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from interp.batch.scan import scan
from interp.cli.main import app
from interp.models.toy import tiny
from interp.stats.catalogue import names

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished scan whose text is markup to a terminal."""
    out = tmp_path_factory.mktemp("cli") / "[red]runs"
    scan(tiny("llama"), TEXT, out=out, context=64)
    return out


def interp(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_help_names_every_command() -> None:
    result = interp("--help")
    assert result.exit_code == 0
    for name in ("scan", "demo", "show", "report", "models", "kernels", "stats", "corpus"):
        assert f"  {name} " in result.stdout


def test_version() -> None:
    from importlib.metadata import version

    assert interp("--version").stdout == version("interp") + "\n"


@pytest.mark.parametrize(
    "words",
    [
        ["scan"],
        ["scan", "tiny/llama"],
        ["nothing"],
        ["show"],
        ["show", "somewhere", "--top", "0"],
        ["scan", "tiny/llama", "--out", "x", "--context", "many"],
    ],
)
def test_wrong_usage(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = interp(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give exactly one of --text FILE, --dataset NAME and --corpus PART; got none"),
        (["--text", "a", "--corpus", "topics"], "got --text and --corpus"),
        (["--corpus", "poems"], "corpus must be one of topics"),
        (["--corpus", "topics", "--layers", "1-x"], "--layers must be numbers and ranges such as 0-11,20; got '1-x'"),
        (["--corpus", "topics", "--layers", "5-3"], "--layers must be"),
        (["--corpus", "topics", "--layers", "9"], "layers must be numbers from 0 to 2"),
        (["--corpus", "topics", "--statistics", "entropi"], "unknown statistic 'entropi'"),
        (["--corpus", "topics", "--dtype", "int3"], "--dtype must be one of"),
        (["--corpus", "topics", "--threads", "0"], "--threads must be at least 1"),
        (["--corpus", "topics", "--backend", "abacus"], "--backend must be one of auto, reference"),
    ],
)
def test_impossible_values(tmp_path: Path, words: list[str], said: str) -> None:
    result = interp("scan", "tiny/llama", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.count("\n") == 1, "one sentence, no traceback"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny/llama", "--text", "gone.txt"], "cannot read the text file gone.txt"),
        (["tiny/llama", "--dataset", "gone.jsonl", "--column", "x"], "cannot read the data set gone.jsonl"),
        (["gone/model", "--corpus", "topics"], "gone/model"),
        (["tiny/llama", "--corpus", "topics", "--resume"], "holds nothing to resume"),
    ],
)
def test_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = interp("scan", *words, "--out", "out")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_keeps_the_traceback(tmp_path: Path) -> None:
    from interp.errors import InputDataError

    result = interp("--debug", "scan", "tiny/llama", "--text", tmp_path / "gone", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, InputDataError)


def test_scan_as_json(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text(TEXT, encoding="utf-8")
    words = [
        "scan",
        "tiny/llama",
        "--text",
        text,
        "--out",
        tmp_path / "out",
        "--context",
        "48",
        "--per-shard",
        "2",
        "--json",
        "-q",
    ]
    words += ["--statistics", "entropy,alpha", "--layers", "0,2", "--thumbnails", "1"]
    result = interp(*words)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    events = lines(result)
    assert [e["event"] for e in events] == ["plan", "shard", "shard", "shard", "done"]
    # 260 bytes: five contexts of 47 and BOS, and a rest of 25.
    assert events[0]["tokens_total"] == 5 * 48 + 26 == events[-1]["tokens"]
    assert events[-1]["shards"] == events[0]["shards_total"] == 3
    assert events[-1]["tokens_per_second"] > 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["plan"]["statistics"] == ["entropy", "alpha"]
    assert manifest["plan"]["layers"] == [0, 2]

    again = interp(*words, "--resume")
    assert again.exit_code == 0
    assert [(e["event"], e["message"]) for e in lines(again)] == [("done", "already done")]

    other = interp(*words, "--max-tokens", "100")
    assert other.exit_code == 1
    assert "max_tokens: null / 100" in other.stderr


def test_scan_for_people(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text(TEXT, encoding="utf-8")
    result = interp(
        "scan", "tiny/llama", "--text", text, "--out", tmp_path / "out", "--context", "48", "--statistics", "entropy"
    )
    assert result.exit_code == 0
    assert "0 of 266 tokens, 0 of 2 shards" in result.stderr
    assert "266 of 266 tokens, 2 of 2 shards" in result.stderr
    assert str(tmp_path / "out" / "report.html") in result.stderr
    assert "entropy" in result.stdout
    assert "tokens/s" not in result.stdout


def test_scan_of_a_data_set(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"body": TEXT}) + "\n" for _ in range(3)), encoding="utf-8")
    out = tmp_path / "out"
    result = interp(
        "scan", "tiny/gpt2", "--dataset", rows, "--column", "body", "--out", out, "--statistics", "entropy", "-q"
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    tokens = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["tokens"]
    assert (tokens["texts"], tokens["tokens"]) == (3, 3 * len(TEXT))


def test_show(folder: Path) -> None:
    result = interp("show", folder)
    assert result.exit_code == 0
    for name in ("entropy", "induction_mass", "received_mass"):
        assert name in result.stdout
    assert str(folder) in result.stderr, "the folder's name is shown literally, not read as markup"


def test_show_one_statistic(folder: Path) -> None:
    from interp.batch.result import open_scan

    result = interp("show", folder, "--statistic", "first_token_mass", "--top", "3")
    assert result.exit_code == 0
    rows = [
        [cell.strip() for cell in line.split("│")[1:4]] for line in result.stdout.splitlines() if line.startswith("│")
    ]
    top = open_scan(folder).top("first_token_mass", 3)
    assert rows == [[str(t.layer), str(t.head), f"{t.value:.4g}"] for t in top]


def test_show_as_json(folder: Path) -> None:
    from interp.batch.result import open_scan

    rows = lines(interp("show", folder, "-s", "entropy", "-k", "2", "--json"))
    assert rows == [{"statistic": "entropy", **t._asdict()} for t in open_scan(folder).top("entropy", 2)]
    everything = lines(interp("show", folder, "--json", "-k", "1"))
    assert [r["statistic"] for r in everything] == list(open_scan(folder).statistics)


def test_show_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    assert "has no statistic 'x'" in interp("show", folder, "-s", "x").stderr
    missing = interp("show", tmp_path)
    assert missing.exit_code == 1
    assert "holds no finished scan" in missing.stderr


def test_report_is_written_anew(folder: Path) -> None:
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    result = interp("report", folder)
    assert result.exit_code == 0
    assert result.stdout == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_bytes() == page


def test_stats_lists_the_catalogue() -> None:
    assert tuple(r["name"] for r in lines(interp("stats", "--json"))) == names()
    assert "normalised_entropy" in interp("stats").stdout


def test_models_lists_the_tiny_ones() -> None:
    found = {r["name"]: r for r in lines(interp("models", "--json"))}
    assert found["tiny/llama"]["kind"] == "toy"
    assert "smollm2-135m" in found
    assert "tiny/llama" in interp("models").stdout


@pytest.mark.medium
def test_corpus_counts_tokens() -> None:
    rows = lines(interp("corpus", "--model", "tiny/llama", "--json"))
    whole = next(r for r in rows if (r["part"], r["split"]) == ("all", "all"))
    assert whole["tokens"] >= whole["characters"], "one token per byte, and a character is at least a byte"
    assert whole["distinct_tokens"] <= 256
    assert len(whole["sha256"]) == 64
    result = interp("corpus")
    assert "held_out" in result.stdout
    assert whole["sha256"] in result.stderr


def test_kernels_say_what_works() -> None:
    rows = lines(interp("kernels", "--json"))
    assert {r["backend"] for r in rows} == {"cpu", "triton", "portable", "reference"}
    assert all(r["works"] or r["reason"] for r in rows)
    assert next(r for r in rows if r["backend"] == "portable")["works"]
    shown = interp("kernels")
    assert shown.exit_code == 0
    assert "portable" in shown.stdout


def test_kernels_build_says_whether_it_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp_kernels import build

    failed = "the C++ kernels could not be built: [red] no compiler"
    monkeypatch.setattr(build, "ready", lambda progress=None: (False, failed))
    monkeypatch.setattr(build, "failure", lambda: failed)
    result = interp("kernels", "--build")
    assert result.exit_code == 1
    assert "no: " + failed[:20] in result.stdout
    assert "[red]" in result.stdout
