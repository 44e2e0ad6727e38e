"""Comparing scans: differences, ranks and intervals against hand-worked tables and draws worked out another way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.batch.compare import compare
from interp.batch.parts import Shard, shard_bytes
from interp.batch.result import open_scan
from interp.batch.scan import scan
from interp.batch.table import write_table
from interp.errors import OptionError
from interp.models.toy import tiny
from interp.stats.catalogue import find
from interp.stats.summary import Summary

NAMES = ("entropy", "max_probability")
LAYERS, HEADS, ROWS = 2, 3, 5


def write_scan(folder: Path, values: np.ndarray, *, ids: str = "", plan: dict[str, Any] | None = None) -> Path:
    """A finished scan whose shards hold values [shard, statistic, layer, head, row]."""
    (folder / "parts").mkdir(parents=True)
    scales = {s.name: s.scale for s in find(NAMES)}
    total: dict[str, Summary] = {}
    for index, shard in enumerate(values):
        parts = {name: Summary.of(x, scales[name]) for name, x in zip(NAMES, shard, strict=True)}
        total = {name: total[name].merge(s) if name in total else s for name, s in parts.items()}
        made = Shard(
            index=index, key="k", ids_sha256=f"{ids}{index}", tokens=ROWS, seconds=1.0, backends=("cpu",),
            layers=tuple(range(LAYERS)), summaries=parts,
        )  # fmt: skip
        (folder / f"parts/{index:06d}.parquet").write_bytes(shard_bytes(made))
    write_table(folder, total, scales=scales, layers=range(LAYERS), plan={"schema": 1}, key="k")
    facts = {s.name: {"formula": s.formula, "undefined": s.undefined} for s in find(NAMES)}
    manifest = {
        "key": "k", "plan": plan or {"context": 64}, "model": {"name": folder.name}, "statistics": facts,
        "shards": len(values), "versions": {},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def draw(seed: int, shards: int = 11) -> np.ndarray:
    """Values whose shards differ more than their rows do."""
    generator = np.random.default_rng(seed)
    shape = (shards, len(NAMES), LAYERS, HEADS)
    return (generator.uniform(size=(*shape, 1)) + 0.01 * generator.uniform(size=(*shape, ROWS))) / 2


def test_differences_and_ranks(tmp_path: Path) -> None:
    a, b = draw(0), draw(1)
    result = compare(write_scan(tmp_path / "a", a), write_scan(tmp_path / "b", b, plan={"context": 128}), draws=50)
    assert result.manifest["differences"] == {"context": [64, 128]}
    for n, name in enumerate(NAMES):
        means = [x[:, n].mean((0, -1)) for x in (a, b)]
        rows = result.table[result.table["statistic"] == name].set_index(["layer", "head"])
        np.testing.assert_allclose(result.arrays[name], means[1] - means[0], atol=1e-15)
        for layer in range(LAYERS):
            for head in range(HEADS):
                row = rows.loc[(layer, head)]
                ranks = [1 + int((m > m[layer, head]).sum()) for m in means]
                assert (row["rank_a"], row["rank_b"], row["rank_change"]) == (*ranks, ranks[1] - ranks[0])
                assert row["low"] <= row["score"] <= row["high"]


def test_paired_where_the_tokens_are_the_same(tmp_path: Path) -> None:
    """B is A with a constant on top: all that varies between shards is shared, so the paired interval has no width."""
    a = draw(2)
    same = compare(write_scan(tmp_path / "a", a), write_scan(tmp_path / "b", a + 0.25), draws=200)
    other = compare(tmp_path / "a", write_scan(tmp_path / "c", a + 0.25, ids="other text "), draws=200)
    assert same.manifest["settings"]["method"] == "paired bootstrap over shards"
    assert other.manifest["settings"]["method"] == "bootstrap over shards"
    assert (same.table["high"] - same.table["low"]).max() < 1e-12
    np.testing.assert_allclose(same.table["score"], 0.25, atol=1e-12)
    assert (same.table["rank_low"] == 0).all() and (same.table["rank_high"] == 0).all()
    # Unpaired: the standard error of a mean of 11 shards, in each of the two.
    expected = np.sqrt(2 * a.mean(-1).var(0) / len(a)).reshape(-1)
    np.testing.assert_allclose(other.table["spread"], expected, rtol=0.2)


def test_normal_where_there_are_few_shards(tmp_path: Path) -> None:
    a, b = draw(3, shards=3), draw(4, shards=3)
    result = compare(write_scan(tmp_path / "a", a), write_scan(tmp_path / "b", b), draws=4000, confidence=0.9)
    assert result.manifest["settings"]["method"] == "normal, from the spread of rows"
    rows = [x.transpose(1, 2, 3, 0, 4).reshape(len(NAMES) * LAYERS * HEADS, -1) for x in (a, b)]
    error = np.sqrt(sum(x.var(1, ddof=1) / x.shape[1] for x in rows))
    np.testing.assert_allclose(result.table["spread"], error, rtol=0.05)
    np.testing.assert_allclose(result.table["high"] - result.table["low"], 2 * 1.645 * error, rtol=0.08)


def test_lost_shards_are_not_mistaken_for_all(tmp_path: Path) -> None:
    a, b = write_scan(tmp_path / "a", draw(5)), write_scan(tmp_path / "b", draw(6))
    (b / "parts/000010.parquet").unlink()
    assert compare(a, b, draws=20).manifest["settings"]["method"] == "normal, from the spread of rows"


def test_refusals(tmp_path: Path) -> None:
    a, b = write_scan(tmp_path / "a", draw(7)), write_scan(tmp_path / "b", draw(8))
    with pytest.raises(OptionError, match="do not share alpha; they share: entropy, max_probability"):
        compare(a, b, statistics=["alpha"])
    with pytest.raises(OptionError, match="confidence must lie between 0 and 1"):
        compare(a, b, confidence=1.0)
    manifest = json.loads((b / "manifest.json").read_text())
    manifest["statistics"]["entropy"]["formula"] = "another"
    (b / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OptionError, match="define entropy differently"):
        compare(a, b)
    assert set(compare(a, b, statistics=["max_probability"], draws=5).arrays) == {"max_probability"}


def test_real_scans(tmp_path: Path) -> None:
    model = tiny("llama")
    text = "It was a bright cold day in April, and the clocks were striking thirteen. " * 12
    for name, layers in (("a", None), ("b", None), ("c", [0])):
        scan(model, text, out=tmp_path / name, context=64, shard=1, layers=layers, thumbnails=0)
    result = compare(open_scan(tmp_path / "a"), tmp_path / "b", draws=20)
    assert result.manifest["settings"]["method"].startswith("paired")
    assert (result.table["score"].dropna() == 0).all() and (result.table["rank_change"].dropna() == 0).all()
    with pytest.raises(OptionError, match="other layers or heads"):
        compare(tmp_path / "a", tmp_path / "c")
