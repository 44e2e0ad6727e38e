"""Comparing results of one analysis: differences and ranks by hand, and intervals only where a result keeps its samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from interp.batch.compare_results import NONE, compare_results
from interp.cli.main import app
from interp.entropy.report import report as entropy_report
from interp.errors import OptionError
from interp.heads.copying import copying
from interp.heads.patterns import patterns
from interp.heads.report import report as heads_report
from interp.models.toy import tiny
from interp.results import Result
from interp.sinks.report import report as sinks_report

LAYERS, HEADS = 2, 3


def made(
    samples: np.ndarray | None, *, score: np.ndarray | None = None, kind: str = "heads.induction", **settings: Any
) -> Result:
    """A result with these scores [sample, layer, head], or with a score [layer, head] and no samples."""
    value = samples.mean(0) if score is None and samples is not None else score
    assert value is not None
    layers, heads = value.shape
    table = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), heads),
            "head": np.tile(np.arange(heads), layers),
            "score": value.reshape(-1),
            "spread": 0.5,
            "control": 0.0,
        }
    )
    manifest = {"model": {"name": "m"}, "settings": settings, "seed": 0, "versions": {}, "dtype": "float32"}
    return Result(kind=kind, table=table, manifest=manifest, arrays={} if samples is None else {"score": samples})


def draw(seed: int, samples: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, LAYERS, HEADS))


def test_differences_ranks_and_intervals() -> None:
    a, b = draw(0, 13), draw(1, 11) + np.arange(HEADS)
    result = compare_results(made(a, form="x"), made(b, form="y"), draws=4000)
    table = result.table.set_index(["layer", "head"])
    assert set(result.table["statistic"]) == {"induction"}
    assert result.manifest["differences"] == {"form": ["x", "y"]}
    assert result.manifest["settings"]["method"] == "bootstrap over samples"
    assert result.manifest["samples"] == {"induction": [13, 11]}
    np.testing.assert_allclose(result.arrays["induction"], b.mean(0) - a.mean(0), atol=1e-12)
    for layer in range(LAYERS):
        for head in range(HEADS):
            row = table.loc[(layer, head)]
            ranks = [1 + int((x.mean(0) > x.mean(0)[layer, head]).sum()) for x in (a, b)]
            assert (row["rank_a"], row["rank_b"], row["rank_change"]) == (*ranks, ranks[1] - ranks[0])
            # a mean redrawn from n samples has the variance of those samples over n
            error = np.sqrt(a[:, layer, head].var() / 13 + b[:, layer, head].var() / 11)
            assert row["spread"] == pytest.approx(error, rel=0.08)
            assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_few_samples_give_a_normal_interval_that_is_called_so() -> None:
    a, b = draw(2, 3), draw(3, 5)
    result = compare_results(made(a), made(b), draws=8000, confidence=0.9)
    assert result.manifest["settings"]["method"] == "normal, from the spread of samples"
    error = np.sqrt(a.var(0, ddof=1) / 3 + b.var(0, ddof=1) / 5).reshape(-1)
    np.testing.assert_allclose(result.table["spread"], error, rtol=0.05)
    np.testing.assert_allclose(result.table["high"] - result.table["low"], 2 * 1.645 * error, rtol=0.06)


@pytest.mark.parametrize(
    "without",
    [
        made(None, score=draw(4)[0]),
        made(draw(4, 1)),
        made(draw(4), score=draw(5)[0]),  # an array of another name's meaning: its mean is not the score
    ],
    ids=["no samples", "one sample", "samples of something else"],
)
def test_no_interval_without_repeats(without: Result) -> None:
    for pair in ((without, made(draw(6))), (made(draw(6)), without)):
        result = compare_results(*pair)
        assert result.manifest["settings"]["method"] == NONE == "no interval: the result keeps no repeats"
        assert result.table[["spread", "low", "high", "rank_low", "rank_high"]].isna().to_numpy().all()
        np.testing.assert_allclose(result.table["score"], result.table["b"] - result.table["a"])
        assert result.table["rank_change"].notna().all()


def test_a_head_with_one_defined_sample_has_no_interval() -> None:
    a = draw(7, 4)
    a[1:, 0, 1] = np.nan
    result = compare_results(made(a, score=np.nanmean(a, 0)), made(draw(8, 4)))
    rows = result.table.set_index(["layer", "head"])
    assert np.isnan(rows.loc[(0, 1), "low"]) and np.isnan(rows.loc[(0, 1), "rank_high"])
    assert rows.drop(index=(0, 1))[["low", "rank_low"]].notna().to_numpy().all()
    assert rows["rank_change"].notna().all()


def test_samples_of_real_results_are_found(tmp_path: Path) -> None:
    """Kinds whose samples lie under another name than "score"; each is checked against the table's own score."""
    model = tiny("llama")
    short = {"tokens": 32, "count": 9}
    for name, run, options in (
        ("entropy", entropy_report, short),
        ("sinks", sinks_report, {**short, "long_tokens": 64}),
        ("patterns", patterns, {"tokens": 128, "samples": 2}),
        ("copying", copying, {"samples": 2}),
    ):
        for seed in (0, 1):
            run(model, seed=seed, **options).save(tmp_path / f"{name}{seed}")  # type: ignore[operator]
        result = compare_results(tmp_path / f"{name}0", tmp_path / f"{name}1", draws=20)
        wanted = 9 if "count" in options else 2
        assert result.manifest["samples"] == {name: [wanted, wanted]}
        assert result.manifest["settings"]["method"] != NONE
        assert result.manifest["differences"] == {"seed": [0, 1]}


def test_a_report_of_heads_is_compared_by_its_analyses(tmp_path: Path) -> None:
    settings = {"tokens": 64, "samples": 2, "parts": ["copying", "random tokens", "features"]}
    for name, seed in (("a", 0), ("b", 1)):
        heads_report(tiny("gpt2"), folder=tmp_path / name, seed=seed, **settings)  # type: ignore[arg-type]
    result = compare_results(tmp_path / "a", tmp_path / "b", draws=20)
    assert list(result.manifest["settings"]["methods"]) == [
        "copying", "previous_token", "duplicate_token", "induction", "features",
    ]  # fmt: skip
    own = [Result.load(tmp_path / name / "results" / "induction").table["score"] for name in ("a", "b")]
    rows = result.table[result.table["statistic"] == "induction"]
    np.testing.assert_allclose(rows["score"], own[1] - own[0])
    one = compare_results(tmp_path / "a" / "report", tmp_path / "b", statistics=["induction"], draws=20)
    assert set(one.table["statistic"]) == {"induction"}
    with pytest.raises(OptionError, match="do not share retrieval"):
        compare_results(tmp_path / "a", tmp_path / "b", statistics=["retrieval"])


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="do not share an analysis; A has induction; B has copying"):
        compare_results(made(draw(0)), made(draw(1), kind="heads.copying"))
    with pytest.raises(OptionError, match="other layers or heads"):
        compare_results(made(draw(0)), made(draw(1)[:, :1]))
    twice = made(draw(0))
    double = Result(kind=twice.kind, table=pd.concat([twice.table, twice.table]), manifest=twice.manifest)
    with pytest.raises(OptionError, match="not one row for each head"):
        compare_results(double, double)
    with pytest.raises(OptionError, match="confidence must lie between 0 and 1"):
        compare_results(made(draw(0)), made(draw(1)), confidence=0.0)


def test_on_the_command_line(tmp_path: Path) -> None:
    made(draw(0)).save(tmp_path / "a")
    made(draw(1)).save(tmp_path / "b")
    made(None, score=draw(2)[0]).save(tmp_path / "c")

    def interp(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    shown = interp("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "cmp")
    assert shown.exit_code == 0, shown.stderr
    assert "induction: heads that differ most" in shown.stdout
    assert "bootstrap over samples (11 and 11 samples), 95% each" in shown.stderr
    assert interp("report", tmp_path / "cmp").exit_code == 0
    assert "induction: b minus a" in (tmp_path / "cmp" / "report.html").read_text(encoding="utf-8")
    bare = interp("compare", tmp_path / "a", tmp_path / "c")
    assert "no interval: the result keeps no repeats" in bare.stderr
    assert "nan" not in bare.stdout
    lines = [json.loads(x) for x in interp("compare", tmp_path / "a", tmp_path / "c", "--json").stdout.splitlines()]
    assert len(lines) == LAYERS * HEADS and all(line["low"] is None for line in lines)
    (tmp_path / "d").mkdir()
    mixed = interp("compare", tmp_path / "a", tmp_path / "d")
    assert mixed.exit_code == 2 and "holds no result of an analysis, as the other does" in mixed.stderr
