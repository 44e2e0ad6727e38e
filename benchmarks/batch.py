"""Scans by several processes beside one, and the memory of a long scan, in one run.

    python benchmarks/batch.py --long 0 [--tokens 16384] [--ray] [--rounds 2] [--out data/results/batch]
    python benchmarks/batch.py --tokens 0 [--long 200000] [--out data/results/batch_memory]

Speed: the same scan of the default model over the project's corpus, in this process with 1 and with 2 threads, and by 1 and 2 worker processes of
1 thread (with --ray also by 2 actors of a local Ray cluster). No speed is printed unless every run of 1 thread per worker writes the same bytes.
`start` is the time until the first tokens are measured: loading the model; `steady` is the speed after it, which long scans approach.
Memory: what this process has allocated (anonymous pages, and what of them was swapped out; Linux) after every shard of a long scan. Pages of the
model's file are not counted: the system takes and gives them as it likes, and each token that was not seen before touches another row of the
embedding.
What is allocated rises by about 100 MiB until the scan gives back what it freed (`interp.batch.memory`): of each tenth of shards the least counts.
Flat means: it grows by less than 2 % from the second tenth to the last. Either is left out with 0 tokens.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import recorded
import torch

FLAT = 0.02
CONTEXT = 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=16 * CONTEXT)
    parser.add_argument("--long", type=int, default=200_000)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--rounds", type=int, default=2, help="of the speeds; their ratios are of one round each")
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    options = parser.parse_args()
    since = recorded.started()
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for number in range(options.rounds if options.tokens else 0):
            found = speeds(options.model, options.tokens, options.ray, Path(name) / str(number))
            rows += [{**row, "round": number} for row in found]
        rows += [memory(options.model, options.long, Path(name))] if options.long else []
    if options.out:
        recorded.write(options.out, rows, since, model=options.model, context=CONTEXT)
    if any(row.get("flat") is False for row in rows):
        sys.exit("memory grows with the length of the scan")


@dataclass(kw_only=True)
class Watched:
    """The events of a scan with their times, and the memory after each shard."""

    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None
    first_tokens: int = 0
    last: float = 0.0
    tokens: int = 0
    sizes: list[int] = field(default_factory=list)

    def __call__(self, event: Any) -> None:
        """Take an event."""
        now = time.perf_counter() - self.begun
        if event.kind == "context":
            if self.first is None:
                self.first, self.first_tokens = now, event.measured
            self.last, self.tokens = now, event.measured
        elif event.kind == "shard":
            self.sizes.append(allocated())

    @property
    def steady(self) -> float:
        """Tokens per second after the first ones."""
        return (self.tokens - self.first_tokens) / (self.last - (self.first or 0.0))


def allocated() -> int:
    """Bytes of this process's anonymous memory, the part that was swapped out included."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {words[0]: int(words[1]) for words in map(str.split, lines[1:])}
    return 1024 * (sizes["Anonymous:"] + sizes["Swap:"])


def scan_once(model: Any, out: Path, tokens: int, threads: int, engine: Any, name: str) -> Watched:
    """One scan of the corpus."""
    from interp.batch.scan import scan
    from interp.batch.task import ModelChoice
    from interp.batch.texts import from_corpus

    torch.set_num_threads(threads)
    watched = Watched()
    scan(
        model,
        from_corpus("all"),
        out=out,
        context=CONTEXT,
        max_tokens=tokens,
        shard=1,
        join=True,
        thumbnails=0,
        engine=engine,
        choice=ModelChoice(name=name, threads=threads),
        progress=watched,
    )
    return watched


def speeds(name: str, tokens: int, ray: bool, folder: Path) -> list[dict[str, Any]]:
    """Tokens per second of one process and of several."""
    import interp
    from interp.batch.engine_local import LocalEngine

    model = interp.load(name)
    ways: list[tuple[str, int, Any, int]] = [
        ("this process, 1 thread", 1, None, 1),
        ("this process, 2 threads", 2, None, 1),
        ("1 worker, 1 thread", 1, LocalEngine(workers=1), 1),
        ("2 workers, 1 thread each", 1, LocalEngine(workers=2), 2),
    ]
    if ray:
        from interp.batch.engine_ray import RayEngine

        ways.append(("2 Ray actors, 1 thread each", 1, RayEngine(workers=2), 2))
    rows = []
    for number, (way, threads, engine, workers) in enumerate(ways):
        watched = scan_once(model, folder / str(number), tokens, threads, engine, name)
        rows.append(
            {
                "what": "speed",
                "way": way,
                "workers": workers,
                "threads": threads,
                "tokens": watched.tokens,
                "seconds": watched.last,
                "start": watched.first,
                "steady": watched.steady,
            }
        )
    written = {
        (folder / str(n) / "stats.parquet").read_bytes() for n, (_, threads, *_) in enumerate(ways) if threads == 1
    }
    if len(written) != 1:
        sys.exit("the ways of one thread per worker wrote different bytes; no speeds are printed")
    alone = rows[0]["steady"]
    for row in rows:
        row["ratio"] = row["steady"] / alone
        print(
            f"{row['way']:<28} {row['tokens'] / row['seconds']:7.0f} tokens/s in all, steady {row['steady']:7.0f} ({row['ratio']:.2f} x), "
            f"first tokens after {row['start']:5.1f} s",
            flush=True,
        )
    return rows


def memory(name: str, tokens: int, folder: Path) -> dict[str, Any]:
    """Memory over a long scan in this process."""
    import interp

    watched = scan_once(interp.load(name), folder / "long", tokens, 2, None, name)
    tenth = max(1, len(watched.sizes) // 10)
    early, late = min(watched.sizes[tenth : 2 * tenth]), min(watched.sizes[-tenth:])
    growth = late / early - 1
    print(
        f"{watched.tokens:,} tokens in {watched.last:.0f} s ({watched.steady:.0f} tokens/s); "
        f"allocated at least {early / 2**20:.0f} MiB in the second tenth, "
        f"{late / 2**20:.0f} MiB in the last ({growth:+.1%}), at most {max(watched.sizes) / 2**20:.0f} MiB",
        flush=True,
    )
    return {
        "what": "memory",
        "way": "this process, 2 threads",
        "tokens": watched.tokens,
        "seconds": watched.last,
        "steady": watched.steady,
        "early_bytes": early,
        "late_bytes": late,
        "largest_bytes": max(watched.sizes),
        "growth": growth,
        "flat": growth < FLAT,
    }


if __name__ == "__main__":
    main()
