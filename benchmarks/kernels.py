"""Speed and memory of the CPU kernels beside torch's fused attention on the same tensors, interleaved in one run.

    python benchmarks/kernels.py [--quick] [--lengths 1024,2048,4096,8192,16384] [--repeat 5] [--threads 2] [--out data/results/kernels]

Causal, 9 heads on 3 KV heads with D = 64, and 8 heads with D = 128. "all" is lse, entropy, max, the sums (squares of
probabilities, logit moments, distance) and the mass on 4 key sets. First a gate: every backend's results on a small
problem against dense float64, with the tolerance rule of the tests; no figure is printed over a red gate. `eager` is
the dense formula with the same statistics, as one writes it in a notebook. Ratios are medians over medians; the
machine's load goes into both sides. Exit status 1 where a bar is missed, 2 where the gate is red.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import recorded
import torch
from torch import Tensor

import interp_kernels
from interp_kernels import Collect, ColumnCollect, Mask
from interp_kernels.status import build

SHAPES = ((9, 3, 64), (8, 8, 128))
LENGTHS = (1024, 2048, 4096, 8192, 16384)
DECODE_KEYS = 16384
GATE_LENGTH = 331
# Eager attention keeps several maps of H N^2 floats: beyond this many entries it is not tried.
EAGER_ENTRIES = 9 * 4096**2
BARS = {
    "cpu all": 1.25,
    "cpu all bf16": 1.6,
    "cpu all + columns": 1.9,
    "portable entropy": 2.5,
    "portable all": 4.0,
    "cpu decode all": 1.3,
    "cpu memory": 2.0,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: what ran, on which shape, seconds (or bytes) of it and of torch's fused attention."""

    what: str
    heads: str
    n: int
    ours: float
    fused: float
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        return self.ours / self.fused

    @property
    def bar(self) -> float | None:
        return BARS.get(self.what)

    def line(self) -> str:
        bar = "" if self.bar is None else f"  bar {self.bar:.2f} {'ok' if self.ratio <= self.bar else 'MISSED'}"
        return (
            f"{self.what:<20} {self.heads:<12} N {self.n:>6}  {self.ours:>9.2f} {self.unit}  fused {self.fused:>9.2f} {self.unit}"
            f"  ratio {self.ratio:>6.2f}{bar}"
        )


def main() -> None:
    """Gate, measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="lengths to 2048, 3 repetitions, no memory run")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    parser.add_argument("--memory", type=int, metavar="N", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cpu = build()
    if not cpu.works:
        sys.exit(f"the cpu backend does not work here: {cpu.reason}")
    if options.memory:
        print(json.dumps(memory(options.memory)))
        return
    lengths = [n for n in map(int, options.lengths.split(",")) if not options.quick or n <= 2048]
    repeat = 3 if options.quick else options.repeat
    since = recorded.started()
    broken = [line for shape in SHAPES for line in gate(*shape)]
    if broken:
        print("\n".join(broken))
        sys.exit(2)
    print(f"gate: green; {cpu.details['instruction set']}, {options.threads} threads, torch {torch.__version__}")
    rows = []
    for shape in SHAPES:
        for n in lengths:
            rows += show(sweeps(*shape, n, repeat))
        rows += show(decode(*shape, 4 * repeat))
    if not options.quick:
        rows += show([memory_row(max(lengths))])
    if options.out:
        lines = [{**asdict(r), "ratio": r.ratio, "bar": r.bar} for r in rows]
        recorded.write(options.out, lines, since, model=None, text=None, kernels=dict(cpu.details))
    sys.exit(any(r.bar is not None and r.ratio > r.bar for r in rows))


def show(rows: list[Row]) -> list[Row]:
    """Print as we go; hand the rows back."""
    for row in rows:
        print(row.line(), flush=True)
    return rows


def tensors(heads: int, key_heads: int, width: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normal q, k, v from a fixed seed."""
    g = torch.Generator().manual_seed(queries + keys)
    return tuple(
        torch.randn(1, h, n, width, generator=g) for h, n in ((heads, queries), (key_heads, keys), (key_heads, keys))
    )  # type: ignore[return-value]


def key_sets(n: int) -> Tensor:
    """First token, first four, a tenth of the keys, half of the keys."""
    g = torch.Generator().manual_seed(n)
    j, coin = torch.arange(n), torch.rand(n, generator=g)
    return torch.stack([j < 1, j < 4, coin < 0.1, coin < 0.5])


def everything(n: int) -> Collect:
    """All row statistics of the table."""
    return Collect(
        entropy=True, row_max=True, logit_moments=True, prob_square=True, distance=True, key_sets=key_sets(n)
    )


def eager(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    """The dense causal formula with the same statistics."""
    n = q.shape[2]
    group = q.shape[1] // k.shape[1]
    s = q @ k.repeat_interleave(group, 1).mT * q.shape[3] ** -0.5
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    s = s.masked_fill(~seen, float("-inf"))
    lse, top = s.logsumexp(-1), s.amax(-1)
    p = s.softmax(-1)
    low = (s - top[..., None]).masked_fill(~seen, 0.0)
    i = torch.arange(n)
    return {
        "out": p @ v.repeat_interleave(group, 1),
        "lse": lse,
        "entropy": (p * (lse[..., None] - s.masked_fill(~seen, 0.0))).masked_fill(~seen, 0.0).sum(-1),
        "row_max": top,
        "logit_moments": torch.stack([low.sum(-1), low.square().sum(-1)], -1),
        "prob_square": p.square().sum(-1),
        "distance": (p * (i[:, None] - i)).sum(-1),
        "key_sets": p @ key_sets(n).to(p.dtype).mT,
        "received": p.sum(-2, keepdim=True),
    }


def gate(heads: int, key_heads: int, width: int) -> list[str]:
    """What is wrong on a small problem, a line each: error over twice that of dense float32 plus 4 eps of the largest value."""
    q, k, v = tensors(heads, key_heads, width, GATE_LENGTH, GATE_LENGTH)
    wrong = []
    for backend, dtype in (("cpu", torch.float32), ("portable", torch.float32), ("cpu", torch.bfloat16)):
        a, b, c = (x.to(dtype) for x in (q, k, v))
        want = eager(a.double(), b.double(), c.double())
        plain = eager(a.float(), b.float(), c.float())
        got = interp_kernels.attention(a, b, c, mask=Mask.causal(), collect=everything(GATE_LENGTH), backend=backend)
        sums = interp_kernels.columns(a, b, got.lse, mask=Mask.causal(), backend=backend)
        results = {"out": got.out, "lse": got.lse, **got.stats, **sums.stats}
        slack = (
            8 * torch.finfo(torch.float32).eps * float(want["row_max"].abs().max()) if backend == "portable" else 0.0
        )
        for name, truth in want.items():
            error = float((results[name].double() - truth).abs().max())
            eps = torch.finfo(results[name].dtype).eps
            allowed = 2 * float((plain[name] - truth).abs().max()) + 4 * eps * float(truth.abs().max()) + slack
            if not error <= allowed:
                wrong.append(
                    f"gate: {backend} {dtype} {heads} heads: {name} errs by {error:.3g}, allowed {allowed:.3g}"
                )
    return wrong


def medians(calls: list[Callable[[], object]], repeat: int) -> list[float]:
    """Median milliseconds of each call, measured in turns after one warm-up."""
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeat):
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]


def sweeps(heads: int, key_heads: int, width: int, n: int, repeat: int) -> list[Row]:
    """The rows of one shape and length."""
    q, k, v = tensors(heads, key_heads, width, n, n)
    half = tuple(x.bfloat16() for x in (q, k, v))
    mask, wish = Mask.causal(), everything(n)

    def fused(*x: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(*x, is_causal=True, enable_gqa=True)

    def ours(backend: str, collect: Collect, x: tuple[Tensor, ...] = (q, k, v)) -> interp_kernels.Attended:
        return interp_kernels.attention(*x, mask=mask, collect=collect, backend=backend)  # type: ignore[arg-type]

    def with_columns() -> interp_kernels.Columns:
        return interp_kernels.columns(q, k, ours("cpu", wish).lse, mask=mask, collect=ColumnCollect(), backend="cpu")

    single: dict[str, Callable[[], object]] = {
        "cpu lse": lambda: ours("cpu", Collect()),
        "cpu all": lambda: ours("cpu", wish),
        "cpu all + columns": with_columns,
        "portable entropy": lambda: ours("portable", Collect(entropy=True)),
        "portable all": lambda: ours("portable", wish),
    }
    if heads * n * n <= EAGER_ENTRIES:
        single["eager all"] = lambda: eager(q, k, v)
    base, *times = medians([lambda: fused(q, k, v), *single.values()], repeat)
    label = f"{heads}/{key_heads} x {width}"
    rows = [Row(what=w, heads=label, n=n, ours=t, fused=base) for w, t in zip(single, times, strict=True)]
    base, time_half = medians([lambda: fused(*half), lambda: ours("cpu", wish, half)], repeat)
    return [*rows, Row(what="cpu all bf16", heads=label, n=n, ours=time_half, fused=base)]


def decode(heads: int, key_heads: int, width: int, repeat: int) -> list[Row]:
    """One query row against a long cache, all statistics."""
    q, k, v = tensors(heads, key_heads, width, 1, DECODE_KEYS)
    wish = everything(DECODE_KEYS)
    base, ours = medians(
        [
            lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            lambda: interp_kernels.attention(q, k, v, mask=Mask.causal(), collect=wish, backend="cpu"),
        ],
        repeat,
    )
    return [Row(what="cpu decode all", heads=f"{heads}/{key_heads} x {width}", n=DECODE_KEYS, ours=ours, fused=base)]


def memory(n: int) -> dict[str, float]:
    """MiB that one call adds to the peak of a process, results included, and MiB of fused attention's own tensors (q, k, v, out)."""
    heads, key_heads, width = SHAPES[0]
    small = tensors(heads, key_heads, width, 64, 64)
    interp_kernels.attention(*small, mask=Mask.causal(), collect=everything(64), backend="cpu")
    q, k, v = tensors(heads, key_heads, width, n, n)
    wish = everything(n)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = peak()
    interp_kernels.attention(q, k, v, mask=Mask.causal(), collect=wish, backend="cpu")
    own = sum(x.numel() * x.element_size() for x in (q, k, v, q)) / 2**20
    return {"extra": peak() - before, "own": own}


def peak() -> float:
    """Peak resident memory, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_row(n: int) -> Row:
    """`memory` in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--memory", str(n)], capture_output=True, text=True, check=True)
    got = json.loads(run.stdout.splitlines()[-1])
    heads, key_heads, width = SHAPES[0]
    label = f"{heads}/{key_heads} x {width}"
    return Row(what="cpu memory", heads=label, n=n, ours=got["extra"], fused=got["own"], unit="MiB")


if __name__ == "__main__":
    main()
