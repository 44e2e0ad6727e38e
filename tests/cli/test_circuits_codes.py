"""`interp circuits codes`: heads with their scores, and how the scores compare with chance, null and the norm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

FEW = ("--task", "greater-than", "--samples", 5, "--size", 3, "--trials", 2, "--draws", 4)


def interp(*words: object) -> Any:
    from interp.cli.main import app

    return CliRunner().invoke(app, [str(word) for word in words])


def test_codes_against_patching(tmp_path: Path) -> None:
    ran = interp("circuits", "codes", "tiny/llama", "--out", tmp_path / "a", *FEW)
    assert ran.exit_code == 0, ran.stderr
    from interp.results import Result

    saved = Result.load(tmp_path / "a")
    assert (saved.kind, len(saved.table)) == ("circuits.codes", 18)
    assert saved.table["true"].sum() == 3
    for name in ("node", "edge", "paired norm"):
        assert f"average precision of {name}:" in ran.stderr
    # the circuit of another result, on other tokens
    assert interp("circuits", "atp", "tiny/llama", "--out", tmp_path / "t", *FEW[:4], "--quiet").exit_code == 0
    words = ("--truth", tmp_path / "t", "--position", "YY", "--scale", "unit", "--json")
    ran = interp("circuits", "codes", "tiny/llama", "--out", tmp_path / "b", *FEW, *words)
    assert ran.exit_code == 0, ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(rows) == 10 and {"edge", "paired_norm", "codes", "true"} <= set(rows[0])
    assert Result.load(tmp_path / "b").manifest["settings"]["truth"] == {
        "kind": "circuits.attribution_patching",
        "size": 3,
    }
    assert interp("show", tmp_path / "b").exit_code == 0


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    for words, said in ((["--scale", "log"], "--scale"), (["--task", "chess"], "--task")):
        ran = interp("circuits", "codes", "tiny/llama", "--out", tmp_path / "a", *words)
        assert ran.exit_code == 2 and said in ran.stderr
