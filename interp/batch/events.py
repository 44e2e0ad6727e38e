"""What a running job tells whoever watches it: progress bars, log lines and JSON are made of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["plan", "context", "shard", "failed", "notice", "interrupted", "incomplete", "done"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One moment of a job.

    Attributes:
        kind: "plan" (about to start), "context" (some more tokens were measured), "shard" (one more lies on the disk), "failed" (an attempt at
            a shard), "notice" (`message` is for the person), "interrupted", "incomplete" (done but for shards that were set aside), "done".
        key: short key of the plan.
        shards: finished shards, those of earlier sessions included.
        shards_total: how many there will be, None where the text is streamed and its length unknown.
        tokens: tokens in finished contexts, those of earlier sessions included.
        tokens_total: how many there will be at most, None where unknown.
        measured: tokens measured in this session.
        seconds: time spent on them, by all workers together.
        worker: number of the worker that it comes from, None where there is but this process.
        workers: how many measure at the same time.
        message: words for the person.
    """

    kind: Kind
    key: str
    shards: int = 0
    shards_total: int | None = None
    tokens: int = 0
    tokens_total: int | None = None
    measured: int = 0
    seconds: float = 0.0
    worker: int | None = None
    workers: int = 1
    message: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of this session, of all workers together; None before the first context."""
        return self.workers * self.measured / self.seconds if self.measured and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at this speed, None where it cannot be told."""
        speed = self.tokens_per_second
        if speed is None or self.tokens_total is None:
            return None
        return max(self.tokens_total - self.tokens, 0) / speed

    def record(self) -> dict[str, Any]:
        """Plain values for one line of JSON."""
        speed, left = self.tokens_per_second, self.seconds_left
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("kind", "worker", "workers")},
            "event": self.kind,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": None if speed is None else round(speed, 1),
            "seconds_left": None if left is None else round(left, 1),
            **({} if self.worker is None else {"worker": self.worker, "workers": self.workers}),
        }


Watcher = Callable[[Event], None]
