"""The monitor in the training loops of others: Hugging Face's Trainer and Lightning.

    Trainer(..., callbacks=[EntropyCallback(every=10)])                         # transformers
    Trainer(..., callbacks=[lightning_callback(every=10)])                      # lightning, or pytorch_lightning

Both count steps of the optimizer, as their trainers do; with gradient accumulation the first micro-batch of a step is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn
from transformers import TrainerCallback

from interp.entropy.detector import Alarm, Rules
from interp.entropy.monitor import Monitor
from interp.errors import OptionError

LIGHTNING: Final = ("lightning.pytorch", "pytorch_lightning")


class EntropyCallback(TrainerCallback):
    """A callback of transformers' `Trainer`.

    Attributes:
        monitor: from the beginning of the training on; None before.
    """

    def __init__(
        self,
        *,
        every: int = 10,
        rules: Rules | None = None,
        stop_on: tuple[str, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Choose what to measure.

        Args:
            every: steps from one measured to the next.
            rules: thresholds of the alarms.
            stop_on: kinds of alarms that end the training, such as ("collapse", "nonfinite").
            options: further arguments of `Monitor`: writers, sequences, spectral, backend.
        """
        self.monitor: Monitor | None = None
        self._settings = {"every": every, "rules": rules, **(options or {})}
        self._stop_on = stop_on

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        """Put the monitor on the model."""
        if model is None:
            raise OptionError("the trainer gave no model to its callbacks; use Monitor(model) instead")
        self.monitor = Monitor(model, **self._settings, steps="given")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the next forward if its step is due."""
        if self.monitor is not None:
            self.monitor.next_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training where an alarm of a chosen kind was raised in this step."""
        if self.monitor is not None and stops(self.monitor, self._stop_on):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what is left."""
        if self.monitor is not None:
            self.monitor.close()


def stops(monitor: Monitor, kinds: tuple[str, ...]) -> bool:
    """Whether the last measured step raised an alarm of one of these kinds."""
    last: tuple[Alarm, ...] = monitor.readings[-1].alarms if monitor.readings else ()
    return any(alarm.kind in kinds for alarm in last)


def lightning_callback(
    *,
    every: int = 10,
    rules: Rules | None = None,
    stop_on: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
) -> Any:
    """A callback of Lightning's `Trainer`; arguments as of `EntropyCallback`. Its attribute `monitor` is the monitor.

    Raises:
        OptionError: Lightning is not installed.
    """
    found = next((name for name in LIGHTNING if find_spec(name.split(".")[0]) is not None), None)
    if found is None:
        raise OptionError(
            f"Lightning is not installed (looked for {' and '.join(LIGHTNING)}); pip install lightning, or use Monitor(model)"
        )
    settings = {"every": every, "rules": rules, **(options or {})}

    class LightningEntropyCallback(import_module(found).Callback):
        """Opens the measurement around training_step, which need not call the module itself, and closes it before the backward."""

        def __init__(self) -> None:
            super().__init__()
            self.monitor: Monitor | None = None
            self._measurement = ExitStack()

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            self.monitor = Monitor(pl_module, **settings, steps="given")

        def on_train_batch_start(self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int) -> None:
            step, monitor = trainer.global_step, self.monitor
            if (
                monitor is not None
                and monitor.due(step)
                and not (monitor.readings and monitor.readings[-1].step == step)
            ):
                self._measurement.enter_context(monitor.measuring(step))

        def on_before_backward(self, trainer: Any, pl_module: nn.Module, loss: torch.Tensor) -> None:
            self._measurement.close()
            if self.monitor is not None:
                self.monitor.note(loss)

        def on_train_batch_end(
            self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            self._measurement.close()
            if self.monitor is not None and stops(self.monitor, stop_on):
                trainer.should_stop = True

        def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
            self._measurement.__exit__(type(exception), exception, exception.__traceback__)

        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            if self.monitor is not None:
                self.monitor.close()

    return LightningEntropyCallback()
