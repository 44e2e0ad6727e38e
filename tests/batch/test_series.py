"""Several models over one text: folders that read as one data set with pandas, DuckDB and datasets, in the order that was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.batch.parts import read_shard
from interp.batch.scan import scan
from interp.batch.series import ModelsResult, labels, open_models, parse_model, scan_models
from interp.batch.task import ModelChoice
from interp.errors import OptionError, OutputError

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 6
NAMES = ("tiny/mistral", "tiny/gpt2", "tiny/llama")


def choices(names: tuple[str, ...] = NAMES) -> list[ModelChoice]:
    return [ModelChoice(name=name, threads=1) for name in names]


def run_all(folder: Path, names: tuple[str, ...] = NAMES) -> ModelsResult:
    def run(choice: ModelChoice, model: object, out: Path) -> object:
        return scan(model, TEXT, out=out, context=64, shard=2, collect=["entropy", "alpha"], thumbnails=0)  # type: ignore[arg-type]

    return scan_models(choices(names), folder, run)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ModelsResult:
    return run_all(tmp_path_factory.mktemp("series") / "out")


def test_frame_keeps_the_order(job: ModelsResult) -> None:
    frame = job.frame
    assert list(dict.fromkeys(frame["model"])) == ["mistral", "gpt2", "llama"]
    assert frame.groupby("model", sort=False)["order"].unique().map(list).tolist() == [[0], [1], [2]]
    alone = open_models(job.folder).scans["gpt2"].frame
    assert frame[frame["model"] == "gpt2"]["value"].tolist() == alone["value"].tolist()


def test_again_measures_nothing_and_more_models_may_follow(job: ModelsResult) -> None:
    before = {p: p.stat().st_mtime_ns for p in job.folder.rglob("*.parquet")}
    assert run_all(job.folder).frame.equals(job.frame)
    assert before == {p: p.stat().st_mtime_ns for p in job.folder.rglob("*.parquet")}
    with pytest.raises(OutputError, match=r"holds scans of other models, too \(mistral, llama\)"):
        run_all(job.folder, ("tiny/gpt2",))


def test_pandas_reads_all_models(job: ModelsResult) -> None:
    files = sorted(map(str, job.folder.glob("model=*/stats.parquet")))
    table = pd.read_parquet(files, partitioning="hive")
    merged = table.astype({"model": str}).merge(job.frame, on=["model", "layer", "head", "statistic"])
    assert len(merged) == len(job.frame) == len(table)
    np.testing.assert_array_equal(merged["mean"], merged["value"])


def test_duckdb_reads_all_models_and_shards(job: ModelsResult) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed: pip install duckdb")
    found = duckdb.sql(
        f"SELECT model, layer, head, mean FROM read_parquet('{job.folder}/*/stats.parquet', hive_partitioning = true) "
        "WHERE statistic = 'entropy' ORDER BY mean DESC LIMIT 1"
    ).fetchall()
    entropy = job.frame[job.frame["statistic"] == "entropy"]
    top = entropy.loc[entropy["value"].idxmax()]
    assert found == [(top["model"], top["layer"], top["head"], top["value"])]
    shards = duckdb.sql(
        "SELECT model, parse_filename(filename, true)::int AS shard, sum(count * mean) / sum(count) AS mean "
        f"FROM read_parquet('{job.folder}/*/parts/[0-9]*.parquet', hive_partitioning = true, filename = true) "
        "WHERE statistic = 'entropy' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert len(shards) == len(list(job.folder.glob("*/parts/[0-9]*.parquet")))
    for model, shard, mean in shards:
        summary = read_shard(job.folder / f"model={model}/parts/{shard:06d}.parquet").summaries["entropy"]
        np.testing.assert_allclose(mean, (summary.count * summary.mean).sum() / summary.count.sum(), rtol=1e-12)


def test_datasets_reads_a_table(job: ModelsResult, tmp_path: Path) -> None:
    from datasets import load_dataset

    files = {label: str(scan.folder / "stats.parquet") for label, scan in job.scans.items()}
    found = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))
    assert {label: len(rows) for label, rows in found.items()} == {
        label: len(scan.frame) for label, scan in job.scans.items()
    }
    assert found["llama"][0]["statistic"] == "entropy"


def test_report_and_figure(job: ModelsResult) -> None:
    from interp.widgets.plots_batch import write_models_report

    page = write_models_report(job).read_text(encoding="utf-8")
    assert all(f'href="model={label}/report.html"' in page for label in job.scans)
    figure = job.plot(statistic="alpha")
    shown = [trace for trace in figure.data if trace.visible]
    means = [job.scans[label].frame.query("statistic == 'alpha'")["value"].mean() for label in job.scans]
    np.testing.assert_allclose(shown[0].y, means)
    assert list(shown[0].x) == list(job.scans)
    with pytest.raises(OptionError, match="no statistic 'x' here; there are: entropy, alpha"):
        job.plot(statistic="x")


def test_labels() -> None:
    given = [ModelChoice(name="EleutherAI/pythia-70m", revision=r, threads=1) for r in ("step0", "step1000")]
    assert labels(given) == ["pythia-70m@step0", "pythia-70m@step1000"]
    assert labels([ModelChoice(name="a/b c=d", threads=1)]) == ["b-c-d"]
    with pytest.raises(OptionError, match="two models would both be called 'gpt2'"):
        labels(choices(("a/gpt2", "b/gpt2")))
    with pytest.raises(OptionError, match="no model"):
        scan_models([], "x", lambda *_: None)  # type: ignore[arg-type, return-value]


def test_parse_model(tmp_path: Path) -> None:
    assert parse_model("owner/name@main") == ("owner/name", "main")
    assert parse_model("owner/name") == ("owner/name", None)
    odd = tmp_path / "a@b"
    odd.mkdir()
    assert parse_model(str(odd)) == (str(odd), None)


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="holds something else already"):
        scan_models(choices(), tmp_path, lambda *_: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(OutputError, match="holds no scans of several models"):
        open_models(tmp_path)
