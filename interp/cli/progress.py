"""How a running job shows itself: a bar on a terminal, a line every few seconds elsewhere, JSON lines for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from interp.cli.console import people, print_json, printable, say

if TYPE_CHECKING:
    from interp.batch.events import Event, Watcher

EVERY = 5.0
"""Seconds between two plain lines."""

JSON_KINDS = ("plan", "shard", "failed", "interrupted", "incomplete", "done")


def duration(seconds: float | None) -> str:
    """Seconds in words: "1:05", "2:00:00"; "?" where unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress_line(event: Event) -> str:
    """Where a job stands, in one line: tokens, shards, speed, time left."""
    total = "" if event.tokens_total is None else f" of {event.tokens_total:,}"
    shards = "" if event.shards_total is None else f" of {event.shards_total}"
    speed = event.tokens_per_second
    pace = "" if speed is None else f", {speed:,.0f} tokens/s, {duration(event.seconds_left)} left"
    return f"{event.tokens:,}{total} tokens, {event.shards}{shards} shards{pace}"


@contextmanager
def watching(name: str, *, as_json: bool, quiet: bool) -> Iterator[Watcher]:
    """Show the events of a job while the block runs.

    Args:
        name: what is running, for the bar.
        as_json: print events as JSON lines to standard output.
        quiet: show nothing to people.
    """
    bar = None if quiet or not people().is_terminal else _Bar.started(name)
    lines = None if quiet or bar is not None else _Lines()

    def watch(event: Event) -> None:
        if as_json and event.kind in JSON_KINDS:
            print_json(event.record())
        for shown in (bar, lines):
            if shown is not None:
                shown.show(event)

    try:
        yield watch
    finally:
        if bar is not None:
            bar.progress.stop()


class _Pace(ProgressColumn):
    """Tokens per second and time left of this session, as the job itself counts them."""

    def render(self, task: Task) -> Text:
        speed, left = task.fields["speed"], task.fields["left"]
        return Text("" if speed is None else f"{speed:,.0f} tokens/s, {duration(left)} left")


@dataclass(kw_only=True)
class _Share:
    """What one worker has done, and its row."""

    task: TaskID
    tokens: int = 0
    began: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class _Bar:
    """A progress bar on standard error."""

    progress: Progress
    task: TaskID
    workers: dict[int, _Share] = field(default_factory=dict)
    measured: int = 0

    @staticmethod
    def started(name: str) -> _Bar:
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:,.0f} tokens", markup=False),
            _Pace(),
            console=people(),
        )
        progress.start()
        return _Bar(progress=progress, task=progress.add_task(name, total=None, speed=None, left=None))

    def show(self, event: Event) -> None:
        self.progress.update(
            self.task,
            completed=event.tokens,
            total=event.tokens_total,
            speed=event.tokens_per_second,
            left=event.seconds_left,
        )
        self._show_worker(event)
        if event.message:
            self.progress.console.print(printable(event.message))

    def _show_worker(self, event: Event) -> None:
        """A bar without an end for each worker: what it has measured, how fast, and when the work would end at the pace of all."""
        grown, self.measured = event.measured - self.measured, event.measured
        if event.worker is None:
            return
        if event.worker not in self.workers:
            row = self.progress.add_task(f"  worker {event.worker}", total=None, speed=None, left=None)
            self.workers[event.worker] = _Share(task=row)
        share = self.workers[event.worker]
        share.tokens += max(grown, 0)
        speed = share.tokens / max(time.monotonic() - share.began, 1e-9) if share.tokens else None
        self.progress.update(share.task, completed=share.tokens, speed=speed, left=event.seconds_left)


@dataclass(kw_only=True)
class _Lines:
    """Plain lines on standard error, not more often than every few seconds while contexts go by."""

    last: float = field(default_factory=time.monotonic)

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind in ("context", "shard") and now - self.last < EVERY:
            return
        self.last = now
        say(f"{progress_line(event)}{': ' + event.message if event.message else ''}")
        sys.stderr.flush()
