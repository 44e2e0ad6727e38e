"""Building the C++ kernels: what the key depends on, what happens without a compiler, other instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import interp_kernels
from interp_kernels import BackendError, Mask, build, dispatch
from interp_kernels import status as kernel_status


@pytest.fixture
def fresh_process(monkeypatch, tmp_path):
    """As in a process that has built nothing yet, with an empty cache."""
    monkeypatch.setattr(build, "_process", build._Process())
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    monkeypatch.setattr(dispatch, "_told", set())
    build.toolchain.cache_clear()
    yield
    build.toolchain.cache_clear()


def _call(backend):
    q = torch.randn(1, 2, 5, 8)
    return interp_kernels.attention(q, q, q, mask=Mask.causal(), backend=backend)


def test_without_a_compiler_auto_falls_back_and_says_so_once(fresh_process, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match="no C\\+\\+ compiler"):
        _call("cpu")
    with caplog.at_level("WARNING", logger="interp_kernels.dispatch"):
        assert _call("auto").backend == "portable"
        assert _call("auto").backend == "portable"
    told = [r.getMessage() for r in caplog.records if "no-such-compiler" in r.getMessage()]
    assert len(told) == 1


def test_a_failing_build_is_remembered(fresh_process, monkeypatch):
    lines = []
    tries = []

    def broken(*args):
        tries.append(args)
        raise RuntimeError("Error building extension: c++ -c x.cpp\nx.cpp:1: error: no such thing\nmore noise")

    monkeypatch.setattr(build, "_compile", broken)
    for _ in range(3):
        ok, why = build.ready(lines.append)
        assert not ok and "x.cpp:1: error: no such thing" in why
    assert len(tries) == 1
    cpu = next(s for s in kernel_status.status() if s.backend == "cpu")
    assert not cpu.works and "no such thing" in cpu.reason


def test_the_key_depends_on_sources_flags_compiler_and_machine(monkeypatch, tmp_path):
    tools = build.Toolchain(command="c++", version="1", machine="m", sources=tmp_path)
    (tmp_path / "a.h").write_text("1")
    keys = [build.key(tools)]
    (tmp_path / "a.h").write_text("2")
    keys.append(build.key(tools))
    keys.append(build.key(build.Toolchain(command="c++", version="2", machine="m", sources=tmp_path)))
    keys.append(build.key(build.Toolchain(command="c++", version="1", machine="n", sources=tmp_path)))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    keys.append(build.key(tools))
    monkeypatch.setattr(torch, "__version__", "0.0")
    keys.append(build.key(tools))
    assert len(set(keys)) == len(keys)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "a"))
    assert build.cache_folder() == tmp_path / "a" / "kernels"
    monkeypatch.delenv("INTERP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert build.cache_folder() == tmp_path / "b" / "interp" / "kernels"


def test_importing_builds_nothing(tmp_path):
    code = "from interp_kernels import build, status; status.status(); print(build.is_loaded())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "INTERP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False" and not list(tmp_path.rglob("*.so"))


def test_status_names_every_backend():
    names = [s.backend for s in kernel_status.status()]
    assert names == ["cpu", "triton", "portable", "reference"]
    assert all(s.works == (not s.reason) for s in kernel_status.status())


# Masks, options, edits, decode, tails of vectors, tiles in several panels: what depends on the width of a vector.
_CASES = "causal sink_window_per_head blocks alibi many_features edit_everything decode_5 features_64 odd_features size_65 hot_softcap"

_NARROW = """
import sys
import torch
from interp_kernels import ColumnCollect, build, cpp_ops
build.FLAGS = tuple(f for f in build.FLAGS if not f.startswith("-march")) + tuple(sys.argv[3:])
sys.path.insert(0, sys.argv[1])
from kernel_cases import case
from kernel_checks import assert_attended, assert_columns, run_attention, run_columns, truth_of
SUMS = ColumnCollect(received=True, diagonals=True, block=5)
lines = []
assert cpp_ops.ready(lines.append) == (True, ""), build.failure()
assert len(lines) == 1, lines
for name in sys.argv[2].split():
    got = run_attention(case(name), "cpu")
    assert_attended(case(name), got, truth_of(case(name)), "cpu")
    assert_columns(case(name), got.lse, run_columns(case(name), got.lse, "cpu", SUMS).stats, SUMS)
for path in ("native", "widened") if cpp_ops.can_multiply_bfloat16() else ():
    cpp_ops.PREFERRED_BFLOAT16_PATH = path
    half = case("many_features", torch.bfloat16)
    assert_attended(half, run_attention(half, "cpu"), truth_of(half), "cpu")
"""


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-mavx2", "-mfma"), ("-march=x86-64-v2",)], ids=["avx2", "sse4"])
def test_narrower_instruction_sets_compute_the_same(flags, tmp_path):
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("needs an x86-64 processor with AVX2")
    support = os.path.join(os.path.dirname(__file__), "support")
    env = {**os.environ, "INTERP_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", _NARROW, support, _CASES, *flags], env=env, check=True)
    assert len(list(tmp_path.rglob("*.so"))) == 1


# The lock and the rename, on a library of one function: the real one would take two processes a minute each.
_TINY = """
import sys
from pathlib import Path
from interp_kernels import build
build.SOURCES = ("tiny.cpp",)
build.sources = lambda: Path(sys.argv[1])
print("started", flush=True)
sys.stdin.readline()
print(build.ready(lambda line: print("line", line)))
"""


@pytest.mark.medium
def test_concurrent_builds_share_one_library(tmp_path):
    if isinstance(build.toolchain(), str):
        pytest.skip(build.toolchain())
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "tiny.cpp").write_text('extern "C" int tiny() { return 7; }\n')
    env = {**os.environ, "INTERP_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _TINY, str(tmp_path / "sources")]
    runs = [
        subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for run in runs:
        assert run.stdout.readline() == "started\n"
    for run in runs:  # all are past their imports: now they meet at the lock
        run.stdin.write("go\n")
        run.stdin.flush()
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert all("(True, '')" in text for text in said), said
    assert sum(text.count("line ") for text in said) == 1
    assert len(list(tmp_path.rglob("*.so"))) == 1 and not list(tmp_path.rglob("*.building"))
