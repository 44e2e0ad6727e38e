"""`Bench`: a model, and texts and tasks to try edits on: one at a time, on a thread of its own, that says how far it is and can be stopped."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch.utils.hooks import RemovableHandle

from interp.errors import InterpError, OptionError
from interp.interventions.answers import BATCH, equal_lengths
from interp.interventions.effects import answer_effects, text_effects
from interp.interventions.saved import to_json
from interp.models.blocks import decoder_blocks
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.prompt import Prompt
from interp.widgets.views.compare_source import Comparison
from interp.widgets.views.compare_source import serve as serve_comparison
from interp.widgets.views.compare_view import compare_payload
from interp.widgets.views.comparisons import comparison, difference, recipe
from interp.widgets.views.edit_choices import CHOICES, Chosen, code, interventions, read_choice
from interp.widgets.views.protocol import Reply, answer, readable
from interp.widgets.views.task_choices import TASKS, task_prompts

logger = logging.getLogger(__name__)


class _Stopped(Exception):
    """The reader does not want it any more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What an edit did.

    Attributes:
        effect: metrics of the texts or answers beside random heads, result "interventions.text_effects" or "interventions.answer_effects".
        comparison: the same metrics, and the change of every statistic of every head on the first text or prompt.
        code: Python that does the same.
        on: what it was measured on, in a few words.
        task: the task of its prompts, None for texts.
    """

    effect: Result
    comparison: Comparison
    code: str
    on: str
    task: str | None


class Bench:
    """Where edits are tried.

    Args:
        model: a decoder.
        texts: token ids of each text.
        prompts: of a task, at most.
        files: calibration files by the name that the reader sees.
        draws: random sets of heads for the control.
        seed: of the draws and the bootstrap.

    Attributes:
        outcome: of the last edit that finished, None before.
    """

    def __init__(
        self,
        model: HookedModel,
        texts: Sequence[Sequence[int]],
        *,
        prompts: int,
        files: Mapping[str, Path],
        draws: int,
        seed: int,
    ) -> None:
        self.model, self.texts, self.files = model, [[int(i) for i in ids] for ids in texts], dict(files)
        self.prompts, self.draws, self.seed = prompts, draws, seed
        self.outcome: Outcome | None = None
        self._state, self._words = "idle", ""
        self._done, self._total = 0, 1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> dict[str, Any]:
        """How far it is: state ("idle", "running", "done", "failed", "stopped"), the share that is done, and words."""
        return {"state": self._state, "share": min(1.0, self._done / self._total), "words": readable(self._words)}

    @property
    def of_texts(self) -> str:
        """The texts in a few words."""
        texts, tokens = len(self.texts), sum(map(len, self.texts))
        return f"{texts} text{'s' if texts > 1 else ''} of {tokens:,} tokens"

    def start(self, chosen: Chosen) -> None:
        """Try an edit. Returns at once. Raises OptionError while another one is under way."""
        if self._state == "running":
            raise OptionError("an edit is being tried already; wait for it or cancel it")
        self._state, self._words, self._done = "running", "", 0
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, args=(chosen,), name="interp-intervene", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop what is under way, before the next layer of the next pass."""
        self._stop.set()

    def wait(self, seconds: float | int | None = None) -> None:
        """Wait until nothing is under way."""
        if self._thread is not None:
            self._thread.join(seconds)

    def measure(self, chosen: Chosen) -> Outcome:
        """Try an edit here and now."""
        model, draws, seed = self.model, self.draws, self.seed
        asked = None if chosen.task is None else task_prompts(chosen.task, model, count=self.prompts, seed=seed)
        self._total = model.layers * self._passes(chosen, asked)
        first = self.texts[0] if asked is None else list(asked[0].ids)
        edits = interventions(chosen, self.files, model, first)
        measure = partial(text_effects, texts=self.texts) if asked is None else partial(answer_effects, prompts=asked)
        effect = measure(model, edits, draws=draws, seed=seed)
        before = model.run(first, logits="none", keep="none")
        with model.edit(*edits):
            after = model.run(first, logits="none", keep="none")
        both = replace(
            difference(before, after),
            effects=comparison(effect).effects,
            control=str(effect.manifest["controls"]),
            interval="95 % interval",
            note=""
            if asked is None and len(self.texts) < 2
            else f"The map of heads is of the first {'text' if asked is None else 'prompt'}.",
            recipe=recipe(
                effect.manifest, kind=effect.kind, interventions=to_json(edits) if not chosen.needs_means else None
            ),
        )
        said = code(chosen, self.files, model=model, texts=self.texts, prompts=self.prompts, draws=draws, seed=seed)
        on = self.of_texts if asked is None else f"{len(asked)} prompts of {chosen.task}"
        return Outcome(effect=effect, comparison=both, code=said, on=on, task=chosen.task)

    def _passes(self, chosen: Chosen, asked: Sequence[Prompt] | None) -> int:
        """Passes through the model: base, edited and draws; two runs and the proof of the readout (2); the means."""
        units = len(self.texts) if asked is None else len(list(equal_lengths(asked, BATCH)))
        return units * (2 + self.draws) + 4 + int(chosen.needs_means)

    def _work(self, chosen: Chosen) -> None:
        handles: list[RemovableHandle] = []
        try:
            blocks = decoder_blocks(self.model)
            handles = [block.register_forward_pre_hook(self._tick(threading.get_ident())) for block in blocks]
            self.outcome = self.measure(chosen)
            self._state = "done"
        except _Stopped:
            self._state, self._words = "stopped", "cancelled; nothing was changed"
        except InterpError as error:
            self._state, self._words = "failed", str(error)
        except Exception as error:  # the reader waits for words, whatever went wrong here
            logger.exception("an edit could not be tried")
            self._state, self._words = "failed", f"{type(error).__name__}: {error}"
        finally:
            for handle in handles:
                handle.remove()

    def _tick(self, mine: int) -> Any:
        """A hook that counts this thread's layers and stops them; passes of other threads go by untouched."""

        def hook(*_: object) -> None:
            if threading.get_ident() == mine:
                self._done += 1
                if self._stop.is_set():
                    raise _Stopped

        return hook


def choices(files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What the page offers: each edit with its fields, then the calibration files."""
    offered: list[dict[str, Any]] = []
    for name, choice in CHOICES.items():
        fields = [
            {"name": f.name, "label": f.label, "value": f.default, "choices": list(f.choices), "low": f.low}
            | {"high": None if math.isinf(f.high) else f.high, "step": 1 if f.whole else "any"}
            for f in choice.fields
        ]
        offered.append({"name": name, "title": choice.title, "fields": fields})
    return offered + [{"name": name, "title": f"calibration file: {readable(name)}", "fields": None} for name in files]


def grounds(bench: Bench) -> list[dict[str, Any]]:
    """What edits can be tried on: the texts, then, where the model has a tokenizer, each task."""
    tasks = () if bench.model.tokenizer is None else TASKS.items()
    offered: list[dict[str, Any]] = [
        {"task": None, "title": f"this text ({bench.of_texts})" if len(bench.texts) == 1 else bench.of_texts}
    ]
    return offered + [
        {"task": name, "title": f"{bench.prompts} prompts, task {name}: {task.title}"} for name, task in tasks
    ]


# ------------------------------------------------------------------ the page's requests
def _run(bench: Bench, message: Mapping[str, Any]) -> Reply:
    bench.start(read_choice(message, bench.files, layers=bench.model.layers, heads=bench.model.heads))
    return bench.state, []


def _state(bench: Bench, message: Mapping[str, Any]) -> Reply:
    return bench.state, []


def _cancel(bench: Bench, message: Mapping[str, Any]) -> Reply:
    bench.stop()
    return bench.state, []


def _outcome(bench: Bench, message: Mapping[str, Any]) -> Reply:
    made = _finished(bench)
    said = {"payload": compare_payload(made.comparison), "code": readable(made.code)}
    return said | {"on": made.on, "task": made.task}, []


def _compare(bench: Bench, message: Mapping[str, Any]) -> Reply:
    said, buffers = serve_comparison(_finished(bench).comparison, message.get("message"))
    if "error" in said:
        raise OptionError(said["error"])
    return {name: value for name, value in said.items() if name not in ("id", "k")}, buffers


def _finished(bench: Bench) -> Outcome:
    if bench.outcome is None:
        raise OptionError("no edit has been tried yet")
    return bench.outcome


OPERATIONS: Final = {"run": _run, "state": _state, "cancel": _cancel, "outcome": _outcome, "compare": _compare}


def serve(source: Bench, message: object) -> Reply:
    """Answer the panel's page.

    `run` {edit, heads, values, task: a name, or null for the texts} begins and returns at once; `state` says how far it is; `cancel`; `outcome` is
    the payload of a CompareView, the Python that does the same, and what it was measured on; `compare` {message} answers that CompareView.
    """
    return answer(OPERATIONS, source, message)
