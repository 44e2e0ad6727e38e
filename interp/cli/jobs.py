"""What the commands that run jobs share: workers, running an analysis as a job, and making commands of analyses."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from interp.cli.analysis import LOADING, SHARED, Model, Out, Quiet, check_out, print_rows, print_top, with_options
from interp.cli.console import say
from interp.cli.counting import counting_parts
from interp.cli.options import load_model, one_of
from interp.cli.progress import watching
from interp.cli.remembered import folding, remembering
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.batch.analysis_task import AnalysisTask, Say
    from interp.batch.task import Engine, ModelChoice
    from interp.models.hooked import HookedModel
    from interp.results import Result

ENGINES: Final = ("local", "ray")
RESULT: Final = "result"
"""Where in its folder the result of a job lies that has other things to show beside it."""

Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that measure, each with its own model; this process alone if left out."),
]
EngineName = Annotated[str, typer.Option("--engine", help="Where workers run: local or ray.")]
Patience = Annotated[
    float | None,
    typer.Option(
        "--patience",
        help="Seconds after which a silent worker is killed and its shard tried again; for ever if left out.",
    ),
]

JOB: Final[dict[str, tuple[Any, Any]]] = {
    "workers": (Workers, None),
    "engine": (EngineName, "local"),
    "patience": (Patience, None),
    "quiet": (Quiet, False),
}
"""Options of an analysis that workers can run: option -> its annotation and default."""


def in_context(run: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function that also takes typer's context, as `ctx`.

    typer finds the parameter by its annotation, which is not the class of what it gives; hence `Any` in the functions.
    """

    def command(**given: Any) -> None:
        run(**given)

    theirs = inspect.signature(run, eval_str=True).parameters.values()
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in theirs if p.name != "ctx"]
    mine = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context), *own]
    command.__signature__ = inspect.Signature(mine)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in mine}
    command.__doc__, command.__name__ = run.__doc__, run.__name__
    return command


def worker_threads(threads: int | None, workers: int | None) -> int | None:
    """Threads of each worker: those asked for, or an equal share of the processor's.

    Raises:
        OptionError: fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise OptionError(f"--workers must be at least 1; got {workers}")
    if threads is not None or workers is None:
        return threads
    return max(1, (os.cpu_count() or 1) // workers)


def open_engine(name: str, workers: int | None, device: str, patience: float | None) -> Engine | None:
    """The engine of the command line; None measures in this process.

    Raises:
        OptionError: an unknown engine, or one that is not installed; a patience with nobody to wait for.
    """
    chosen = one_of(name, ENGINES, "--engine")
    if chosen == "ray":
        from interp.batch.engine_ray import RayEngine

        return RayEngine(workers=1 if workers is None else workers, patience=patience)
    if workers is None:
        if patience is not None:
            raise OptionError("--patience is for workers in other processes; give --workers with it")
        return None
    from interp.batch.engine_local import LocalEngine

    return LocalEngine(workers=workers, devices=_devices(device), patience=patience)


def run_analysis(
    context: Any,
    kind: str,
    settings: Mapping[str, Any],
    *,
    choices: Mapping[str, Any] | None = None,
    shown: Mapping[str, Any],
) -> Result:
    """Run an analysis as a job, with the model, folder, workers and ways of showing progress that the command was given.

    Args:
        context: of the command.
        kind: of the result, one of `interp.batch.analysis_task.ANALYSES`.
        settings: all that the numbers depend on beside the model.
        choices: what only the last step looks at.
        shown: the values of the options of `JOB` and of `interp.cli.analysis.LOADING`, MODEL and --out.

    Raises:
        InterpError: as `interp.batch.job.run_job`.
    """
    from interp.batch.analysis_task import AnalysisTask
    from interp.batch.job import run_job

    out, workers = shown["out"], shown["workers"]
    loading = {name: shown[name] for name in LOADING}
    loading["threads"] = worker_threads(loading["threads"], workers)
    engine = open_engine(shown["engine"], workers, loading["device"], shown["patience"])
    hooked = load_model(shown["model"], **loading)
    choice = model_choice(shown["model"], **{name: x for name, x in loading.items() if name != "threads"})
    own = AnalysisTask(model=hooked, analysis=kind, settings=settings, choices=choices or {}, choice=choice)
    quiet = shown["quiet"]
    if engine is None:
        return _run_here(context, own, out, quiet)
    with watching(_title(own), as_json=False, quiet=quiet) as watcher:
        return run_job(own, out, engine=engine, watch=remembering(context, out, watcher), measure=not folding(context))


def run_alone(
    context: Any,
    hooked: HookedModel,
    kind: str,
    settings: Mapping[str, Any],
    measure: Callable[[Path, Say], Result],
    *,
    out: Path,
    quiet: bool,
    result: str = "",
) -> Result:
    """Run an analysis as a job of one part, in this process; one that keeps its own finished steps goes on behind the last of them when killed.

    Args:
        context: of the command.
        hooked: the model.
        kind: of the result.
        settings: all that the numbers depend on beside the model.
        measure: (folder for the steps, say) -> the result; the folder belongs to this plan alone.
        out: folder of the job.
        quiet: show no progress.
        result: where in it the finished result is.

    Raises:
        InterpError: as `interp.batch.job.run_job`.
    """
    from interp.batch.analysis_task import AnalysisTask, alone
    from interp.batch.plan import plan_key
    from interp.batch.result import steps_folder

    def run(_model: HookedModel, say: Say) -> Result:
        return measure(steps_folder(out, plan_key(task.record())), say)

    plain = json.loads(json.dumps(settings))  # as they will be read again: no tuples
    task = AnalysisTask(model=hooked, analysis=kind, settings=plain, made=alone(run, result))
    return _run_here(context, task, out, quiet)


def _run_here(context: Any, task: AnalysisTask, out: Path, quiet: bool) -> Result:
    """Run an analysis in this process: each part counts its own steps, which says more than how many parts are done."""
    from interp.batch.analysis_task import WHOLE
    from interp.batch.job import run_job

    name = _title(task)
    with counting_parts(quiet=quiet) as count, watching(name, as_json=False, quiet=True) as watcher:

        def step(part: str, done: int, total: int) -> None:
            count(name if part == WHOLE else part, done, total)

        own = replace(task, say=step)
        return run_job(own, out, watch=remembering(context, out, watcher), measure=not folding(context))


def _title(task: AnalysisTask) -> str:
    return f"{task.kind} {task.model.source.name}"


def analysis_job(kind: str) -> Callable[[Callable[..., Mapping[str, Any]]], Callable[..., None]]:
    """Make a command of a function (options annotated by typer ..., seed) -> the settings of an analysis, which runs as a job.

    Args:
        kind: of the result, one of `interp.batch.analysis_task.ANALYSES`.
    """

    def decorate(read: Callable[..., Mapping[str, Any]]) -> Callable[..., None]:
        def run(context: Any, given: dict[str, Any], shown: dict[str, Any]) -> Result:
            return run_analysis(context, kind, read(**given), shown=shown)

        return _command(read, run, JOB)

    return decorate


def single_analysis(kind: str) -> Callable[[Callable[..., Callable[..., Result]]], Callable[..., None]]:
    """Make a command of a function (options annotated by typer ..., seed) -> what measures: (model, progress=...) -> `Result`.

    It runs as a job of one part, in this process; the values of the options are the settings of its plan. What is wrong with them the
    function says before a model is loaded.

    Args:
        kind: of the result, so that a folder that holds something else is refused before anything is measured.
    """

    def decorate(read: Callable[..., Callable[..., Result]]) -> Callable[..., None]:
        def run(context: Any, given: dict[str, Any], shown: dict[str, Any]) -> Result:
            from interp.batch.analysis_task import WHOLE

            measure = read(**given)
            out = shown["out"]
            check_job(out, kind)
            hooked = load_model(shown["model"], **{name: shown[name] for name in LOADING})

            def whole(_steps: Path, say: Say) -> Result:
                return measure(hooked, progress=lambda done, total: say(WHOLE, done, total))

            return run_alone(context, hooked, kind, given, whole, out=out, quiet=shown["quiet"])

        return _command(read, run, {"quiet": JOB["quiet"]})

    return decorate


def _command(
    own: Callable[..., Any],
    run: Callable[[Any, dict[str, Any], dict[str, Any]], Result],
    added: dict[str, tuple[Any, Any]],
) -> Callable[..., None]:
    """A command that prints the result of `run` (context, values of `own`'s options, values of the others)."""

    def command(**given: Any) -> None:
        context = given.pop("ctx")
        top, as_json = given.pop("top"), given.pop("as_json")
        shown = {name: given.pop(name) for name in ("model", "out", *LOADING, *added)}
        result = run(context, given, shown)
        if as_json:
            print_rows(result, top)
        elif not shown["quiet"]:
            print_top(result, top)
            say(f"table, arrays and manifest lie in {shown['out']}")

    empty = inspect.Parameter.empty
    first: dict[str, tuple[Any, Any]] = {
        "ctx": (typer.Context, empty),
        "model": (Model, empty),
        "out": (Out, empty),
    }
    return with_options(command, own, {**first, **SHARED, **added})


def check_job(out: Path, kind: str, result: str = "") -> None:
    """Refuse a folder that holds something other than a result of this kind, before a model is loaded; a job's own folder the job judges.

    Args:
        out: folder of the job.
        kind: of the result.
        result: where in it the finished result is.

    Raises:
        OutputError: it does.
    """
    from interp.batch.result import PARTS

    if not (out / PARTS).is_dir():
        check_out(out / result, kind)


def _devices(device: str) -> tuple[str, ...]:
    """Every device of a kind that was named without a number, so that each worker gets its own."""
    if device != "cuda":
        return ()
    import torch

    return tuple(f"cuda:{n}" for n in range(torch.cuda.device_count()))


def model_choice(
    name: str, *, dtype: str, device: str, backend: str, revision: str | None, offline: bool
) -> ModelChoice:
    """How workers load the model that this process has loaded with the same options, and as many threads."""
    import torch

    from interp.batch.task import ModelChoice

    return ModelChoice(
        name=str(Path(name).resolve()) if Path(name).exists() else name,
        threads=torch.get_num_threads(),
        dtype=dtype,
        device=device,
        backend=backend,
        revision=revision,
        offline=offline,
    )
