"""How a training of an autoencoder shows itself: a bar with L0, explained variance, dead features and recovered cross-entropy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from interp.cli.console import people, say
from interp.cli.progress import EVERY

if TYPE_CHECKING:
    from interp.saes.log import Report


def words(report: Report, recovered: float | None) -> str:
    """Where a training stands, in a line; `recovered` is the last cross-entropy recovered that was measured."""
    ce = "" if recovered is None else f", CE recovered {recovered:.3f}"
    return f"L0 {report.l0:.1f}, EV {report.ev:.3f}, dead {report.dead:.1%}{ce}, {report.speed:,.0f} tokens/s"


@contextmanager
def training_bar(name: str, *, quiet: bool) -> Iterator[Callable[[Report], None]]:
    """Show the reports of a training while the block runs: a bar on a terminal, a line every few seconds elsewhere."""
    recovered: float | None = None
    last = 0.0

    def shown(report: Report) -> str:
        nonlocal recovered
        recovered = report.ce_recovered if report.ce_recovered is not None else recovered
        return words(report, recovered)

    if quiet:
        yield lambda report: None
    elif people().is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=people()) as bar:
            task = bar.add_task(name)
            yield lambda report: bar.update(
                task, completed=report.step, total=report.steps, description=f"{name}: {shown(report)}"
            )
    else:

        def line(report: Report) -> None:
            nonlocal last
            said = shown(report)
            if report.step == report.steps or time.monotonic() - last >= EVERY:
                last = time.monotonic()
                say(f"{name}: step {report.step} of {report.steps}, loss {report.loss:.4g}, {said}")

        yield line
