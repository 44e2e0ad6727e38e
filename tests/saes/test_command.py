"""`interp sae harvest | train | eval` on a tiny model: what the folders hold, that nothing is done twice, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Ran
from typer.testing import CliRunner

from interp.batch.texts import Texts
from interp.cli.main import app
from interp.cli.sae_texts import contexts, side_of
from interp.models.toy import tiny
from interp.saes import Evaluation, Store, load, read_log

SMALL = ("--context", "24", "--loss-tokens", "40")


def interp(*words: object) -> Any:
    ran: Ran = CliRunner().invoke(app, [str(word) for word in words])
    return ran


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Paragraphs that are all different."""
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"Paragraph {n} says {n * n} and {n**3 % 101}." for n in range(60)), encoding="utf-8")
    return path


def train(text: Path, out: Path, *more: object) -> Any:
    words = (
        "sae",
        "train",
        "tiny/llama",
        "--layer",
        1,
        "--text",
        text,
        "--out",
        out,
        "--tokens",
        3_000,
        "--batch",
        100,
    )
    return interp(
        *words, "--k", 4, "--expansion", 1.5, "--held-out-tokens", 200, "--harvest-tokens", 1_200, *SMALL, *more
    )


def test_a_training_from_text_to_metrics(text: Path, tmp_path: Path) -> None:
    ran = train(text, tmp_path / "out", "--arch", "batchtopk", "--json")
    assert ran.exit_code == 0, ran.stderr
    kept, other = Store(tmp_path / "out" / "harvest"), Store(tmp_path / "out" / "held_out")
    assert kept.layers == other.layers == [1]
    assert f"{kept.rows:,} distinct ones, {3_000 / kept.rows:.2f} epochs" in " ".join(ran.stderr.split())
    sae = load(tmp_path / "out" / "sae")
    assert sae.config.architecture == "jumprelu"
    assert sae.config.d_sae == round(1.5 * kept.d_in)
    assert sae.config.metadata["interp"]["layer"] == 1
    assert len(read_log(tmp_path / "out" / "sae")) == 2  # 30 steps, every 20 and the last
    said = {row["metric"]: row for row in map(json.loads, ran.stdout.splitlines())}
    saved = Evaluation.load(tmp_path / "out" / "evaluation").frame
    assert said["ev"]["without first"] == saved.loc["ev", "without first"]
    assert said["encoder_decoder"]["without first"] is None
    for page in ("training.html", "evaluation.html"):
        assert "<script" in (tmp_path / "out" / page).read_text(encoding="utf-8")
    before = (tmp_path / "out" / "sae" / "sae_weights.safetensors").stat()
    again = train(text, tmp_path / "out", "--arch", "batchtopk", "--quiet")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "out" / "sae" / "sae_weights.safetensors").stat().st_size == before.st_size
    assert len(read_log(tmp_path / "out" / "sae")) == 2
    other_seed = train(text, tmp_path / "out", "--arch", "batchtopk", "--seed", "1", "--quiet")
    assert other_seed.exit_code == 1
    assert "seed" in other_seed.stderr


def test_harvest_and_eval(text: Path, tmp_path: Path) -> None:
    assert train(text, tmp_path / "out", "--arch", "topk", "--quiet").exit_code == 0
    words = ("--text", text, "--context", 24, "--tokens", 300)
    ran = interp(
        "sae", "harvest", "tiny/llama", "--layers", "0-1", "--out", tmp_path / "h", "--side", "held_out", *words
    )
    assert ran.exit_code == 0, ran.stderr
    assert Store(tmp_path / "h").layers == [0, 1]
    assert "rows of" in ran.stderr
    ran = interp(
        "sae",
        "eval",
        tmp_path / "out" / "sae",
        "tiny/llama",
        "--out",
        tmp_path / "e",
        "--harvest",
        tmp_path / "h",
        *SMALL,
    )
    assert ran.exit_code == 0, ran.stderr
    assert "ce_sae" in ran.stdout and "without first" in ran.stdout
    ran = interp("sae", "eval", tmp_path / "out" / "sae", "tiny/llama", "--out", tmp_path / "e", *words, "--quiet")
    assert ran.exit_code == 0, ran.stderr
    assert Evaluation.load(tmp_path / "e" / "evaluation").manifest["text"]["side"] == "held_out"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sae", "train", "tiny/llama", "--layer", "1", "--tokens", "3000", "--out", "a"], "exactly one of"),
        (
            ["sae", "train", "tiny/llama", "--layer", "1", "--tokens", "3000", "--out", "a", "--arch", "temporal"],
            "--arch",
        ),
        (["sae", "harvest", "tiny/llama", "--layers", "1-0", "--tokens", "3000", "--out", "a"], "--layers"),
        (
            ["sae", "harvest", "tiny/llama", "--layers", "1", "--tokens", "3000", "--out", "a", "--special", "some"],
            "--special",
        ),
    ],
)
def test_wrong_usage(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = interp(*words)
    assert ran.exit_code == 2, ran.stderr
    assert said in ran.stderr
    assert not (tmp_path / "a").exists()


def sides(**source: object) -> list[Texts]:
    given = {"text": None, "dataset": None, "column": "text", "split": "train", "corpus": None}
    return [side_of(side, **given | source) for side in ("train", "held_out")]


def test_the_sides_share_nothing(text: Path, tmp_path: Path) -> None:
    first, last = (next(side.read()).text for side in sides(text=text))
    assert first + last == text.read_text(encoding="utf-8")
    assert last.startswith("\n\nParagraph")
    assert 0.85 < len(first) / len(first + last) < 0.9
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"text": f"row {n}"}) for n in range(300)), encoding="utf-8")
    kept, other = ([d.text for d in side.read()] for side in sides(dataset=str(rows)))
    assert sorted(kept + other) == sorted(f"row {n}" for n in range(300))
    assert 15 < len(other) < 50
    assert sides(text=text)[0].record["side"] == "train"


def test_contexts_are_cut_with_their_special_tokens(text: Path) -> None:
    model = tiny("llama")
    found = list(contexts(model, sides(text=text)[0], size=24, tokens=100, bos=True))
    assert sum(map(len, found)) <= 100
    assert {c[0] for c in found} == {model.tokenizer.bos_token_id}
    assert [len(c) for c in found] == [24, 24, 24, 24]
