"""Whole-model cost of capturing every head, beside what people use today, on the same text in one run.

    python benchmarks/capture.py [--lengths 512,2048,8192,16384] [--repeat 5] [--limit-gb 14] [--out data/results/capture]

Methods, each in a process of its own so that peak memory is its own:
    sdpa                the plain Hugging Face forward with fused attention: shows nothing; the bar
    interp              model.run with every default statistic of every head, queries and keys kept for exact maps
    output_attentions   Hugging Face eager attention with output_attentions=True: an N x N map per head
    run_with_cache      TransformerLens' bridge, run_with_cache of every hook_pattern
All compute all logits in float32; beyond 4,096 tokens everything runs once. A peer that passes the memory limit is
stopped and shown as such. Times of `interp` and `sdpa` come from one process, interleaved; the machine's load goes into both.
Beyond 8,192 tokens the default model's positions end: a cost figure only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import recorded

METHODS = ("sdpa", "interp", "output_attentions", "run_with_cache")
POLL_SECONDS = 0.02
# Longer texts than this are measured once: a pass takes minutes.
MANY_REPEATS = 4096


def main() -> None:
    """Run every method at every length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="512,2048,8192,16384")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--limit-gb", type=float, default=14.0)
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.repeat)))
        return
    since = recorded.started()
    rows = []
    for n in map(int, options.lengths.split(",")):
        for method in METHODS:
            repeat = options.repeat if n <= MANY_REPEATS else 1
            rows.append({"tokens": n, "method": method, **in_subprocess(method, n, repeat, options.limit_gb)})
            show(rows[-1])
    check(rows)
    if options.out:
        lines = [row | {"ratios": " ".join(f"{r:.3f}" for r in row.get("ratios", []))} for row in rows]
        recorded.write(options.out, lines, since, model="smollm2-135m", text=text_facts())


def in_subprocess(method: str, n: int, repeat: int, limit_gb: float) -> dict:
    """Measure in a fresh process, stopped when its resident memory passes the limit."""
    command = [sys.executable, __file__, "--one", method, str(n), "--repeat", str(repeat)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            if watched.memory_info().rss > limit_gb * 2**30:
                process.kill()
                process.communicate()
                return {"failure": f"needs more than {limit_gb:g} GB"}
        except psutil.NoSuchProcess:
            break
        time.sleep(POLL_SECONDS)
    out, err = process.communicate()
    if process.returncode != 0:
        return {"failure": (err.strip().splitlines() or ["no message"])[-1][:120]}
    return json.loads(out.strip().splitlines()[-1])


def measure(method: str, n: int, repeat: int) -> dict:
    """Seconds (median) and peak resident memory above the loaded model, in this process."""
    import torch

    import interp

    model = interp.load("smollm2-135m")
    ids = model.encode(whole_text()[: n * 12])[:n]
    batch = torch.tensor([ids])

    def plain() -> None:
        with torch.no_grad():
            hf(batch, use_cache=False)

    def instrumented() -> None:
        model.run(ids)

    def maps() -> None:
        with torch.no_grad():
            hf(batch, use_cache=False, output_attentions=True)

    def cache() -> None:
        with torch.no_grad():
            bridge.run_with_cache(batch, names_filter=lambda name: name.endswith("hook_pattern"))

    # Weights are mapped from the file and come into memory when they are first read: read them, or they count as what a method takes.
    sum(float(x.sum()) for x in model.hf.parameters())
    before = psutil.Process().memory_info().rss
    if method == "interp":
        model.run(ids[:64])
        seconds = timed(instrumented, repeat)
        peak = peak_rss() - before
        hf = model.release()
        hf.set_attn_implementation("sdpa")
        plain()
        interleaved = [(timed(plain, 1)[0], hooked_again(hf, model.tokenizer, ids)) for _ in range(repeat)]
        pairs = [ours / theirs for theirs, ours in interleaved]
        return {
            "seconds": statistics.median(seconds),
            "peak_gb": peak / 2**30,
            "ratio_to_sdpa": statistics.median(pairs),
            "ratios": pairs,
        }
    hf = model.release()
    if method == "run_with_cache":
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
        return {"seconds": statistics.median(timed(cache, repeat)), "peak_gb": (peak_rss() - before) / 2**30}
    hf.set_attn_implementation("eager" if method == "output_attentions" else "sdpa")
    return {
        "seconds": statistics.median(timed(plain if method == "sdpa" else maps, repeat)),
        "peak_gb": (peak_rss() - before) / 2**30,
    }


def whole_text() -> str:
    """The documentation topics of CPython, joined; each length takes its first tokens."""
    from interp.tasks import corpus

    return "\n\n".join(document.text for document in corpus.topics())


def text_facts() -> dict[str, str]:
    """Where the text comes from, for the manifest."""
    digest = hashlib.sha256(whole_text().encode()).hexdigest()
    return {"source": "pydoc_data.topics", "sha256": digest, "python": platform.python_version()}


def hooked_again(hf: object, tokenizer: object, ids: list[int]) -> float:
    """Seconds of one instrumented run on a model that has just been hooked again."""
    import interp

    model = interp.wrap(hf, tokenizer)
    seconds = timed(lambda: model.run(ids), 1)[0]
    model.release()
    return seconds


def timed(function: Callable[[], None], repeat: int) -> list[float]:
    """Wall-clock seconds of each of `repeat` calls."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_rss() -> int:
    """Peak resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(row: dict) -> None:
    """Print one line of the table."""
    if "failure" in row:
        print(f"{row['tokens']:>6}  {row['method']:<18} {row['failure']}", flush=True)
        return
    ratio = (
        f"   {row['ratio_to_sdpa']:.2f} x sdpa, same process (each: {', '.join(f'{r:.2f}' for r in row['ratios'])})"
        if "ratios" in row
        else ""
    )
    print(
        f"{row['tokens']:>6}  {row['method']:<18} {row['seconds']:8.2f} s   {row['peak_gb']:6.2f} GB above the model{ratio}",
        flush=True,
    )


def check(rows: list[dict]) -> None:
    """Say how the bars of the project are met at 2,048 tokens."""
    at = {row["method"]: row for row in rows if row["tokens"] == 2048}
    ours = at.get("interp", {})
    if "seconds" not in ours:
        return
    print(f"\nat 2,048 tokens: {ours['ratio_to_sdpa']:.2f} x the plain SDPA forward (bar: 1.25)")
    for peer in ("output_attentions", "run_with_cache"):
        if "seconds" in at.get(peer, {}):
            speed = at[peer]["seconds"] / ours["seconds"]
            memory = ours["peak_gb"] / at[peer]["peak_gb"]
            print(
                f"  {peer}: {speed:.1f} x slower than interp (bar: 3), interp needs {memory:.2f} of its memory (bar: 0.20)"
            )


if __name__ == "__main__":
    main()
