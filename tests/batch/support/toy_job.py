"""A job that needs no model: each shard is a number, the result their sum in plan order, whose last bits depend on that order.

`python toy_job.py` is its worker: it speaks the protocol of `interp.batch.worker` with nothing but the standard library, so that tests can start
and kill hundreds. What it does wrong is told by the plan: "die", "fail", "hang", "refuse", "no_start" name shards (or starts) at which it goes wrong.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def content(index: int) -> bytes:
    """The file of a shard: a float whose sum with others rounds."""
    return json.dumps({"index": index, "value": math.sin(index + 1) * 10.0 ** (index % 5 * 3)}).encode()


def total(contents: Iterator[bytes] | list[bytes]) -> str:
    """The sum in the order given, to the last bit."""
    x = 0.0
    for one in contents:
        x += json.loads(one)["value"]
    return x.hex()


@dataclass(kw_only=True)
class ToyTask:
    """A task of `count` shards; `plan` says more, for workers."""

    count: int
    plan: Mapping[str, Any] = field(default_factory=dict)
    fails: dict[int, int] = field(default_factory=dict)
    ran: list[int] = field(default_factory=list)

    kind = "toy"
    manifest_file = "manifest.json"
    result_file = "result.txt"

    def record(self) -> Mapping[str, Any]:
        """The plan."""
        return {"count": self.count, **self.plan}

    def units(self) -> Iterator[Any]:
        """The shards."""
        from interp.batch.task import Unit

        for index in range(self.count):
            yield Unit(index=index, file=f"{index:06d}.parquet", work={"index": index}, tokens=10)

    def totals(self) -> tuple[int | None, int | None]:
        """Counts."""
        return self.count, 10 * self.count

    def check(self, unit: Any, place: Any) -> None:
        """See that a shard is that of its unit."""
        with place.open(unit.file) as file:
            assert json.load(file)["index"] == unit.index

    def runner(self) -> Any:
        """This object."""
        return self

    def run(self, unit: Any, place: Any, after: Any) -> bytes:
        """Measure a shard; `fails` says how often each one raises first."""
        self.ran.append(unit.index)
        after(5, 0.5)
        if self.fails.get(unit.index, 0) > 0:
            self.fails[unit.index] -= 1
            raise ValueError(f"shard {unit.index} is poison\nsecond line")
        after(5, 0.5)
        return content(unit.index)

    def recipe(self, place: str) -> Any:
        """For the worker below."""
        from interp.batch.task import ModelChoice, Recipe

        return Recipe(kind="toy", model=ModelChoice(name="none", threads=1), plan=self.record(), place=place)

    def fold(self, job: Any) -> str:
        """Add the numbers up."""
        contents = []
        for unit in job.done:
            with job.place.open(unit.file) as file:
                contents.append(file.read())
        (job.folder / "result.txt").write_text(total(contents))
        aside = [unit.index for unit, _ in job.set_aside]
        manifest = {"key": job.key, "shards": len(job.done), "set_aside": aside, "started": job.started}
        (job.folder / "manifest.json").write_text(json.dumps(manifest))
        return total(contents)

    def finished(self, folder: Path) -> str:
        """What was folded before."""
        return (folder / "result.txt").read_text()


def serve() -> None:
    """Be a worker."""
    say = lambda **event: print(json.dumps(event), flush=True)  # noqa: E731
    recipe = json.loads(sys.stdin.readline())
    plan, place = recipe["plan"], Path(recipe["place"])
    tries = place / ".tries"
    tries.mkdir(exist_ok=True)
    if plan.get("no_start"):
        sys.exit("Traceback ...\nOSError: no model here")
    if plan.get("refuse"):
        say(event="refused", error="PlanMismatchError", message="another model")
        return
    time.sleep(plan.get("loading", 0.0))
    say(event="ready", device=recipe["model"]["device"])
    for line in sys.stdin:
        unit = json.loads(line)
        index = unit["index"]
        time.sleep(plan.get("seconds", 0.0))
        say(event="context", tokens=5, seconds=0.1)
        attempt = len(list(tries.glob(f"{index}.*")))
        (tries / f"{index}.{os.getpid()}.{time.monotonic_ns()}").touch()
        if attempt < plan.get("hang", {}).get(str(index), 0):
            time.sleep(600)
        if attempt < plan.get("die", {}).get(str(index), 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt < plan.get("fail", {}).get(str(index), 0):
            say(event="failed", message="RuntimeError: not this time")
            continue
        temporary = place / f".{unit['file']}.{os.getpid()}.tmp"
        temporary.write_bytes(content(index))
        os.replace(temporary, place / unit["file"])
        say(event="context", tokens=5, seconds=0.1)
        say(event="done")


if __name__ == "__main__":
    serve()
