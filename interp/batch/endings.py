"""The two ways in which a job ends without all of its shards; told apart from other errors by callers and by exit codes."""

from __future__ import annotations

from typing import Any

from interp.errors import InterpError


class JobFailedError(InterpError):
    """No shard of the job could be measured."""


class IncompleteJobError(InterpError):
    """The job is done but for shards that were set aside; `result` was made of the others, and says which are missing."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result
