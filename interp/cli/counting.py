"""Progress of an analysis that counts its steps: a bar on a terminal, a line every few seconds elsewhere, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from interp.cli.console import people, printable, say
from interp.cli.progress import EVERY, duration

Count = Callable[[int, int], None]
NamedCount = Callable[[str, int, int], None]


@contextmanager
def counting(name: str, *, quiet: bool) -> Iterator[Count]:
    """Show steps done of steps while the block runs.

    Args:
        name: what is running.
        quiet: show nothing.
    """
    with counting_parts(quiet=quiet) as count:
        yield lambda done, total: count(name, done, total)


@contextmanager
def counting_parts(*, quiet: bool) -> Iterator[NamedCount]:
    """Show the steps of one part after the other, each with its name."""
    if quiet:
        yield lambda name, done, total: None
    elif people().is_terminal:
        with _bars() as bars:
            tasks = {}

            def advance(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task(printable(name), total=total)
                bars.update(tasks[name], completed=done, total=total)

            yield advance
    else:
        began: dict[str, float] = {}
        last = time.monotonic()

        def line(name: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            began.setdefault(name, now)
            if done == total or now - last >= EVERY:
                last = now
                say(f"{name}: {done} of {total}, {duration(now - began[name])}")

        yield line


def _bars() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=people(),
    )
