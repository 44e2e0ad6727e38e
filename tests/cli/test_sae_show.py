"""`interp sae show | attribute | long-prefix`: what they print and leave behind, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from interp.cli.main import app
from interp.results import Result
from interp.saes import SAE, SAEConfig, save

HEADS, FEATURES = 6, 31


def interp(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An autoencoder of the tiny Llama's layer 1, as a training leaves it; feature 7 never fired."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        "W_enc": torch.randn(60, FEATURES, generator=generator) * 0.3,
        "W_dec": torch.randn(FEATURES, 60, generator=generator),
        "b_dec": torch.zeros(60),
        "b_enc": torch.zeros(FEATURES),
        "threshold": torch.full((FEATURES,), 0.3),
    }
    metadata = {"hook_name": "blocks.1.attn.hook_z", "interp": {"layer": 1, "heads": HEADS}}
    density = torch.full((FEATURES,), 0.1)
    density[7] = 0.0
    config = SAEConfig(architecture="jumprelu", d_in=60, d_sae=FEATURES, metadata=metadata)
    return save(SAE(config, weights), tmp_path / "sae", density=density)


def test_show_needs_no_model(folder: Path, tmp_path: Path) -> None:
    ran = interp("sae", "show", folder, "-k", 5, "--out", tmp_path / "out", "--json")
    assert ran.exit_code == 0, ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    saved = Result.load(tmp_path / "out")
    assert [r["head"] for r in rows] == list(range(HEADS)) == saved.table["head"].tolist()
    assert sum(r["mean_share"] for r in rows) == pytest.approx(1.0)
    assert all("7" not in r["features"].split() and len(r["features"].split()) == 5 for r in rows)
    table = interp("sae", "show", folder)
    assert "31 features, 30 alive" in table.stdout and "1.5" in table.stdout


def test_attribute_writes_a_row_per_feature(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Paragraph {n} says {n * n} and {n**3 % 101}." for n in range(40)), encoding="utf-8")
    out = tmp_path / "out"
    words = ("sae", "attribute", folder, "--model", "tiny/llama", "--text", text, "--context", 23, "--tokens", 138)
    ran = interp(*words, "--side", "train", "--least", 3, "--out", out)
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(out)
    assert saved.kind == "saes.attribution" and len(saved.table) > 20
    assert saved.manifest["settings"]["text"]["side"] == "train"
    assert "same first head" in ran.stdout
    bad = interp(*words, "--side", "middle", "--out", tmp_path / "other")
    assert bad.exit_code == 2 and "--side" in bad.stderr


def test_long_prefix_of_a_tiny_model(tmp_path: Path) -> None:
    words = ("sae", "long-prefix", "tiny/llama", "--prefixes", "1-2", "--tokens", 23, "--samples", 2)
    ran = interp(*words, "--out", tmp_path / "out", "--json")
    assert ran.exit_code == 0, ran.stderr
    table = Result.load(tmp_path / "out").table
    assert len(ran.stdout.splitlines()) == len(table) == 2 * 3 * HEADS  # prefixes, layers, heads
    again = interp(*words, "--out", tmp_path / "out")
    assert again.exit_code == 0 and "heads of either kind" in again.stderr


def test_heads_must_be_known(folder: Path) -> None:
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["metadata"]["interp"] = {}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    assert interp("sae", "show", folder).exit_code == 2
    assert interp("sae", "show", folder, "--heads", HEADS, "-k", 3).exit_code == 0
