"""Where a monitor's readings go while a model trains: Parquet, TensorBoard, Weights & Biases.

The last two take an object of that library, so that nothing here depends on either: a `SummaryWriter` and a run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from interp.entropy.detector import Rules
from interp.entropy.reading import Reading
from interp.errors import OptionError, OutputError

PART = "part-{:05d}.parquet"


@runtime_checkable
class Writer(Protocol):
    """Takes readings as they come."""

    def write(self, reading: Reading, rules: Rules) -> None:
        """Take one reading; `rules` say which heads count as collapsed."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class ParquetWriter:
    """Writes readings as Parquet files of one folder while the training runs: `pandas.read_parquet(folder)` reads them all.

    Each file is complete when it appears, so the folder can be read at any time and survives a run that is killed.
    """

    def __init__(self, folder: str | Path, *, flush: int = 20) -> None:
        """Open a folder.

        Args:
            folder: new, or empty.
            flush: readings per file.

        Raises:
            OptionError: flush below 1.
            OutputError: the folder holds something, or cannot be made.
        """
        if flush < 1:
            raise OptionError(f"flush: wanted at least 1 reading per file, got {flush}")
        self.folder, self._flush = Path(folder), flush
        self._held: list[pd.DataFrame] = []
        self._parts = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise OutputError(f"{self.folder.name} is not empty; give each training a folder of its own")
        except OSError as error:
            raise OutputError(f"cannot write to {self.folder.name}: {error.strerror or error}") from error

    def write(self, reading: Reading, rules: Rules) -> None:
        """Take one reading."""
        self._held.append(reading.table())
        if len(self._held) >= self._flush:
            self.close()

    def close(self) -> None:
        """Write what is held; the writer can go on."""
        if not self._held:
            return
        path = self.folder / PART.format(self._parts)
        unfinished = path.with_name(f".{path.name}")  # hidden, so that a reader of the folder passes over it
        pd.concat(self._held, ignore_index=True).to_parquet(unfinished, index=False)
        os.replace(unfinished, path)
        self._parts, self._held = self._parts + 1, []


@runtime_checkable
class SummaryWriter(Protocol):
    """What is used of `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Record a number."""
        ...

    def add_text(self, tag: str, text_string: str, global_step: int) -> Any:
        """Record a text."""
        ...


@runtime_checkable
class Run(Protocol):
    """What is used of a run of wandb (`wandb.init()`)."""

    def log(self, data: dict[str, Any], step: int | None = None) -> Any:
        """Record numbers."""
        ...


class TensorBoardWriter:
    """Writes each reading's summary and alarms to a `torch.utils.tensorboard.SummaryWriter`, which stays yours to close."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def write(self, reading: Reading, rules: Rules) -> None:
        """Take one reading."""
        for name, value in _numbers(reading, rules).items():
            self.writer.add_scalar(name, value, reading.step)
        for alarm in reading.alarms:
            self.writer.add_text(f"entropy/alarm_{alarm.kind}", alarm.message, reading.step)

    def close(self) -> None:
        """Nothing is held."""


class WandbWriter:
    """Writes each reading's summary to a run of wandb, under `entropy/step` so that its own step counter is left alone."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def write(self, reading: Reading, rules: Rules) -> None:
        """Take one reading."""
        alarms = {f"entropy/alarm_{alarm.kind}": alarm.message for alarm in reading.alarms}
        self.run.log({**_numbers(reading, rules), **alarms, "entropy/step": reading.step})

    def close(self) -> None:
        """Nothing is held."""


def _numbers(reading: Reading, rules: Rules) -> Mapping[str, float]:
    return {name: value for name, value in reading.summary(rules).items() if value == value}
