"""The worker's side of a job: load the model of a recipe once, then measure one unit after the other.

`main` is a program that reads JSON lines from standard input, first the recipe, then units, and writes JSON lines to standard
output: "ready", then for each unit "context" after each batch and once "done" or "failed"; "refused" is an error that concerns the
whole job. It ends with its standard input, at once, even in the middle of a unit: whoever started it is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any, TextIO

from interp.batch.analysis_task import ANALYSES, analysis_runner
from interp.batch.failures import in_words
from interp.batch.places import Place, open_place
from interp.batch.scan_runner import scan_runner
from interp.batch.task import ModelChoice, Recipe, Runner, Unit, work
from interp.errors import InterpError, OptionError
from interp.models.hooked import HookedModel
from interp.models.load_by_words import load_by_words

RUNNERS: dict[str, Callable[[HookedModel, Mapping[str, Any]], Runner]] = {
    "scan": scan_runner,
    **dict.fromkeys(ANALYSES, analysis_runner),
}
"""Kind of a task -> (loaded model, the plan's record) -> its runner, which refuses a model that is not the plan's."""


def load_choice(choice: ModelChoice) -> HookedModel:
    """Load the model of a recipe, and set torch's threads for this process.

    Raises:
        InterpError: as `interp.load`.
    """
    return load_by_words(**asdict(choice))


def open_runner(recipe: Recipe) -> Runner:
    """Load the model of a recipe and see that it is the plan's.

    Raises:
        OptionError: an unknown kind of task.
        PlanMismatchError: the model, the software or the kernels here are not those of the plan.
        InterpError: the model cannot be loaded.
    """
    if recipe.kind not in RUNNERS:
        raise OptionError(f"a job must be one of {', '.join(RUNNERS)}; got {recipe.kind!r}")
    return RUNNERS[recipe.kind](load_choice(recipe.model), recipe.plan)


def main() -> None:
    """Serve the process that started this one, until it closes our standard input."""
    # Whatever prints must not stand between the JSON lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    lines = _lines(sys.stdin)
    try:
        recipe = Recipe.of(json.loads(next(lines)))
        runner, place = open_runner(recipe), open_place(recipe.place)
        _say(out, "ready")
        for line in lines:
            _serve(runner, Unit.of(json.loads(line)), place, out)
    except InterpError as error:
        _say(out, "refused", error=type(error).__name__, message=str(error))


def _serve(runner: Runner, unit: Unit, place: Place, out: TextIO) -> None:
    try:
        work(runner, unit, place, lambda tokens, seconds: _say(out, "context", tokens=tokens, seconds=seconds))
    except InterpError:
        raise
    except Exception as error:  # whatever a model, a kernel or a library raises on this unit; the next may be fine
        _say(out, "failed", message=in_words(error))
    else:
        _say(out, "done")


def _say(out: TextIO, event: str, **facts: Any) -> None:
    out.write(json.dumps({"event": event, **facts}) + "\n")
    out.flush()


def _lines(source: TextIO) -> Iterator[str]:
    """The lines of a stream, read in a thread that ends the process with the stream."""
    queue: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in source:
            queue.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield queue.get()
