"""As `kill_jobs.py`, with scans of a tiny model by two real workers; the scan without workers, undisturbed, lies in FOLDER/reference.

python kill_scans.py FOLDER FIRST_SEED LAST_SEED
"""

from __future__ import annotations

import json
import os
import random
import sys
from functools import partial
from pathlib import Path

import torch
from kill_jobs import under_fire

from interp.batch.engine_local import LocalEngine
from interp.batch.scan import scan
from interp.batch.task import Engine, ModelChoice
from interp.models.hooked import HookedModel
from interp.models.load import load

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen, thirteen, thirteen. " * 400
NAME = "tiny/llama"
JITTER = 1.0
"""Seconds; some kills meet workers that still load the model."""


def start(model: HookedModel, out: Path, engine: Engine | None) -> int:
    """Fork a child that scans, and return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        choice = ModelChoice(name=NAME, threads=1)
        scan(model, TEXT, out=out, context=64, shard=2, batch=2, thumbnails=2, engine=engine, choice=choice)
    except BaseException as error:  # the child must not return into the parent's code
        print(f"child failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main(folder: Path, first: int, last: int) -> None:
    """Scan once undisturbed, then once per seed under fire."""
    torch.set_num_threads(1)
    model = load(NAME)
    reference = partial(start, model, folder / "reference", None)
    if os.waitstatus_to_exitcode(os.waitpid(reference(), 0)[1]):
        sys.exit("the reference failed")
    engine = LocalEngine(workers=2)
    shards = len(list((folder / "reference" / "parts").glob("*.parquet")))
    engine = LocalEngine(workers=2)
    for seed in range(first, last):
        out = folder / str(seed)
        told = under_fire(out, partial(start, model, out, engine), random.Random(seed), shards, JITTER)
        print(json.dumps({"seed": seed, **told}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
