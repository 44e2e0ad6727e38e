"""The report on planted models: labels are the planted heads; results are kept, used again, and measured anew where settings differ."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.errors import OptionError, OutputError
from interp.heads import report_parts
from interp.heads.features import features
from interp.heads.labels import Rules, labelled
from interp.heads.report import load_report, report
from interp.models.hooked import HookedModel
from interp.models.planted import planted
from interp.models.toy import tiny
from interp.results import Result

QUICK = ("copying", "random tokens", "real text", "features")
"""Parts that take well below a second on a planted model."""
TOKENS = 128


@pytest.fixture(scope="module")
def planted_model() -> tuple[HookedModel, dict[str, tuple[int, int]]]:
    return planted(seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, planted_model) -> Path:
    """A finished report."""
    out = tmp_path_factory.mktemp("report") / "planted"
    report(planted_model[0], folder=out, tokens=TOKENS, samples=3, parts=QUICK)
    return out


def test_labels_are_the_planted_heads(folder: Path, planted_model) -> None:
    _, places = planted_model
    wide, parts = load_report(folder)
    found = labelled(wide.table)
    assert found["previous"] == [places["previous"]]
    assert found["duplicate"] == [places["duplicate"]]
    # The planted induction head has a random OV circuit, which may or may not copy above chance; the retrieval head's copies.
    assert places["retrieval"] in found["induction"]
    assert set(found["induction"]) <= {places["retrieval"], places["induction"]}
    assert set(found) == {"previous", "duplicate", "induction"}
    assert len(wide.table) == 15
    assert wide.manifest["labels_by_controls"] == dict.fromkeys(wide.manifest["labels"], 0)
    row = wide.table.set_index(["layer", "head"]).loc[places["retrieval"]]
    own = parts["induction"].table.set_index(["layer", "head"]).loc[places["retrieval"]]
    assert (row["induction"], row["induction_control"]) == (own["score"], own["control"])


def test_results_are_used_again_where_settings_agree(folder: Path, planted_model) -> None:
    model, _ = planted_model
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("table.parquet")}
    again = report(model, folder=folder, tokens=TOKENS, samples=3, parts=QUICK, rules=Rules(previous=1.0))
    assert {r["outcome"] for r in again.manifest["parts"].values()} == {"used again"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "previous" not in labelled(again.table)  # only the rule has changed


def test_other_settings_are_measured_anew(tmp_path: Path, planted_model) -> None:
    model, _ = planted_model
    parts = ("copying", "random tokens")
    report(model, folder=tmp_path, tokens=TOKENS, samples=2, parts=parts)
    again = report(model, folder=tmp_path, tokens=TOKENS, samples=3, parts=parts)
    assert again.manifest["parts"]["copying"]["outcome"] == "used again"  # has no samples of the plan
    assert again.manifest["parts"]["random tokens"]["outcome"] == "measured"
    other = report(planted(seed=4)[0], folder=tmp_path, tokens=TOKENS, samples=3, parts=parts)
    assert {r["outcome"] for r in other.manifest["parts"].values()} == {"measured"}


def test_a_report_killed_while_its_table_was_written_is_repeated(
    tmp_path: Path, planted_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = planted_model
    settings = {"tokens": TOKENS, "samples": 2, "parts": ("copying",)}
    wanted = report(model, folder=tmp_path / "whole", **settings)

    def half(self: Result, folder: str | Path) -> Path:
        if self.kind != "heads.report":
            return save(self, folder)
        Path(folder).mkdir()
        (Path(folder) / "table.parquet").write_bytes(b"PAR1")
        raise KeyboardInterrupt

    save = Result.save
    with monkeypatch.context() as patch:
        patch.setattr(Result, "save", half)
        with pytest.raises(KeyboardInterrupt):
            report(model, folder=tmp_path / "cut", **settings)
    with pytest.raises(OutputError, match="no finished report"):
        load_report(tmp_path / "cut")
    again = report(model, folder=tmp_path / "cut", **settings)
    assert again.manifest["parts"]["copying"]["outcome"] == "used again"
    pd.testing.assert_frame_equal(load_report(tmp_path / "cut")[0].table, wanted.table)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"results", "report"}
    # half a table in its very place, as earlier versions could leave it
    (tmp_path / "cut" / "report" / "manifest.json").unlink()
    pd.testing.assert_frame_equal(report(model, folder=tmp_path / "cut", **settings).table, wanted.table)


def test_an_interrupted_report_goes_on(tmp_path: Path, planted_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = planted_model

    def stop(*_: object) -> dict[str, object]:
        raise KeyboardInterrupt

    whole = report_parts.PARTS
    cut = tuple(replace(p, measure=stop) if p.name == "random tokens" else p for p in whole)
    module = import_module("interp.heads.report")  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "PARTS", cut)
    with pytest.raises(KeyboardInterrupt):
        report(model, folder=tmp_path, tokens=TOKENS, samples=2, parts=("copying", "random tokens"))
    with pytest.raises(OutputError, match="no finished report"):
        load_report(tmp_path)
    monkeypatch.setattr(module, "PARTS", whole)
    result = report(model, folder=tmp_path, tokens=TOKENS, samples=2, parts=("copying", "random tokens"))
    assert [r["outcome"] for r in result.manifest["parts"].values()] == ["used again", "measured"]


def test_a_damaged_result_is_measured_anew(tmp_path: Path, planted_model) -> None:
    model, _ = planted_model
    report(model, folder=tmp_path, tokens=TOKENS, parts=("copying",))
    (tmp_path / "results" / "copying" / "table.parquet").write_bytes(b"PAR1")
    again = report(model, folder=tmp_path, tokens=TOKENS, parts=("copying",))
    assert again.manifest["parts"]["copying"]["outcome"] == "measured"


def test_what_cannot_be_measured_is_named_and_remembered(tmp_path: Path, planted_model) -> None:
    model, _ = planted_model  # its tokenizer knows w1 ... w96 only
    said = []
    for _ in range(2):
        result = report(model, folder=tmp_path, tokens=TOKENS, parts=("copying", "successor", "retrieval"))
        said.append({name: record.get("reason") for name, record in result.manifest["parts"].items()})
    assert said[0] == said[1]
    assert said[0]["copying"] is None
    assert "single tokens" in said[0]["successor"]
    assert said[0]["retrieval"]
    assert "successor" not in result.table.columns


@pytest.mark.parametrize(("family", "reason"), [("bert", "decoder"), ("t5", "decoder")])
def test_models_without_a_causal_decoder(tmp_path: Path, family: str, reason: str) -> None:
    result = report(tiny(family), folder=tmp_path, tokens=64)
    assert {r["outcome"] for r in result.manifest["parts"].values()} == {"not measured"}
    assert all(reason in r["reason"] for r in result.manifest["parts"].values())
    assert (result.table["labels"] == "").all()


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    model = tiny("llama")
    model.tokenizer = None
    result = report(model, folder=tmp_path, tokens=64, parts=("copying", "random tokens", "retrieval"))
    assert all("tokenizer" in r["reason"] for r in result.manifest["parts"].values())


def test_refusals(tmp_path: Path, planted_model) -> None:
    model, _ = planted_model
    with pytest.raises(OptionError, match="retrieval"):
        report(model, folder=tmp_path, parts=("retrival",), tokens=TOKENS)
    with pytest.raises(OptionError, match="1024"):
        report(model, folder=tmp_path, tokens=4096)
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a report"):
        report(model, folder=tmp_path, tokens=TOKENS)


def test_features_of_planted_heads(planted_model) -> None:
    model, places = planted_model
    words = " ".join(f"w{1 + i * 7 % 96}" for i in range(300))
    result = features(model, texts=[words], tokens=61, samples=2)
    table = result.table.set_index(["layer", "head"])
    assert table.loc[places["uniform"], "normalised_entropy"] == pytest.approx(1.0, abs=1e-5)
    assert table.loc[places["previous"], "previous_token_mass"] > 0.95
    assert table.loc[places["sink"], "first_token_mass"] > 0.95
    assert table["first_token_mass"].drop(places["sink"]).max() < 0.2
    # Row i (from 0) of the uniform head looks back i / 2 tokens on average, so all rows of 61 look back 15.
    assert table.loc[places["uniform"], "mean_distance"] == pytest.approx(np.mean(np.arange(61)) / 2, abs=1e-3)
    assert result.arrays["values"].shape == (12, 2, 3, 5)
