"""kill -9 at random moments, again and again: the numbers are those of an undisturbed scan, to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interp.batch.parts import read_shard
from interp.batch.result import read_table

SCRIPT = Path(__file__).parent / "support" / "kill_at_random.py"
SHARDS = 7
"""846 bytes in contexts of 63 and BOS: 13 contexts and a rest of 27, two to a shard."""


def attack(folder: Path, scans: int, seed: int) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(scans), str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(folder: Path, told: list[dict[str, object]]) -> None:
    assert all(line["status"] == 0 for line in told), told
    reference = folder / "reference"
    tokens = json.loads((reference / "manifest.json").read_text(encoding="utf-8"))["tokens"]
    for line in told[1:]:
        out = folder / str(line["scan"])
        assert (out / "stats.parquet").read_bytes() == (reference / "stats.parquet").read_bytes()
        for name, column in read_table(reference).items():
            equal_nan = column.dtype.kind == "f"
            assert np.array_equal(column.to_numpy(), read_table(out)[name].to_numpy(), equal_nan=equal_nan), name
        parts = sorted(p.name for p in (out / "parts").glob("*.parquet"))
        assert parts == [f"{i:06d}.parquet" for i in range(SHARDS)]
        assert not list(out.rglob("*.tmp"))
        assert sum(read_shard(out / "parts" / name).tokens for name in parts) == tokens["tokens"]
        assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["tokens"] == tokens
        assert (out / "parts" / "maps.safetensors").read_bytes() == (
            reference / "parts" / "maps.safetensors"
        ).read_bytes()


@pytest.mark.medium
def test_killed_scans_end_with_the_same_bits(tmp_path: Path) -> None:
    told = attack(tmp_path, scans=4, seed=0)
    assert len(told) == 5
    check(tmp_path, told)
    states = [state for line in told[1:] for state in line["shards_at_kills"]]  # type: ignore[attr-defined]
    assert any(0 < state < SHARDS for state in states), "no kill hit a scan in its middle: the test proves nothing"


@pytest.mark.slow
def test_many_killed_scans_end_with_the_same_bits(tmp_path: Path) -> None:
    told = attack(tmp_path, scans=40, seed=1000)
    assert len(told) == 41
    check(tmp_path, told)
