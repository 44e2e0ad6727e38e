"""Kills a scan with SIGKILL at random moments until it is done, first behind a random shard, many times over; prints one JSON line per scan.

A process of its own, because it forks: the model is loaded once here, and each scan runs in a child that has it already. torch may not have
started threads before a fork, so this parent runs no model.

    python kill_at_random.py FOLDER SCANS SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from interp.batch.scan import scan
from interp.models.hooked import HookedModel
from interp.models.toy import tiny

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen, thirteen, thirteen. " * 9


def start(model: HookedModel, out: Path) -> int:
    """Fork a child that scans, and return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        scan(model, TEXT, out=out, context=64, shard=2, thumbnails=2)
    except BaseException as error:  # the child must not return into the parent's code
        print(f"child failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def finished(out: Path) -> int:
    """Shards that are there."""
    return len(list(out.glob("parts/[0-9]*.parquet")))


def ended(child: int, enough: Callable[[], bool]) -> int | None:
    """The exit status of a child that ends before it is enough, or None."""
    while not enough():
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def main(folder: Path, scans: int, seed: int) -> None:
    """Scan once undisturbed, then so many times under fire."""
    torch.set_num_threads(1)
    model = tiny("llama")
    status = os.waitstatus_to_exitcode(os.waitpid(start(model, folder / "reference"), 0)[1])
    # Timed apart: the first scan of a machine also builds kernels, and kills spread over that time would all come late.
    begun = time.monotonic()
    os.waitpid(start(model, folder / "timed"), 0)
    whole, shards = time.monotonic() - begun, finished(folder / "reference")
    print(json.dumps({"scan": "reference", "status": status}), flush=True)
    for number in range(scans):
        rng = random.Random(seed + number)
        out = folder / f"scan{number}"
        kills, states, patience = 0, [], 0.6 * whole
        while True:
            child = start(model, out)
            if kills == 0:  # in the middle for certain, however fast or slow the machine is at the moment
                wanted = rng.randrange(1, shards)
                status = ended(child, lambda out=out, wanted=wanted: finished(out) >= wanted)
            else:
                # More patience after each kill: the time for loading what is there must not be the end of all progress.
                until = time.monotonic() + rng.uniform(0.0, patience)
                status = ended(child, lambda until=until: time.monotonic() >= until)
            if status is not None:
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills, patience = kills + 1, patience * 1.1
            states.append(finished(out))
        print(json.dumps({"scan": out.name, "status": status, "kills": kills, "shards_at_kills": states}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
