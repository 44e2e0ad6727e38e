"""The tasks that the intervention panel offers beside the reader's own text: few prompts with known answers, and the Python that makes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from interp.errors import InputDataError
from interp.models.hooked import HookedModel
from interp.tasks import coloured_objects, ioi, repeated, succession
from interp.tasks.prompt import Prompt
from interp.tasks.repeated import Repetition

PROMPTS: Final = 16
"""Prompts of a task, unless the reader says otherwise: seconds for a small model without a GPU."""


@dataclass(frozen=True, kw_only=True)
class TaskChoice:
    """A task.

    Attributes:
        title: what is asked, in a few words.
        make: its `prompts`.
        form: what is repeated, None for other tasks.
        of_each: `samples` counts prompts of each of the task's lists: one of each is made, and evenly spaced ones are kept.
    """

    title: str
    make: Callable[..., list[Prompt]]
    form: Repetition | None = None
    of_each: bool = False


TASKS: Final[Mapping[str, TaskChoice]] = MappingProxyType(
    {
        "repeated": TaskChoice(
            title="what followed before",
            make=repeated.prompts,
            form=Repetition(length=12, repeats=2),
        ),
        "ioi": TaskChoice(title="the other name", make=ioi.prompts),
        "coloured-objects": TaskChoice(title="the colour asked for", make=coloured_objects.prompts),
        "succession": TaskChoice(title="what comes next", make=succession.prompts, of_each=True),
    }
)
"""Name -> task whose answer is one right continuation."""


def task_prompts(name: str, model: HookedModel, *, count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts of a task in the model's own tokens.

    Raises:
        InputDataError: the model has no tokenizer, or the task makes no prompt in its tokens.
    """
    if model.tokenizer is None:
        raise InputDataError("the tasks are text, and this model came without a tokenizer; try the edit on token ids")
    task = TASKS[name]
    forms = () if task.form is None else (task.form,)
    made = task.make(model.tokenizer, *forms, samples=1 if task.of_each else count, seed=seed)
    if not made:
        raise InputDataError(f"the task {name} makes no prompt in this model's tokens; take another one")
    return made[:: max(1, len(made) // count)][:count]


def task_code(name: str, *, count: int, seed: int) -> tuple[str, list[str]]:
    """The import and the lines of Python that make the same `prompts` with `model`."""
    task = TASKS[name]
    names, form = "prompts as prompts_of", ""
    if task.form is not None:
        names, form = f"Repetition, {names}", f"Repetition(length={task.form.length}, repeats={task.form.repeats}), "
    lines = [f"prompts = prompts_of(model.tokenizer, {form}samples={1 if task.of_each else count}, seed={seed})"]
    if task.of_each:
        lines.append(f"prompts = prompts[:: max(1, len(prompts) // {count})][:{count}]  # evenly spaced over its lists")
    return f"from {task.make.__module__} import {names}", lines
