"""The Triton kernels on a GPU: their tests, then their speed beside torch's fused attention. UNTESTED: no GPU has run this file yet.

    python benchmarks/gpu.py [--lengths 1024,2048,4096,8192,16384] [--repeat 20] [--out data/results/gpu] [--skip-gate]

First the gate: every case of the kernel test-suite with q, k, v on the GPU, for all four operations and the
gradients, judged by the rule of
the tests. Then causal attention with 9 heads on 3 key heads, D = 64, and 8 heads, D = 128, in bfloat16 and float32:
lse alone, lse and entropy, all row
statistics, all with `columns`, and decode of one row against 16,384 keys. Medians of CUDA events in turns. Exit
status 2 where the gate is red.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import recorded
import torch
from torch import Tensor

import interp_kernels
from interp_kernels import Collect, ColumnCollect, Mask

SUPPORT = Path(__file__).parents[1] / "tests" / "kernel_ops" / "support"
SHAPES = ((9, 3, 64), (8, 8, 128))
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
DECODE_KEYS = 16384


@dataclass(frozen=True, kw_only=True)
class Row:
    """Medians in milliseconds of one way to attend and of fused attention on the same tensors."""

    what: str
    heads: str
    dtype: str
    n: int
    ours: float
    fused: float

    def line(self) -> str:
        shape = f"{self.what:<22} {self.heads:<10} {self.dtype} N {self.n:>6}"
        return f"{shape}  {self.ours:>9.3f} ms  fused {self.fused:>9.3f} ms  ratio {self.ours / self.fused:>6.2f}"


def main() -> None:
    """Gate, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1024,2048,4096,8192,16384")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write OUT.csv and OUT.manifest.json")
    parser.add_argument("--skip-gate", action="store_true", help="only look at speed; the rows are then marked ungated")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA or ROCm device here; the interpreted tests are `pytest tests/kernel_ops/test_triton.py`")
    if not options.skip_gate and (wrong := gate()):
        print("\n".join(wrong))
        print(f"gate: RED, {len(wrong)} checks failed; no speed is printed over a red gate")
        sys.exit(2)
    print(
        f"gate: {'SKIPPED' if options.skip_gate else 'green'}; {torch.cuda.get_device_name()}, torch {torch.__version__}"
    )
    since = recorded.started()
    rows = []
    for heads, key_heads, width in SHAPES:
        for name, dtype in DTYPES.items():
            for n in map(int, options.lengths.split(",")):
                rows += show(sweeps(heads, key_heads, width, name, dtype, n, options.repeat))
            rows += show([decode(heads, key_heads, width, name, dtype, options.repeat)])
    if options.out:
        lines = [asdict(row) | {"ratio": row.ours / row.fused} for row in rows]
        recorded.write(options.out, lines, since, model=None, text=None, gated=not options.skip_gate)


def gate() -> list[str]:
    """What is wrong, a line each, over the cases of the test-suite with their tensors on the GPU."""
    sys.path.insert(0, str(SUPPORT))
    import kernel_cases
    import kernel_checks
    import kernel_definition

    wrong = []

    def on_gpu(problem: kernel_cases.Case) -> kernel_cases.Case:
        return replace(problem, q=problem.q.cuda(), k=problem.k.cuda(), v=problem.v.cuda())

    def attention(problem: kernel_cases.Case) -> None:
        got = interp_kernels.attention(**on_gpu(problem).attention_arguments(), backend="triton")
        stats = {name: x.cpu() for name, x in got.stats.items()}
        here = replace(got, out=got.out.cpu(), lse=got.lse.cpu(), stats=stats)
        kernel_checks.assert_attended(problem, here, kernel_checks.truth_of(problem), "triton")

    def maps(problem: kernel_cases.Case) -> None:
        lse = kernel_definition.attend(problem.wishing(Collect()))["lse"].float()
        there = on_gpu(problem)
        wish = ColumnCollect(received=True, diagonals=True, block=5, histogram=True)
        got = interp_kernels.columns(
            there.q, there.k, lse.cuda(), rows=problem.rows, collect=wish, backend="triton", **there.map_options()
        )
        kernel_checks.assert_columns(problem, lse, {name: x.cpu() for name, x in got.stats.items()}, wish)
        queries, keys = problem.q.shape[2], problem.k.shape[2]
        i, j = torch.arange(64) % queries, torch.arange(64) * 7 % keys
        options = {**there.map_options(), "backend": "triton"}
        weight = interp_kernels.entries(there.q, there.k, lse.cuda(), i, j, **options)
        kernel_checks.assert_entries(problem, lse, i, j, weight.cpu())
        for pool in ("mean", "max"):
            picture = interp_kernels.tile(there.q, there.k, lse.cuda(), (0, queries), (0, keys), 9, pool, **options)
            kernel_checks.assert_tile(problem, lse, (0, queries), (0, keys), 9, pool, picture.cpu())

    def gradients(problem: kernel_cases.Case) -> None:
        problem = problem.wishing(Collect(entropy=True))
        leaves = [x.cuda().requires_grad_() for x in (problem.q, problem.k, problem.v)]
        there = replace(problem, **dict(zip("qkv", leaves, strict=True)))
        got = interp_kernels.attention(**there.attention_arguments(), backend="triton")
        seen = {"out": got.out, "lse": got.lse, "entropy": got.stats["entropy"]}
        names = dict(zip("qkv", leaves, strict=True))
        have = {name: x.cpu() for name, x in kernel_checks.gradients_of(seen, names).items()}
        want = kernel_checks.defined_gradients(problem.cast(torch.float64), edits=False)
        plain = kernel_checks.defined_gradients(problem, edits=False)
        for name, value in have.items():
            error = kernel_checks.worst_error(plain[name], want[name])
            kernel_checks.assert_within(f"{problem.name}: d{name}", value, want[name], error)

    for name in kernel_cases.NAMES:
        for check in (attention, maps, gradients):
            try:
                check(kernel_cases.case(name))
            except interp_kernels.BackendError as refusal:
                print(f"gate: {name}: refused: {refusal}")
            except AssertionError as found:
                wrong.append(f"gate: {check.__name__}: {str(found).splitlines()[0]}")
    return wrong


def show(rows: list[Row]) -> list[Row]:
    """Print as we go; hand the rows back."""
    for row in rows:
        print(row.line(), flush=True)
    return rows


def everything(n: int) -> Collect:
    """All row statistics of part B's table, and `rest`."""
    j = torch.arange(n)
    sets = torch.stack([j < 1, j < 4, j % 10 == 0, j % 2 == 0])
    return Collect(
        entropy=True, row_max=True, logit_moments=True, prob_square=True, distance=True, key_sets=sets, rest=j < 1
    )


def sweeps(heads: int, key_heads: int, width: int, name: str, dtype: torch.dtype, n: int, repeat: int) -> list[Row]:
    """The rows of one shape, dtype and length."""
    q, k, v = (torch.randn(1, h, n, width, device="cuda", dtype=dtype) for h in (heads, key_heads, key_heads))
    mask = Mask.causal()
    wish = everything(n).to("cuda")

    def ours(collect: Collect) -> interp_kernels.Attended:
        return interp_kernels.attention(q, k, v, mask=mask, collect=collect, backend="triton")

    def with_columns() -> interp_kernels.Columns:
        return interp_kernels.columns(q, k, ours(wish).lse, mask=mask, collect=ColumnCollect(), backend="triton")

    calls: dict[str, Callable[[], object]] = {
        "lse": lambda: ours(Collect()),
        "entropy": lambda: ours(Collect(entropy=True)),
        "all": lambda: ours(wish),
        "all + columns": with_columns,
    }
    base, *times = medians([lambda: fused(q, k, v), *calls.values()], repeat)
    label = f"{heads}/{key_heads} x {width}"
    return [Row(what=w, heads=label, dtype=name, n=n, ours=t, fused=base) for w, t in zip(calls, times, strict=True)]


def decode(heads: int, key_heads: int, width: int, name: str, dtype: torch.dtype, repeat: int) -> Row:
    """One row against a long cache, all statistics."""
    q = torch.randn(1, heads, 1, width, device="cuda", dtype=dtype)
    k, v = (torch.randn(1, key_heads, DECODE_KEYS, width, device="cuda", dtype=dtype) for _ in range(2))
    wish = everything(DECODE_KEYS).to("cuda")
    base, ours = medians(
        [
            lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            lambda: interp_kernels.attention(q, k, v, mask=Mask.causal(), collect=wish, backend="triton"),
        ],
        repeat,
    )
    return Row(
        what="decode all", heads=f"{heads}/{key_heads} x {width}", dtype=name, n=DECODE_KEYS, ours=ours, fused=base
    )


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's fused causal attention."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def medians(calls: list[Callable[[], object]], repeat: int) -> list[float]:
    """Median milliseconds of each call, in turns, after two warm-ups (the first compiles and tunes)."""
    for call in (*calls, *calls):
        call()
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeat):
        for call, times in zip(calls, taken, strict=True):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop))
    return [statistics.median(times) for times in taken]


if __name__ == "__main__":
    main()
