"""Kills a scan with SIGKILL at random moments until it is done, many times over; prints one JSON line per scan.

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


def ended(child: int, seconds: float) -> int | None:
    """The exit status of a child that ends within some time, or None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
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
    whole = time.monotonic() - begun
    print(json.dumps({"scan": "reference", "status": status}), flush=True)
    for number in range(scans):
        rng = random.Random(seed + number)
        out = folder / f"scan{number}"
        kills, states, patience = 0, [], 0.6 * whole
        while True:
            child = start(model, out)
            # More patience after each kill: the time for loading what is there must not be the end of all progress.
            status = ended(child, rng.uniform(0.0, patience))
            if status is not None:
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills, patience = kills + 1, patience * 1.1
            states.append(len(list(out.glob("parts/[0-9]*.parquet"))))
        print(json.dumps({"scan": out.name, "status": status, "kills": kills, "shards_at_kills": states}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
