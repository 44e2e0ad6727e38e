"""`interp scan` with several models, parts and data sets, `interp compare`, and `interp report` of several models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

ROWS = [
    {"title": f"On ants {n}", "body": "They walk in lines, and the clocks were striking thirteen, thirteen. " * 2}
    for n in range(9)
]
FEW = ["--context", "48", "--per-shard", "2", "--statistics", "entropy,alpha", "--thumbnails", "0"]


def interp(*words: object) -> Any:
    from interp.cli.main import app

    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_parts_of_a_scan_are_merged(tmp_path: Path, rows: Path) -> None:
    words = ["scan", "tiny/llama", "--dataset", rows, "--template", r"# {title}\n{body}", *FEW, "--sample", "0.9"]
    whole = interp(*words, "--out", tmp_path / "whole", "-q")
    assert whole.exit_code == 0, whole.stderr
    for part in ("2/2", "1/2"):
        done = interp(*words, "--out", tmp_path / "parts", "--shard", part)
        assert done.exit_code == 0 and f"part {part}:" in done.stderr, done.stderr
    merged = interp("job", "merge", tmp_path / "parts", "-q")
    assert merged.exit_code == 0, merged.stderr
    assert (tmp_path / "parts/stats.parquet").read_bytes() == (tmp_path / "whole/stats.parquet").read_bytes()
    plan = json.loads((tmp_path / "whole/manifest.json").read_text())["plan"]
    assert plan["text"]["template"] == "# {title}\n{body}" and plan["text"]["sample"] == "0.9 by seed 0"


def test_several_models_are_compared_and_reported(tmp_path: Path, rows: Path) -> None:
    out = tmp_path / "many"
    words = ["--dataset", rows, "--column", "body", *FEW, "--pack", "--bucket", "4", "--out", out, "-q"]
    done = interp("scan", "tiny/llama", "--model", "tiny/qwen2", *words)
    assert done.exit_code == 0, done.stderr
    report = interp("report", out)
    assert report.exit_code == 0 and Path(report.stdout.strip()) == out / "report.html"
    compared = interp("compare", out / "model=llama", out / "model=llama", "--json", "--out", tmp_path / "cmp")
    assert compared.exit_code == 0, compared.stderr
    lines = [json.loads(line) for line in compared.stdout.splitlines()]
    assert {line["statistic"] for line in lines} == {"entropy", "alpha"}
    assert all(line["score"] == 0 for line in lines if line["a"] is not None)
    drawn = interp("report", tmp_path / "cmp")
    assert drawn.exit_code == 0 and (tmp_path / "cmp/report.html").exists()
    table = interp("compare", out / "model=llama", out / "model=llama", "-s", "entropy", "-k", "2")
    assert table.exit_code == 0 and "heads that differ most" in table.stdout
    assert "the plans differ in: nothing" in table.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--column", "body", "--template", "{body}"], "--column and --template each say"),
        (["--template", "{body.x}"], "only plain names of columns"),
        (["--chat", "body"], "no chat template"),
        (["--sample", "0"], "sample must be a share"),
        (["--column", "body", "--shard", "3/2"], "a part must be one of 1/n to n/n"),
        (["--column", "body", "--shard", "1/2", "--model", "tiny/gpt2"], "--shard is a part of one model's scan"),
        (["--column", "body", "--pack", "--join"], "pack fills rows with texts that stay apart"),
        (["--column", "body", "--model", "x/llama"], "two models would both be called 'llama'"),
    ],
)
def test_wrong_usage(tmp_path: Path, rows: Path, options: list[str], said: str) -> None:
    done = interp("scan", "tiny/llama", "--dataset", rows, "--out", tmp_path / "out", *FEW, *options)
    assert done.exit_code == 2 and said in done.stderr, done.stderr
