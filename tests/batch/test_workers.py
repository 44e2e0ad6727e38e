"""Scans by real worker processes: the bits are those of a scan in this process, whoever is killed; workers refuse another model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from interp.batch.engine_local import LocalEngine
from interp.batch.events import Event
from interp.batch.failures import read_failures
from interp.batch.result import ScanResult
from interp.batch.scan import scan
from interp.batch.task import ModelChoice
from interp.errors import OptionError, PlanMismatchError
from interp.models.hooked import HookedModel
from interp.models.load import load

NAME = "tiny/llama"
TEXT = "It was a bright cold day in April, and the clocks were striking thirteen, thirteen. " * 9
SETTINGS: dict[str, Any] = {"context": 48, "shard": 2, "batch": 2, "thumbnails": 2}
SCRIPT = Path(__file__).parent / "support" / "kill_scans.py"


@pytest.fixture(scope="module")
def llama() -> Iterator[HookedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(NAME)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def here(llama: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> ScanResult:
    return scan(llama, TEXT, out=tmp_path_factory.mktemp("workers") / "here", **SETTINGS)


@pytest.mark.medium
def test_a_killed_worker_changes_no_bit(llama: HookedModel, here: ScanResult, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(event: Event) -> None:
        if event.kind == "shard" and not killed:
            victim = psutil.Process().children()[0]
            killed.append(victim.pid)
            victim.kill()

    choice = ModelChoice(name=NAME, threads=1)
    out = tmp_path / "out"
    result = scan(llama, TEXT, out=out, engine=LocalEngine(workers=2), choice=choice, progress=kill_once, **SETTINGS)
    assert killed
    assert (out / "stats.parquet").read_bytes() == (here.folder / "stats.parquet").read_bytes()
    for name in ("maps.safetensors", "maps.json"):
        assert (out / "parts" / name).read_bytes() == (here.folder / "parts" / name).read_bytes()
    assert result.manifest["key"] == here.manifest["key"]
    assert result.manifest["tokens"] == here.manifest["tokens"]
    assert all("SIGKILL" in failure.error for failure in read_failures(out / "parts"))


@pytest.mark.medium
def test_workers_refuse_another_model(llama: HookedModel, tmp_path: Path) -> None:
    for wrong in (ModelChoice(name="tiny/gpt2", threads=1), ModelChoice(name=NAME, threads=1, dtype="bfloat16")):
        with pytest.raises(PlanMismatchError, match=r"model\.name|dtype"):
            scan(llama, TEXT, out=tmp_path / wrong.dtype, engine=LocalEngine(workers=1), choice=wrong, **SETTINGS)


def test_workers_need_a_model_by_name(llama: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="load the model by name"):
        scan(llama, TEXT, out=tmp_path, engine=LocalEngine(workers=1), **SETTINGS)


@pytest.mark.slow
def test_twenty_scans_under_fire_end_with_the_same_bits(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), str(tmp_path), "0", "20"]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 20
    reference = (tmp_path / "reference" / "stats.parquet").read_bytes()
    for line in told:
        assert line["status"] == 0, line
        assert (tmp_path / str(line["seed"]) / "stats.parquet").read_bytes() == reference
        assert not list((tmp_path / str(line["seed"])).rglob("*.tmp"))
    assert sum(line["job_kills"] for line in told) >= 10
    assert sum(line["worker_kills"] for line in told) >= 10
