"""`Monitor`: see entropy collapse coming while a model trains, whatever loop trains it.

    monitor = interp.entropy.Monitor(model, every=10)

One line: from here on every tenth training forward is measured, by hooks on the model. Nothing else changes: what the model computes, its
random numbers and its gradients are what they were. A measured forward runs each attention call once more through the kernels, on the first
few sequences of the batch, without gradients and in O(N) memory (`benchmarks/monitor.py` measures what it costs).

    monitor.frame      one row per measured step, layer and head
    monitor.alarms     what the detector raised
    monitor.view()     a live picture, in a notebook
    monitor.close()    takes the hooks off
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final, Literal

import pandas as pd
import torch
from torch import nn

from interp.capture.call import BackendChoice
from interp.capture.observe import Seen, observing
from interp.display import plot, view
from interp.entropy.detector import Alarm, Detector, Rules
from interp.entropy.health import LayerHealth, health
from interp.entropy.projections import query_key
from interp.entropy.reading import Reading
from interp.entropy.spectral import qk_spectral_norm
from interp.entropy.writers import Writer
from interp.errors import CaptureError, OptionError

SEQUENCES: Final = 8
KEPT: Final = 2000

logger = logging.getLogger(__name__)


class Monitor:
    """Measures the attention of a model in training.

    Attributes:
        model: what is watched.
        every: steps from one measured to the next.
        rules: the detector's thresholds.
        step: number of the current training step: forwards of the model in training mode with gradients, unless `measuring` says otherwise.
        readings: the last measured steps.
        alarms: all alarms so far.
        unseen: path of a module -> why its attention cannot be seen.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 10,
        rules: Rules | None = None,
        writers: Sequence[Writer] = (),
        sequences: int = SEQUENCES,
        spectral: int = 1,
        backend: BackendChoice = "auto",
        steps: Literal["forwards", "given"] = "forwards",
    ) -> None:
        """Put the monitor on a model.

        Args:
            model: any module whose attention goes through torch's functions or transformers' interface.
            every: measure steps 0, every, 2 every ...
            rules: thresholds of the alarms.
            writers: get every reading, see `interp.entropy.writers`.
            sequences: items of the batch that are measured, the first ones.
            spectral: find QK spectral norms at every so many readings, 0 never.
            backend: which kernels to ask for.
            steps: what a step is: a training forward ("forwards"), or what `next_step` says ("given"; gradient accumulation, callbacks).

        Raises:
            OptionError: a number that is not positive.
        """
        if every < 1 or sequences < 1 or spectral < 0:
            raise OptionError(
                f"wanted every >= 1, sequences >= 1 and spectral >= 0; got {every}, {sequences}, {spectral}"
            )
        self.model, self.every, self.rules = model, every, rules or Rules()
        self.step = -1
        self.readings: deque[Reading] = deque(maxlen=KEPT)
        self.alarms: list[Alarm] = []
        self.unseen: dict[str, str] = {}
        self._writers, self._sequences, self._spectral = tuple(writers), sequences, spectral
        self._backend: BackendChoice = backend
        self._detector = Detector(rules=self.rules)
        self._layers: dict[str, int] = {}
        self._open: ExitStack | None = None
        self._pending, self._count = False, 0
        self._listeners: list[Callable[[Reading], None]] = []
        self._counts, self._next = steps == "forwards", -1
        self._handles = [
            model.register_forward_pre_hook(self._before),
            model.register_forward_hook(self._after, always_call=True),
        ]

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------ measuring
    @contextmanager
    def measuring(self, step: int) -> Iterator[None]:
        """Measure the forward inside, as training step `step`, whether or not it is due."""
        heard: dict[str, list[LayerHealth]] = {}

        def hear(seen: Seen) -> None:
            heard.setdefault(seen.path, []).append(health(seen.narrow(self._sequences)))

        with observing(self.model, hear, backend=self._backend, layers=self._layers) as observer:
            yield
        self._warn(observer.unseen)
        # A module that attends twice in a step (shared layers, two views of a batch) is read at its first call.
        self._finish(step, [calls[0] for calls in heard.values()])

    def due(self, step: int) -> bool:
        """Whether a step is one of those to be measured."""
        return step % self.every == 0

    def next_step(self, step: int) -> None:
        """Say the number of the step that begins: its first training forward is measured if the step is due."""
        self.step = step
        self._next = step if self.due(step) else -1

    def note(self, loss: float | torch.Tensor) -> None:
        """Say the loss of the step that was measured last; models that return `.loss` say it themselves. May be called at every step."""
        if self._pending and self.step == self.readings[-1].step:
            number = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
            self.readings[-1] = replace(self.readings[-1], loss=number)
            self._hand_on()

    def close(self) -> None:
        """Take the hooks off and close the writers. The readings stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._hand_on()
        for writer in self._writers:
            writer.close()
        self._writers = ()

    # ------------------------------------------------------------------ reading
    @property
    def frame(self) -> pd.DataFrame:
        """One row per measured step, layer and head: step, loss, path, layer, head, and the quantities of `LayerHealth`."""
        return pd.concat([r.table() for r in self.readings], ignore_index=True) if self.readings else pd.DataFrame()

    def plot(self, **options: object) -> Any:
        """Entropy of every layer over steps beside loss, logit norms and alarms, as a plotly figure."""
        return plot("entropy.monitor", self, **options)

    def view(self, **options: object) -> Any:
        """Entropy of every head over steps beside loss and alarms: a notebook widget that follows the training, at every `refresh`-th reading."""
        return view("entropy.monitor", self, **options)

    def on_reading(self, listener: Callable[[Reading], None]) -> None:
        """Call `listener` with each reading, as soon as its loss is known or the next step is measured."""
        self._listeners.append(listener)

    # ------------------------------------------------------------------ inside
    def _before(self, module: nn.Module, args: object) -> None:
        if not (module.training and torch.is_grad_enabled()) or self._open is not None:
            return
        if self._counts:
            self.next_step(self.step + 1)
        if self._next >= 0:
            self._open = ExitStack()
            self._open.enter_context(self.measuring(self._next))
            self._next = -1

    def _after(self, module: nn.Module, args: object, out: Any) -> None:
        if self._open is None:
            return
        opened, self._open = self._open, None
        if out is None:  # the forward raised: nothing is read, and its own error goes on
            failed = CaptureError("the model's forward failed")
            opened.__exit__(type(failed), failed, None)
            return
        opened.close()
        loss = out.get("loss") if isinstance(out, dict) else getattr(out, "loss", None)
        if isinstance(loss, torch.Tensor) and loss.ndim == 0:
            self.note(loss)

    def _finish(self, step: int, layers: list[LayerHealth]) -> None:
        self._hand_on()
        self.step = step
        if self._spectral and self._count % self._spectral == 0:
            layers = [self._with_norms(layer) for layer in layers]
        self._count += 1
        news = self._detector.update(step, layers)
        self.alarms += news
        for alarm in news:
            logger.warning(alarm.message)
        self.readings.append(Reading(step=step, layers=tuple(layers), alarms=tuple(news), loss=None))
        self._pending = True

    def _hand_on(self) -> None:
        """Give the last reading to writers and listeners, once."""
        if self._pending:
            self._pending = False
            for writer in self._writers:
                writer.write(self.readings[-1], self.rules)
            for listener in self._listeners:
                listener(self.readings[-1])

    def _with_norms(self, layer: LayerHealth) -> LayerHealth:
        weights = _weights(self.model.get_submodule(layer.path), len(layer.entropy))
        if weights is None:
            return layer
        with torch.no_grad():
            return replace(layer, qk_norm=qk_spectral_norm(*weights).float().cpu().numpy())

    def _warn(self, unseen: dict[str, str]) -> None:
        news = {path: why for path, why in unseen.items() if path not in self.unseen}
        self.unseen |= news
        if news:
            said = "; ".join(f"{path or 'the model'}: {why}" for path, why in list(news.items())[:3])
            more = f" (and {len(news) - 3} more, see monitor.unseen)" if len(news) > 3 else ""
            warnings.warn(f"attention that the monitor cannot see: {said}{more}", stacklevel=2)


def _weights(module: nn.Module, heads: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """W_Q and W_K of every head, [H, width, size], where the module keeps them under names that we know."""
    if isinstance(module, nn.MultiheadAttention):
        both = (module.q_proj_weight, module.k_proj_weight)
        if module.in_proj_weight is not None:
            both = module.in_proj_weight.chunk(3)[:2]
        w_q, w_k = (w.unflatten(0, (heads, -1)).mT for w in both)
        return w_q, w_k
    found = query_key(module, heads)
    return None if found is None else found.weights()
