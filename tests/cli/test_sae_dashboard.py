"""`interp sae dashboard`: a page and files from an autoencoder's folder, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "widgets" / "support"))


def interp(*words: object) -> Any:
    from interp.cli.main import app

    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """An autoencoder's folder, and a text."""
    from sae_cases import autoencoder

    from interp.saes.files import save

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Paragraph {n} says {n * n}." for n in range(90)), encoding="utf-8")
    return save(autoencoder(), tmp_path / "sae"), text


def test_the_strongest_features_of_a_text(saved: tuple[Path, Path], tmp_path: Path) -> None:
    folder, text = saved
    out = tmp_path / "out"
    ran = interp("sae", "dashboard", folder, "--text", text, "--features", "top:3", "--context", 31, "--out", out)
    assert ran.exit_code == 0, ran.stderr
    assert (out / "index.html").exists()
    files = [json.loads(p.read_text(encoding="utf-8")) for p in (out / "features").iterdir()]
    assert len(files) == 3
    # model and layer are those that the autoencoder's file names
    assert {(f["modelId"], f["layer"]) for f in files} == {("tiny/llama-0", "1-att-interp")}
    ran = interp("sae", "dashboard", folder, "--text", text, "--features", "0,4-5", "--context", 31, "--out", out, "-q")
    assert ran.exit_code == 0, ran.stderr
    assert {"0.json", "4.json", "5.json"} <= {p.name for p in (out / "features").iterdir()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--features", "best:3"], "top:50"),
        (["--features", "top:0"], "top:50"),
        (["--features", "99"], "does not exist"),
        (["--side", "middle"], "--side"),
    ],
)
def test_what_is_refused(saved: tuple[Path, Path], tmp_path: Path, words: list[str], said: str) -> None:
    folder, text = saved
    ran = interp("sae", "dashboard", folder, "--text", text, "--out", tmp_path / "out", *words)
    assert ran.exit_code == 2
    assert said in ran.stderr
