"""A batch that is too large for the memory is halved, the split is noted before it goes on, and replayed: the bits are those of the split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.batch.contexts import Context
from interp.batch.endings import IncompleteJobError
from interp.batch.failures import read_failures
from interp.batch.measure import batch_sizes, halved, out_of_memory, split_name
from interp.batch.parts import read_shard
from interp.batch.result import ScanResult
from interp.batch.scan import scan
from interp.batch.status import job_status
from interp.errors import CorruptFileError
from interp.models.hooked import HookedModel
from interp.models.toy import tiny

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen, thirteen. " * 5
"""420 bytes: in contexts of 40 and BOS ten full ones and a rest of 20; five to a shard, batches of 3 and 2."""
SETTINGS: dict[str, Any] = {"context": 41, "shard": 5, "batch": 3, "thumbnails": 0, "collect": ["entropy", "alpha"]}


@pytest.fixture(scope="module")
def llama() -> Iterator[HookedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny("llama")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(llama: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> ScanResult:
    return scan(llama, TEXT, out=tmp_path_factory.mktemp("measure") / "whole", **SETTINGS)


class Small:
    """Makes a model raise as the allocator does when it gets more texts than fit, and notes how many it got each time."""

    def __init__(self, model: HookedModel, patch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
        self.sizes: list[int] = []
        real = model.run

        def run(inputs: Any, **options: Any) -> Any:
            size = len(inputs) if isinstance(inputs[0], list) else 1
            self.sizes.append(size)
            if size > most:
                raise error
            return real(inputs, **options)

        patch.setattr(model, "run", run)


OUT = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (OUT, True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("x"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_one: bool) -> None:
    assert out_of_memory(error) is is_one


def test_sizes() -> None:
    def of(*lengths: int) -> list[Context]:
        return [Context(document="a", start=0, ids=np.zeros(n, dtype=np.int64)) for n in lengths]

    assert list(batch_sizes(of(7, 7, 7, 7, 7), 3)) == [3, 2]
    assert list(batch_sizes(of(7, 7, 5, 7, 7), 3)) == [2, 1, 2]
    assert list(batch_sizes(of(7, 7), 1)) == [1, 1]
    assert list(batch_sizes([], 3)) == []
    assert list(halved([7, 4, 2, 7], 7)) == [4, 3, 4, 2, 4, 3]
    assert list(halved([3, 2], 2)) == [2, 1, 1, 1]


def test_batches_give_the_same_numbers_as_single_contexts(
    llama: HookedModel, whole: ScanResult, tmp_path: Path
) -> None:
    single = scan(llama, TEXT, out=tmp_path, **{**SETTINGS, "batch": 1}).frame
    for column in ("value", "std", "count", "min", "max"):
        np.testing.assert_allclose(whole.frame[column], single[column], rtol=1e-4, atol=1e-6)
    parts = whole.folder / "parts"
    assert [read_shard(parts / f"{i:06d}.parquet").batches for i in range(3)] == [(3, 2), (3, 2), ()]
    assert read_shard(tmp_path / "parts" / "000000.parquet").batches == ()


def test_a_split_is_noted_and_replayed(
    llama: HookedModel, whole: ScanResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        small = Small(llama, patch, most=2, error=OUT)
        split = scan(llama, TEXT, out=tmp_path / "split", **SETTINGS)
    # the probe of one sentence, then in both full shards 3 fails, 2 and 1 and 2 pass; the rest of the text is alone
    assert small.sizes[-9:] == [3, 2, 1, 2, 3, 2, 1, 2, 1]
    parts = tmp_path / "split" / "parts"
    assert json.loads((parts / split_name(0)).read_text()) == {"batches": [2, 1, 2]}
    assert read_shard(parts / "000000.parquet").batches == (2, 1, 2)
    assert split.manifest["splits"] == {"0": [2, 1, 2], "1": [2, 1, 2]}
    assert job_status(tmp_path / "split").splits == 2
    assert "splits" not in whole.manifest

    # measured again with all the memory in the world, it is split as it was
    (parts / "000000.parquet").unlink()
    (tmp_path / "split" / "manifest.json").unlink()
    with monkeypatch.context() as patch:
        large = Small(llama, patch, most=99, error=OUT)
        scan(llama, TEXT, out=tmp_path / "split", **SETTINGS)
    assert large.sizes[-3:] == [2, 1, 2]
    again = (tmp_path / "split" / "stats.parquet").read_bytes()
    with monkeypatch.context() as patch:
        Small(llama, patch, most=2, error=MemoryError())
        scan(llama, TEXT, out=tmp_path / "other", **SETTINGS)
    assert again == (tmp_path / "other" / "stats.parquet").read_bytes()


def test_a_context_that_is_too_large_alone_sets_its_shard_aside(
    llama: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = llama.run

    def run(inputs: Any, **options: Any) -> Any:
        if options.get("keep") == "none" and len(inputs) == 21:  # the rest of the text, with BOS
            raise OUT
        return real(inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(llama, "run", run)
        with pytest.raises(IncompleteJobError, match=r"1 of 3 shards are missing .*out of memory"):
            scan(llama, TEXT, out=tmp_path, **SETTINGS)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [x["shard"] for x in manifest["set_aside"]] == [2]
    assert manifest["tokens"]["measured"] == 410 == manifest["tokens"]["tokens"] - 21
    assert [f.attempt for f in read_failures(tmp_path / "parts")] == [1, 2, 3]
    assert "set_aside" not in scan(llama, TEXT, out=tmp_path, **SETTINGS).manifest


@pytest.mark.parametrize("note", ["{", "[]", '{"batches": [4]}', '{"batches": [5, 0]}'])
def test_a_damaged_note(llama: HookedModel, tmp_path: Path, note: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / split_name(0)).write_text(note)
    with pytest.raises(CorruptFileError, match=r"000000\.parquet\.split\.json"):
        scan(llama, TEXT, out=tmp_path, **SETTINGS)
