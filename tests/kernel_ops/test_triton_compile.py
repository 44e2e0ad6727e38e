"""The Triton kernels compile for chips that are not here, without spills and within each chip's shared memory.

A process of its own does it (`support/triton_compile.py`), without the interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "support" / "triton_compile.py"
# Every launch of a default run. `make test` compiles each with the first tiling of its list, `make test-slow` with all.
KERNELS = {
    "attention_fwd_full", "attention_fwd", "attention_split", "attention_join", "attention_topk", "attention_dq", "attention_dkdv",
    "columns_received", "columns_diagonal", "columns_histogram", "pool_fwd", "pool_fwd (cells)", "entries_fwd",
}  # fmt: skip


def compiled(*arguments):
    """The rows that the script prints for these arguments."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(rows):
    assert {row["kernel"] for row in rows} == KERNELS
    assert all(row["registers"] > 0 for row in rows)
    bad = [row for row in rows if not row["fits"]]
    assert not bad, "\n".join(map(str, bad))


@pytest.mark.medium
@pytest.mark.parametrize("dim", ["64", "128"])
@pytest.mark.parametrize("chip", ["sm_90", "gfx942"])
def test_what_a_run_launches_fits_the_chip(chip, dim):
    pytest.importorskip("triton", reason="Triton is not installed")
    check(compiled("--chips", chip, "--dims", dim, "--first"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("dim", ["64", "128", "256"])
@pytest.mark.parametrize("chip", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_tiling_fits_every_chip(chip, dim, dtype):
    pytest.importorskip("triton", reason="Triton is not installed")
    check(compiled("--chips", chip, "--dims", dim, "--dtypes", dtype))


def test_a_spill_and_too_much_shared_memory_are_seen():
    pytest.importorskip("triton", reason="Triton is not installed")
    sys.path.insert(0, str(SCRIPT.parent))
    from triton_compile import Row

    fine = {"kernel": "k", "chip": "gfx942", "dim": 64, "dtype": "bf16", "tiling": "", "registers": 9, "spills": 0}
    fine |= {"scalar_spills": 3, "shared": 65536, "seconds": 0.0}
    assert Row(**fine).fits
    assert not Row(**{**fine, "spills": 4}).fits
    assert not Row(**{**fine, "shared": 65537}).fits
