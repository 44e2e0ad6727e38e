"""`interp circuits` and `interp effects`: results in their folders, rows on standard output, and wrong words refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from interp.cli.main import app
from interp.interventions.ablate import AblateHeads
from interp.interventions.saved import to_json
from interp.results import Result

FEW = ("--task", "greater-than", "--samples", "3")


def interp(*words: str | Path) -> Ran:
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="interp")


@pytest.fixture
def edit(tmp_path: Path) -> Path:
    path = tmp_path / "edit.json"
    path.write_text(to_json([AblateHeads(heads=((1, 2), (2, 0)))]))
    return path


def test_help_names_every_command() -> None:
    shown = interp("circuits", "--help").stdout
    for name in ("patch", "path", "dla", "atp", "knockout", "overlap"):
        assert f"  {name} " in shown
        assert interp("circuits", name, "--help").exit_code == 0, name
    assert interp("effects", "--help").exit_code == 0


@pytest.mark.parametrize(
    ("words", "kind", "rows"),
    [
        (("patch", "--sites", "z,k", "--positions", "end,YY"), "activation_patching", 2 * 18 + 2 * 6),
        (("atp", "--steps", "2", "--direction", "noise"), "attribution_patching", 18),
        (("path", "--receivers", "2.1.q,2.0.k", "--mlps", "frozen"), "path_patching", 18),
        (("path", "--senders", "0.3,1.5"), "path_patching", 2),
        (("dla",), "direct_logit_attribution", 18),
        (("knockout", "--keys", "YY", "--window", "2"), "knockout_sweep", 3),
    ],
)
def test_a_circuit_is_saved_and_printed(tmp_path: Path, words: tuple[str, ...], kind: str, rows: int) -> None:
    ran = interp("circuits", words[0], "tiny/llama", "--out", tmp_path / "a", *FEW, *words[1:])
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "a")
    assert (saved.kind, len(saved.table)) == (f"circuits.{kind}", rows)
    assert "score" in ran.stdout
    assert ("parts (logits): heads" in ran.stderr) == (words[0] == "dla")


def test_two_results_are_compared(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "1")):
        ran = interp(
            "circuits", "atp", "tiny/llama", "--out", tmp_path / name, *FEW, "--seed", seed, "--json", "-k", "2"
        )
        assert ran.exit_code == 0, ran.stderr
        shown = [json.loads(line) for line in ran.stdout.splitlines()]
        assert len(shown) == 2
        assert abs(shown[0]["score"]) >= abs(shown[1]["score"])
        assert shown[0]["control"] is None
    ran = interp("circuits", "overlap", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c", "--k", "3,6")
    assert ran.exit_code == 0, ran.stderr
    assert Result.load(tmp_path / "c").table["k"].tolist() == [3, 6]


def test_effects_on_texts_answers_and_generation(tmp_path: Path, edit: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat, and the dog lay by the door until noon. " * 3)
    ran = interp(
        "effects",
        "tiny/llama",
        "--edit",
        edit,
        "--text",
        text,
        "--tokens",
        "64",
        "--out",
        tmp_path / "t",
        "--draws",
        "2",
    )
    assert ran.exit_code == 0, ran.stderr
    saved = Result.load(tmp_path / "t")
    assert saved.kind == "interventions.text_effects"
    assert set(saved.arrays["document"].tolist()) == {0, 1, 2}  # 193 tokens: a last piece of one token predicts nothing
    assert "cross-entropy" in ran.stdout
    more = ("--edit", edit, *FEW, "--draws", "2", "--json")
    ran = interp("effects", "tiny/llama", *more, "--out", tmp_path / "a")
    assert [json.loads(line)["metric"] for line in ran.stdout.splitlines()][:2] == [
        "log-probability of the answer",
        "accuracy",
    ]
    ran = interp("effects", "tiny/llama", *more, "--steps", "3", "--out", tmp_path / "g")
    assert [json.loads(line)["base"] for line in ran.stdout.splitlines()][:2] == [1.0, 1.0]
    same = interp("effects", "tiny/llama", "--edit", edit, "--control", edit, *FEW, "--json", "--out", tmp_path / "s")
    row = json.loads(same.stdout.splitlines()[0])
    assert row["control"] == row["score"]


def test_show_prints_results_whose_rows_are_not_heads(tmp_path: Path, edit: Path) -> None:
    ran = interp("effects", "tiny/llama", "--edit", edit, *FEW, "--draws", "2", "--quiet", "--out", tmp_path / "e")
    assert ran.exit_code == 0, ran.stderr
    ran = interp("circuits", "patch", "tiny/llama", *FEW, "--sites", "z,k", "--quiet", "--out", tmp_path / "p")
    assert ran.exit_code == 0, ran.stderr
    shown = [json.loads(line) for line in interp("show", tmp_path / "e", "--json").stdout.splitlines()]
    assert [row["metric"] for row in shown] == Result.load(tmp_path / "e").table["metric"].tolist()
    shown = [json.loads(line) for line in interp("show", tmp_path / "p", "--json").stdout.splitlines()]
    assert len({(row["layer"], row["head"], row["site"]) for row in shown}) == 18 + 6
    assert "accuracy" in interp("show", tmp_path / "e").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("circuits", "patch", "--task", "chess"), "--task must be one of ioi, greater-than"),
        (("circuits", "patch", "--sites", "z,w"), "--sites must be one of z, q, k, v"),
        (("circuits", "atp", "--direction", "up"), "--direction must be one of denoise, noise"),
        (("circuits", "path", "--receivers", "2.1"), "LAYER.HEAD"),
        (("circuits", "path", "--receivers", "2.1.z"), "must be one of q, k, v"),
        (("circuits", "path", "--senders", "two"), "a head is written LAYER.HEAD"),
        (("effects", "--edit", "x.json"), "--text FILE (may be repeated) or --task NAME"),
        (("effects", "--edit", "x.json", "--text", "a.txt", "--steps", "2"), "--steps generates"),
    ],
)
def test_wrong_words_are_refused_before_a_model_is_loaded(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    at = 1 if words[0] == "effects" else 2
    ran = interp(*words[:at], "no/such/model", "--out", tmp_path / "x", *words[at:])
    assert ran.exit_code == 2, ran.stderr
    assert said in ran.stderr.replace("\n", " ")


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    ran = interp("effects", "tiny/llama", "--edit", tmp_path / "none.json", *FEW, "--out", tmp_path / "x")
    assert ran.exit_code == 1
    assert "cannot read" in ran.stderr
