"""Tasks with known answers as the command line names them: prompts in a model's own tokens, with what a tool needs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from interp.cli.console import say
from interp.errors import InputDataError

if TYPE_CHECKING:
    from interp.models.hooked import HookedModel
    from interp.tasks.prompt import Prompt


def _ioi(tokenizer: Any, **given: Any) -> list[Prompt]:
    from interp.tasks.ioi import prompts

    return prompts(tokenizer, **given)


def _greater_than(tokenizer: Any, **given: Any) -> list[Prompt]:
    from interp.tasks.greater_than import prompts

    return prompts(tokenizer, **given)


def _coloured_objects(tokenizer: Any, **given: Any) -> list[Prompt]:
    from interp.tasks.coloured_objects import prompts

    return prompts(tokenizer, **given)


def _succession(tokenizer: Any, **given: Any) -> list[Prompt]:
    from interp.tasks.succession import prompts

    return prompts(tokenizer, **given)


TASKS: Final[Mapping[str, Callable[..., list[Prompt]]]] = {
    "ioi": _ioi,
    "greater-than": _greater_than,
    "coloured-objects": _coloured_objects,
    "succession": _succession,
}
"""Name -> function (tokenizer, samples, bos, seed) -> prompts."""
Task = Annotated[str, typer.Option("--task", help=f"What is asked: {', '.join(TASKS)}.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Prompts to make; of each of its lists for succession.")]
Bos = Annotated[
    bool | None, typer.Option("--bos/--no-bos", help="First token of the prompts; as the tokenizer does if left out.")
]


def task_prompts(
    model: HookedModel, task: str, *, samples: int, bos: bool | None, seed: int, needs: tuple[str, ...] = ()
) -> list[Prompt]:
    """The prompts of a task that have what is needed ("corrupt", "wrong").

    Raises:
        InputDataError: a model without a tokenizer, or no prompt has it.
    """
    if model.tokenizer is None:
        raise InputDataError("the tasks are text, and this model came without a tokenizer")
    made = TASKS[task](model.tokenizer, samples=samples, bos=bos, seed=seed)
    fit = [p for p in made if all(getattr(p, name) is not None for name in needs)]
    if "wrong" in needs:
        fit = [p for p in fit if p.wrong and p.wrong[0] != p.answer[0]]
    if not fit:
        raise InputDataError(f"no prompt of {task} has {' and '.join(needs)} under this tokenizer; take another task")
    if len(fit) < len(made):
        say(f"{len(made) - len(fit)} of {len(made)} prompts are left out: no {' or no '.join(needs)} that fits")
    return fit
