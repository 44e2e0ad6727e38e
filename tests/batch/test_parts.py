"""Shards come back bit for bit, merge exactly, and a damaged file is said to be one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.batch.parts import Shard, fold, read_ids_sha256, read_shard, shard_path, write_shard
from interp.batch.result import read_table
from interp.batch.table import write_table
from interp.errors import CorruptFileError, OutputError
from interp.stats.declaration import POSITIVE, UNIT
from interp.stats.summary import Summary

LAYERS = (2, 3, 11)
HEADS = 5
SCALES = {"share": UNIT, "length": POSITIVE, "rate": UNIT}
FIELDS = ("count", "mean", "m2", "minimum", "maximum", "histogram")


def values(seed: int, n: int = 37) -> dict[str, np.ndarray]:
    """[layer, head, query] values; one head of `share` is undefined throughout, one length is huge, one tiny."""
    rng = np.random.default_rng(seed)
    share = rng.random((len(LAYERS), HEADS, n))
    share[1, 3] = np.nan
    share[:, :, 0] = np.nan
    length = np.exp(rng.normal(0, 9, (len(LAYERS), HEADS, n)))
    return {"share": share, "length": length, "rate": (rng.random((len(LAYERS), HEADS, 1)) > 0.5).astype(float)}


def make_shard(index: int, seed: int, n: int = 37) -> Shard:
    return Shard(
        index=index,
        key="abc",
        ids_sha256="f" * 64,
        tokens=n,
        seconds=1.25,
        backends=("cpu", "portable"),
        layers=LAYERS,
        summaries={name: Summary.of(x, SCALES[name]) for name, x in values(seed, n).items()},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    before = make_shard(12, 0)
    path = shard_path(tmp_path, 12)
    assert path.name == "000012.parquet"
    write_shard(path, before)
    after = read_shard(path)
    for name in ("index", "key", "ids_sha256", "tokens", "seconds", "backends", "layers"):
        assert getattr(after, name) == getattr(before, name), name
    assert list(after.summaries) == ["share", "length", "rate"]
    for name, summary in before.summaries.items():
        for field in FIELDS:
            old, new = getattr(summary, field), getattr(after.summaries[name], field)
            assert old.dtype == new.dtype
            assert old.tobytes() == new.tobytes(), (name, field)  # bits, so that infinities and signs of zero count
    assert read_ids_sha256(path) == "f" * 64
    assert [p.name for p in tmp_path.iterdir()] == ["000012.parquet"]


def test_fold_is_the_summary_of_all_values(tmp_path: Path) -> None:
    for i, n in enumerate((37, 5, 101)):
        write_shard(shard_path(tmp_path, i), make_shard(i, seed=i, n=n))
    total = fold(read_shard(shard_path(tmp_path, i)) for i in range(3))
    for name in SCALES:
        together = np.concatenate([values(i, n)[name] for i, n in enumerate((37, 5, 101))], axis=-1)
        count = (~np.isnan(together)).sum(-1)
        assert np.array_equal(total[name].count, count)
        some = count > 0
        assert np.allclose(total[name].mean[some], np.nanmean(together[some], axis=-1), rtol=1e-13)
        enough = count > 1
        assert np.allclose(total[name].std[enough], np.nanstd(together[enough], axis=-1, ddof=1), rtol=1e-12)
        assert np.array_equal(total[name].minimum[some], np.nanmin(together[some], axis=-1))
        assert np.array_equal(total[name].maximum[some], np.nanmax(together[some], axis=-1))
        assert np.array_equal(total[name].histogram.sum(-1), count)


def test_table_says_what_the_summaries_do(tmp_path: Path) -> None:
    total = {name: Summary.of(x, SCALES[name]) for name, x in values(0).items()}
    write_table(tmp_path, total, scales=SCALES, layers=LAYERS, plan={"schema": 1, "b": [2]}, key="abc")
    frame = read_table(tmp_path)
    assert list(frame.columns) == [
        *("layer", "head", "statistic", "mean", "std", "count", "min", "max", "q05", "q25", "q50", "q75", "q95")
    ]
    assert [str(t) for t in frame.dtypes[["layer", "head", "mean", "count", "q95"]]] == [
        *("int32", "int32", "float64", "int64", "float64")
    ]
    assert len(frame) == len(SCALES) * len(LAYERS) * HEADS
    row = frame[(frame.layer == 11) & (frame["head"] == 4) & (frame.statistic == "share")].iloc[0]
    x = values(0)["share"][2, 4]
    assert row["mean"] == pytest.approx(np.nanmean(x), rel=1e-14)
    assert row["count"] == 36
    assert row["min"] == np.nanmin(x)
    assert row["q50"] == pytest.approx(np.nanmedian(x), abs=2 / 37)
    undefined = frame[(frame.layer == 3) & (frame["head"] == 3) & (frame.statistic == "share")].iloc[0]
    assert undefined["count"] == 0
    assert undefined[["mean", "std", "min", "max", "q05", "q95"]].isna().all()
    metadata = pq.read_schema(tmp_path / "stats.parquet").metadata
    assert metadata[b"interp.key"] == b"abc"
    assert metadata[b"interp.schema"] == b"1"
    assert metadata[b"interp.plan"] == b'{"b": [2], "schema": 1}'


def test_table_is_the_same_bytes_twice(tmp_path: Path) -> None:
    total = {name: Summary.of(x, SCALES[name]) for name, x in values(0).items()}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name, total, scales=SCALES, layers=LAYERS, plan={"schema": 1}, key="k")
    assert (tmp_path / "a" / "stats.parquet").read_bytes() == (tmp_path / "b" / "stats.parquet").read_bytes()


def test_damaged_shard(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, make_shard(0, 0))
    path.write_bytes(path.read_bytes()[:-50])
    for read in (read_shard, read_ids_sha256):
        with pytest.raises(CorruptFileError, match=r"000000\.parquet is damaged .* delete that file"):
            read(path)


def test_a_table_that_is_no_shard(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    pq.write_table(pa.table({"x": [1]}), path)
    for read in (read_shard, read_ids_sha256):
        with pytest.raises(CorruptFileError, match="is damaged"):
            read(path)


def test_no_table_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no"):
        read_table(tmp_path)
    (tmp_path / "stats.parquet").write_bytes(b"nothing")
    with pytest.raises(CorruptFileError, match="delete it"):
        read_table(tmp_path)
