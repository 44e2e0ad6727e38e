"""Ctrl-C in two steps: the first lets the shard at hand be finished and written, the second aborts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from interp.batch.events import Event


class ScanInterruptedError(KeyboardInterrupt):
    """The scan stopped after a shard because it was asked to; `event` says how far it came. The same call goes on from there."""

    def __init__(self, event: Event) -> None:
        super().__init__("stopped after a finished shard; the same call goes on from there")
        self.event = event


@dataclass(kw_only=True)
class Interrupts:
    """Whether Ctrl-C has come once."""

    asked: bool = False


@contextmanager
def two_step_interrupts(notice: Callable[[], None]) -> Iterator[Interrupts]:
    """Turn the first Ctrl-C into a wish (`asked`), and leave the second to raise KeyboardInterrupt.

    Outside the main thread signals cannot be caught; there nothing changes.

    Args:
        notice: called at the first Ctrl-C, to tell the person.
    """
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def first(_number: int, _frame: FrameType | None) -> None:
        state.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        notice()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
