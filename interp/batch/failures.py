"""The log of a job's failures: one JSON line for each attempt that failed, in the folder of its shards; and errors as they cross processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.batch.clock import now
from interp.batch.files import cannot_write
from interp.errors import (
    CaptureError,
    CorruptFileError,
    InputDataError,
    InterpError,
    ModelNotFoundError,
    OfflineError,
    OptionError,
    OutputError,
    PlanMismatchError,
    ShapeError,
    TooLargeError,
    UnsupportedModelError,
)

FAILURES = "failures.jsonl"
TYPES: Mapping[str, type[InterpError]] = {
    kind.__name__: kind
    for kind in (
        *(CaptureError, CorruptFileError, InputDataError, ModelNotFoundError, OfflineError, OptionError, OutputError),
        *(PlanMismatchError, ShapeError, TooLargeError, UnsupportedModelError),
    )
}
"""Errors that a worker may report by name."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An attempt at a shard that failed.

    Attributes:
        shard: its index.
        attempt: the how-manieth of that session.
        set_aside: whether it was the last one.
        worker: number of the worker.
        error: in one line.
        time: UTC.
    """

    shard: int
    attempt: int
    set_aside: bool
    worker: int
    error: str
    time: str = ""


def log_failure(folder: Path, failure: Failure) -> None:
    """Add a line to the log.

    Raises:
        OutputError: it cannot be written.
    """
    line = json.dumps({**asdict(failure), "time": now()}, ensure_ascii=False)
    try:
        with (folder / FAILURES).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise cannot_write(FAILURES, error) from error


def read_failures(folder: Path) -> list[Failure]:
    """The failures in the log, oldest first; a line that was cut short by a crash is left out."""
    try:
        lines = (folder / FAILURES).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[Failure] = []
    for line in lines:
        try:
            found.append(Failure(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def raised_by_worker(name: str, message: str) -> InterpError:
    """The error that a worker in another process raised on purpose."""
    return TYPES.get(name, InterpError)(message)


def in_words(error: BaseException) -> str:
    """An error in one line: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
