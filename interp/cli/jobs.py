"""What the commands that run jobs share: workers, what `interp job resume` needs to run a command again, and the words about shards.

A job's folder keeps the command that began it (`parts/command.json`; `command.json` for several models): the values of its options, with files and
folders as paths relative to the job's folder. The plan beside it says what is measured, and never where.
"""

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
from interp.errors import CorruptFileError, OptionError, OutputError

if TYPE_CHECKING:
    from interp.batch.analysis_task import Analysis
    from interp.batch.events import Event, Watcher
    from interp.batch.task import Engine, ModelChoice
    from interp.results import Result

COMMAND: Final = "command.json"
FOLDING: Final = "interp.folding"
"""Key of the click context's `meta` that `interp job` sets when it runs a command again: whether nothing is to be measured."""
OUT: Final = "out"
NAMES: Final = ("model", "others", "dataset")
"""Options that are names or paths, whichever there is."""
PLACES: Final = ("shards",)
"""Options that are URLs or paths of folders, which need not be there yet."""
HERE_FROM: Final = "./"
"""What a kept path among them begins with, which no other name does."""
ENGINES: Final = ("local", "ray")

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
HERE: Final[dict[str, Any]] = {"workers": None, "engine": "local", "patience": None}
"""Their values where no workers can run it."""


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


def folding(context: Any) -> bool:
    """Whether the command at hand is to fold what is there, and measure nothing."""
    return bool(context.meta.get(FOLDING))


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
    made: Analysis | None = None,
) -> Result:
    """Run an analysis as a job, with the model, folder, workers and ways of showing progress that the command was given.

    Args:
        context: of the command.
        kind: of the result.
        settings: all that the numbers depend on beside the model.
        choices: what only the last step looks at.
        shown: the values of the options of `JOB` and of `interp.cli.analysis.LOADING`, MODEL and --out.
        made: how it is made; None for one of `interp.batch.analysis_task.ANALYSES`.

    Raises:
        InterpError: as `interp.batch.job.run_job`.
    """
    from interp.batch.analysis_task import WHOLE, AnalysisTask
    from interp.batch.job import run_job

    out, workers = shown["out"], shown["workers"]
    loading = {name: shown[name] for name in LOADING}
    loading["threads"] = worker_threads(loading["threads"], workers)
    engine = open_engine(shown["engine"], workers, loading["device"], shown["patience"])
    hooked = load_model(shown["model"], **loading)
    choice = model_choice(shown["model"], **{name: x for name, x in loading.items() if name != "threads"})
    own = AnalysisTask(model=hooked, analysis=kind, settings=settings, choices=choices or {}, choice=choice, made=made)
    name = f"{kind} {hooked.source.name}"
    quiet, measure = shown["quiet"], not folding(context)
    if engine is None:
        # In this process each part counts its own steps, which says more than how many parts are done.
        with counting_parts(quiet=quiet) as count, watching(name, as_json=False, quiet=True) as watcher:

            def step(part: str, done: int, total: int) -> None:
                count(name if part == WHOLE else part, done, total)

            own = replace(own, say=step)
            return run_job(own, out, watch=remembering(context, out, watcher), measure=measure)
    with watching(name, as_json=False, quiet=quiet) as watcher:
        return run_job(own, out, engine=engine, watch=remembering(context, out, watcher), measure=measure)


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
            from interp.batch.analysis_task import whole

            measure = read(**given)
            if not (shown["out"] / "parts").is_dir():  # a job's folder is judged by the job
                check_out(shown["out"], kind)
            return run_analysis(context, kind, given, shown={**HERE, **shown}, made=whole(measure, {}))

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


def remembering(context: Any, out: Path, watcher: Watcher) -> Watcher:
    """A watcher that also keeps the command at hand in the job's folder (`out`), once the job has taken the folder."""
    if FOLDING in context.meta:
        return watcher  # it is the one that is kept there
    words, given = context.command_path.split()[1:], dict(context.params)

    def watch(event: Event) -> None:
        if event.kind == "plan":
            _keep(out, event.key, words, given)
        watcher(event)

    return watch


def command_again(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The words and options of the command that began a job, with `folder` as where its results go.

    Raises:
        OutputError: the folder holds no job that a command began.
        CorruptFileError: the file is damaged.
    """
    path = _command_file(folder)
    if not path.exists() and _command_file(folder.parent) == folder.parent / COMMAND:
        raise OutputError(f"{folder} is that of one of several models; give the folder of all of them, {folder.parent}")
    if not path.exists():
        raise OutputError(
            f"{folder} holds no job that a command began ({path.relative_to(folder)} is missing); call the same Python function again to go on"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files = {name: Path(os.path.normpath(folder / relative)) for name, relative in record["files"].items()}
        named = {name: _each(value, lambda x: _found(x, folder)) for name, value in record["named"].items()}
        options = record["options"] | named | files
        return list(record["words"]), options | {OUT: folder}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{path.name} cannot be read ({error}); run the command that began the job again"
        ) from error


def _command_file(folder: Path) -> Path:
    """Where the command of a job is kept, or of the jobs of several models."""
    from interp.batch.result import MODELS_FILE, PARTS

    return folder / COMMAND if (folder / MODELS_FILE).exists() else folder / PARTS / COMMAND


def _keep(out: Path, key: str, words: list[str], given: Mapping[str, Any]) -> None:
    """Write the command, whole or not at all, unless one that began the same plan is there."""
    from interp.batch.files import read_json, write_json

    path = _command_file(out)
    if path.exists() and read_json(path).get("key") == key:
        return
    files = {name: value for name, value in given.items() if isinstance(value, Path) and name != OUT}
    named = {name: _each(given[name], lambda x: _named(x, out)) for name in NAMES if given.get(name)}
    places = {name: str(given[name]).removeprefix("file://") for name in PLACES if given.get(name)}
    named |= {name: x if "://" in x else _relative(x, out) for name, x in places.items()}
    rest = {name: value for name, value in given.items() if name not in {OUT, *files, *named}}
    paths = {name: os.path.relpath(value, out) for name, value in files.items()}
    write_json(path, {"key": key, "words": words, "files": paths, "named": named, "options": rest})


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """A changed text, or a list of them."""
    return change(value) if isinstance(value, str) else [change(one) for one in value]


def _named(name: str, out: Path) -> str:
    return _relative(name, out) if os.path.exists(name) else name


def _relative(path: str, out: Path) -> str:
    return f"{HERE_FROM}{os.path.relpath(path, out)}"


def _found(name: str, folder: Path) -> str:
    return os.path.normpath(folder / name) if name.startswith(HERE_FROM) else name
