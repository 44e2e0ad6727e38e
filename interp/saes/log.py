"""What a training says of itself: one `Report` every few steps, in `log.parquet`, to TensorBoard, and to whoever shows progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from interp.errors import CorruptFileError, OptionError, OutputError
from interp.saes.core import SAE

LOG = "log.parquet"
COLUMNS = ("step", "rows", "loss", "l0", "ev", "dead", "learning_rate", "speed", "ce_recovered")


@dataclass(frozen=True, kw_only=True)
class Report:
    """A training at one step, measured on its last batch.

    Attributes:
        step, steps: done and in all.
        rows: trained on so far.
        loss: what is minimised.
        parts: its summands by name.
        l0: active features per row.
        ev: explained variance, 1 - error / variance.
        dead: share of features that count as dead.
        learning_rate: of this step.
        speed: rows per second of this session, evaluations included.
        ce_recovered: share of the cross-entropy that comes back when the autoencoder stands in the model; None where it was not measured.
    """

    step: int
    steps: int
    rows: int
    loss: float
    parts: Mapping[str, float]
    l0: float
    ev: float
    dead: float
    learning_rate: float
    speed: float
    ce_recovered: float | None = None

    def evaluated(self, ce_recovered: float) -> Report:
        """The same with the share of the cross-entropy that comes back."""
        return replace(self, ce_recovered=ce_recovered)

    def row(self) -> dict[str, float | int | None]:
        """A row of the log."""
        return {name: getattr(self, name) for name in COLUMNS} | {f"loss_{name}": x for name, x in self.parts.items()}


@runtime_checkable
class SummaryWriter(Protocol):
    """What is used of `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Record a number."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """How often a training speaks and saves, and who hears.

    Attributes:
        log_every: steps between two reports.
        checkpoint_every: steps between two checkpoints; 0 writes one at the end.
        evaluate: gives the share of the cross-entropy that comes back with an autoencoder; None leaves it out.
        evaluate_every: steps between two such evaluations, 0 for one at the end; they fall on reports.
        progress: hears every report.
        tensorboard: an object of `torch.utils.tensorboard.SummaryWriter`, which stays yours to close.

    Raises:
        OptionError: numbers that make no sense.
    """

    log_every: int = 20
    checkpoint_every: int = 200
    evaluate: Callable[[SAE], float] | None = None
    evaluate_every: int = 0
    progress: Callable[[Report], None] | None = None
    tensorboard: SummaryWriter | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.log_every < 1 or self.checkpoint_every < 0 or self.evaluate_every < 0:
            raise OptionError("log_every must be at least 1, checkpoint_every and evaluate_every at least 0")
        if self.evaluate_every % self.log_every:
            raise OptionError(
                f"evaluate_every must be a multiple of log_every = {self.log_every}; got {self.evaluate_every}"
            )

    def tell(self, report: Report) -> None:
        """Tell everyone."""
        if self.progress is not None:
            self.progress(report)
        if self.tensorboard is not None:
            for name, value in report.row().items():
                if value is not None and name != "step":
                    self.tensorboard.add_scalar(f"sae/{name}", float(value), report.step)


class TrainingLog:
    """`log.parquet` of a folder; rows of steps that a checkpoint does not hold are dropped, for they come again.

    Args:
        folder: of the training.
        upto: the step at which it goes on.

    Raises:
        CorruptFileError: there is a log that cannot be read.
    """

    def __init__(self, folder: Path, *, upto: int) -> None:
        self.path = folder / LOG
        self._rows: list[dict[str, Any]] = []
        if upto and self.path.exists():
            there: Any = read_log(folder)
            self._rows = [dict(row) for row in there[there["step"] <= upto].to_dict("records")]

    def add(self, report: Report) -> None:
        """Hold a report."""
        self._rows.append(report.row())

    def write(self) -> None:
        """Write all reports, whole or not at all. Raises OutputError if it cannot be done."""
        temporary = self.path.with_name(f".{LOG}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            frame = pd.DataFrame(self._rows)
            frame["ce_recovered"] = frame["ce_recovered"].astype("float64")
            frame.to_parquet(temporary, index=False)
            os.replace(temporary, self.path)
        except OSError as error:
            raise OutputError(f"cannot write {self.path.name}: {error.strerror or error}") from error


def read_log(folder: str | Path) -> pd.DataFrame:
    """The log of a training: one row per report, columns as `Report` names them and loss_PART for every summand.

    Raises:
        CorruptFileError: there is none, or it is damaged.
    """
    try:
        return pd.read_parquet(Path(folder) / LOG)
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{Path(folder).name} holds no readable training log ({error})") from error
