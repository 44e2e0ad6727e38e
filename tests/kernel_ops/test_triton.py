"""The Triton backend without a GPU: Triton's interpreter runs the kernels on CPU tensors.

TRITON_INTERPRET is read when Triton is imported, so the interpreted tests live in a process of their own:
`test_under_the_interpreter` starts it on this
file and on chosen tests of the suite that every backend shares (the interpreter is some thousand times slower than a
GPU; the choice crosses every
feature once). The compiled side is `test_triton_compile.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kernel_cases import make
from kernel_checks import assert_attended, assert_columns, assert_tile, run_attention, run_columns, run_tile, truth_of
from kernel_definition import attend

import interp_kernels
from interp_kernels import BackendError, Collect, ColumnCollect, Mask
from interp_kernels.attention.api import attention_call, explain

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs inside test_under_the_interpreter")

# Tests of the shared suite, by file: every mask feature, option and edit at least once.
SHARED = {
    "test_attention.py": [
        *(
            f"test_every_result_is_the_reference[triton-{name}]"
            for name in (
                "causal_offset", "full_window", "both_paddings", "documents_of_both_axes", "prefix_after_padding", "hide_in_heads",
                "sink_window_per_head", "blocks_of_items", "alibi_on_full", "dense_bool_and_bias", "many_features", "softcap_sink_window",
                "sink_logits_and_empty_rows", "one_by_one", "odd_features", "size_65", "hot_logits", "edit_everything",
            )
        ),
        "test_other_dtypes[triton-many_features-bfloat16]",
        "test_other_dtypes[triton-softcap_sink_window-float16]",
        "test_each_field_alone[triton-causal-nothing]",
    ],
    "test_gradients.py": [
        *(
            f"test_gradients_are_those_of_the_dense_map[triton-{name}]"
            for name in ("causal", "many_features", "hot_logits_and_sink", "edit_everything", "wider_values")
        ),
        "test_fully_masked_rows_give_zero_gradients[triton]",
        "test_only_out_lse_and_entropy_carry_gradients[triton]",
    ],
}  # fmt: skip


MASKS = {
    "causal": Mask.causal(),
    "window": Mask.full(window=9, offset=5),
    "sinks": Mask.causal().padded(left=torch.tensor([3])).sink_window(2, 7),
    "prefix": Mask.causal(offset=2).prefix(19),
    "documents": Mask.causal().documents(torch.arange(21) // 8, torch.arange(37) // 20),
}


def small(name, mask, **options):
    """A case of one batch item and one key head, for sweeps that take the interpreter long."""
    options = {"batch": 1, "key_heads": 1, "queries": 21, "keys": 37, **options}
    return make(f"triton {name}", mask, **options)


@pytest.mark.medium
@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
@pytest.mark.parametrize("part", ["own", *SHARED])
def test_under_the_interpreter(part):
    pytest.importorskip("triton", reason="Triton is not installed")
    chosen = [str(HERE / "test_triton.py")] if part == "own" else [f"{HERE / part}::{test}" for test in SHARED[part]]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    skipped = re.search(r"(\d+) skipped", done.stdout)
    assert passed and int(passed[1]) >= len(SHARED.get(part, [])), done.stdout[-2000:]
    assert skipped is None or part == "own", f"wanted every chosen test to run: {done.stdout[-2000:]}"


@pytest.mark.skipif(INTERPRETED, reason="tells of the process without the interpreter")
def test_cpu_tensors_are_refused_without_the_interpreter():
    q = torch.randn(1, 1, 2, 16)
    verdict = {v.backend: v for v in explain(q, q, q, mask=Mask.causal())}["triton"]
    assert not verdict.ok and ("TRITON_INTERPRET" in verdict.reason or "not installed" in verdict.reason)
    with pytest.raises(BackendError, match="triton"):
        interp_kernels.attention(q, q, q, mask=Mask.causal(), backend="triton")


@interpreted
def test_auto_never_takes_the_interpreter():
    q = torch.randn(1, 1, 2, 16)
    assert interp_kernels.attention(q, q, q, mask=Mask.causal()).backend in ("cpu", "portable")


@interpreted
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"q": torch.randn(1, 1, 2, 16, dtype=torch.float64)}, "float64"),
        ({"q": torch.randn(1, 1, 2, 257)}, "257"),
        ({"collect": Collect(topk=129)}, "129"),
    ],
)
def test_what_is_refused_and_why(change, reason):
    q = change.get("q", torch.randn(1, 1, 2, 16))
    found = explain(q, q, q, mask=Mask.causal(), collect=change.get("collect"))
    verdict = {v.backend: v for v in found}["triton"]
    assert not verdict.ok and reason in verdict.reason


@interpreted
@pytest.mark.parametrize("splits", [2, 5])
@pytest.mark.parametrize("name", ["prefix", "sinks"])
def test_any_split_of_the_keys_gives_the_same_statistics(name, splits):
    from interp_kernels.attention.triton_lowering import forward, named_statistics

    problem = small(name, MASKS[name], queries=5, spread=4.0, sink=True)
    arguments = {"scale": None, "softcap": None, "edit": None, **problem.attention_arguments()}
    results = forward(attention_call(**arguments), splits=splits)
    named = named_statistics(results, problem.collect, problem.sink_logits is not None)
    got = interp_kernels.Attended(out=results.out, lse=results.lse, stats=named, backend="triton")
    assert_attended(problem, got, truth_of(problem), "triton")


@interpreted
@pytest.mark.parametrize("name", MASKS)
def test_columns_of_every_shape_of_mask(name):
    problem = small(name, MASKS[name])
    wish = ColumnCollect(received=True, diagonals=True, block=16, histogram=name == "sinks")
    lse = attend(problem.wishing(Collect()))["lse"].float()
    assert_columns(problem, lse, run_columns(problem, lse, "triton", wish).stats, wish)


@interpreted
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("name", ["sinks", "prefix"])
def test_tiles_pooled_and_cell_by_cell(name, pool):
    problem = small(name, MASKS[name], softcap=3.0)
    lse = attend(problem.wishing(Collect()))["lse"].float()
    for rows, cols, size in (((0, 21), (0, 37), (2, 3)), ((5, 18), (7, 37), 64)):
        assert_tile(problem, lse, rows, cols, size, pool, run_tile(problem, lse, rows, cols, size, pool, "triton"))


@interpreted
def test_many_rows_in_several_tiles_of_each_loop():
    problem = small("tiles", Mask.causal(window=50), queries=67, keys=83)
    assert_attended(problem, run_attention(problem, "triton"), truth_of(problem), "triton")


@interpreted
def test_equal_logits_give_the_lowest_indices():
    problem = small("ties", Mask.causal(), queries=5, keys=40)
    problem = replace(problem, k=torch.zeros_like(problem.k)).wishing(Collect(topk=3))
    got = run_attention(problem, "triton")
    assert torch.equal(got.stats["topk_index"], torch.tensor([0, 1, 2]).expand(1, 2, 5, 3))


@interpreted
def test_thirty_two_key_sets_and_rest_share_one_word():
    g = torch.Generator().manual_seed(7)
    sets = torch.rand(32, 37, generator=g) < 0.5
    problem = small("words", Mask.causal()).wishing(Collect(key_sets=sets, rest=sets[5]))
    assert_attended(problem, run_attention(problem, "triton"), truth_of(problem), "triton")


@interpreted
@pytest.mark.parametrize("name", ["causal", "documents"])
def test_operators_pass_opcheck(name):
    from interp_kernels.attention.triton_ops import attention_op
    from interp_kernels.triton_codec import encode

    problem = small(name, MASKS[name], sink=True)
    wish = Collect(entropy=True, topk=2, windows=(3,))
    call = attention_call(
        **{"scale": None, "softcap": None, "edit": None, **problem.wishing(wish).attention_arguments()}
    )
    tensors, spec = encode(call.problem, call.collect)
    q, k, v, sink = (x.clone().requires_grad_() for x in (problem.q, problem.k, problem.v, problem.sink_logits))
    torch.library.opcheck(attention_op, (q, k, v, sink, tensors, spec))
