"""Runs toy jobs with two workers each, and kills the job or one of its workers with SIGKILL at random moments until it is done.

Each job runs in a child that is forked from here, so that nothing is imported anew after a kill. Prints one JSON line per seed.

    python kill_jobs.py FOLDER FIRST_SEED LAST_SEED SHARDS
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from toy_job import ToyTask

from interp.batch.engine_local import LocalEngine
from interp.batch.job import run_job

WORKER = (sys.executable, str(Path(__file__).with_name("toy_job.py")))
SECONDS = 0.03
"""What a shard takes."""
JITTER = 0.1


def start(out: Path, count: int) -> int:
    """Fork a child that runs the job, and return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        run_job(ToyTask(count=count, plan={"seconds": SECONDS}), out, engine=LocalEngine(workers=2, command=WORKER))
    except BaseException as error:  # the child must not return into the parent's code
        print(f"child failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def under_fire(out: Path, begin: Callable[[], int], rng: random.Random, count: int, jitter: float) -> dict[str, object]:
    """Run one job of so many shards to its end; workers are killed twice at most and the job three times.

    Each time after some more shards, and up to `jitter` seconds: the moments depend on the seed more than on the machine.
    """
    facts = {"status": 0, "job_kills": 0, "worker_kills": 0}
    states: list[int] = []
    child = begin()
    while True:
        target, until = len(list(out.glob("parts/*.parquet"))) + rng.randint(0, count // 4), None
        while until is None or time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return {**facts, "status": os.waitstatus_to_exitcode(status), "shards_at_kills": states}
            if until is None and len(list(out.glob("parts/*.parquet"))) >= target:
                until = time.monotonic() + rng.uniform(0.0, jitter)
            time.sleep(0.002)
        workers = psutil.Process(child).children()
        if workers and facts["worker_kills"] < 2 and rng.random() < 0.5:
            rng.choice(workers).kill()
            facts["worker_kills"] += 1
        elif facts["job_kills"] < 3:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            facts["job_kills"] += 1
            child = begin()
        else:
            continue
        states.append(len(list(out.glob("parts/*.parquet"))))


def main(folder: Path, first: int, last: int, count: int) -> None:
    """Run one job per seed."""
    for seed in range(first, last):
        out = folder / str(seed)
        told = under_fire(out, partial(start, out, count), random.Random(seed), count, JITTER)
        print(json.dumps({"seed": seed, **told}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
