"""`interp heads gates | import | export`: training gates, and files in the formats of the field."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, Top, check_out, print_top
from interp.cli.console import say
from interp.cli.jobs import RESULT, check_job, run_alone
from interp.cli.options import load_model, number_list, one_of
from interp.errors import OptionError

if TYPE_CHECKING:
    from interp.batch.analysis_task import Say
    from interp.results import Result

FORMATS: Final = ("retrieval-head", "duo-attention", "minference")
Format = Annotated[str, typer.Option("--format", "-f", help="retrieval-head, duo-attention or minference.")]


def gates(
    ctx: Any,
    model: Model,
    out: Out,
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps, one prompt each (2,000 in the paper).")] = 100,
    tokens: Annotated[str, typer.Option("--tokens", help="Tokens of the prompts, with commas.")] = "1024",
    sinks: Annotated[int, typer.Option("--sinks", help="First keys that streaming sees (128 in training there).")] = 16,
    window: Annotated[int, typer.Option("--window", help="Last keys that streaming sees (256 there).")] = 64,
    full: Annotated[str, typer.Option("--full", help="What the full term is: code or paper.")] = "code",
    control: Annotated[
        bool, typer.Option("--control", help="Train once more on shuffled contexts, which fills the control column.")
    ] = False,
    seed: Seed = 0,
    top: Top = 10,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Train DuoAttention's gates, one per key-value head. A job: resumable; OUT/training holds DuoAttention's files."""
    from dataclasses import asdict, replace

    from interp.heads.duo_gates import Full, GateTraining, train_gates
    from interp.heads.published import write_gates

    training = GateTraining(
        steps=steps,
        lengths=tuple(number_list(tokens, "--tokens") or ()),
        sinks=sinks,
        window=window,
        full=one_of(full, get_args(Full), "--full"),
        seed=seed,
    )
    check_job(out, "heads.streaming", RESULT)
    hooked = load_model(model, **loading)

    def run(kept: Path, say: Say) -> Result:
        against = None
        if control:
            other = replace(training, context="shuffled")
            against = train_gates(hooked, kept / "control", other, progress=partial(say, "gates of the control"))
        return train_gates(hooked, kept / "training", training, control=against, progress=partial(say, "gates"))

    settings = {**asdict(training), "control": control}
    result = run_alone(ctx, hooked, "heads.streaming", settings, run, out=out, quiet=quiet, result=RESULT)
    write_gates(out / "training", result.arrays["gates"], {**_config(result), **asdict(training)})
    if not quiet:
        print_top(result, top)
        say(f"table, arrays and manifest lie in {out / RESULT}, DuoAttention's files in {out / 'training'}")


def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The published file (for duo-attention also its folder).")
    ],
    out: Out,
    form: Format,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the model, for the manifest; the file's if left out.")
    ] = None,
    queries_per_group: Annotated[
        int, typer.Option("--queries-per-group", help="Query heads that share a key-value head (duo-attention).")
    ] = 1,
    top: Top = 10,
    quiet: Quiet = False,
) -> None:
    """Read a file of Retrieval_Head, DuoAttention or MInference as a result that the other commands take."""
    from interp.heads import published

    said = name or file.stem
    chosen = one_of(form, FORMATS, "--format")
    if chosen == "retrieval-head":
        result = published.scores_result(published.read_scores(file), name=said)
    elif chosen == "minference":
        result = published.patterns_result(published.read_patterns(file), name=said)
    else:
        folder = file if file.is_dir() else file.parent
        result = published.gates_result(
            published.read_gates(file),
            published.read_gates_config(folder),
            name=said,
            queries_per_group=queries_per_group,
        )
    check_out(out, result.kind)
    result.save(out)
    if not quiet:
        print_top(result, top)
        say(f"read as {result.kind}: {out}")


def export_file(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a result, such as --out of the analysis.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write (duo-attention: the folder).")],
    form: Format,
) -> None:
    """Write retrieval scores, gates or patterns as Retrieval_Head, DuoAttention or MInference load them."""
    from interp.heads import published
    from interp.results import Result

    chosen = one_of(form, FORMATS, "--format")
    result = Result.load(folder)
    if chosen == "retrieval-head":
        path = published.write_scores(out, _array(result, "heads.retrieval", "score"))
    elif chosen == "minference":
        if result.kind != "heads.patterns":
            raise OptionError(f"minference holds patterns, and {folder} is a {result.kind} result")
        path = published.write_patterns(out, result.frame)
    else:
        gates = _array(result, "heads.streaming", "gates")
        path = published.write_gates(out, gates, _config(result))
    print(path)


def _config(result: Result) -> dict[str, Any]:
    """What DuoAttention's config.json says of gates: the published one, or the sizes of our training."""
    settings = result.manifest["settings"]
    return settings.get("config") or {"sink_size": settings.get("sinks"), "recent_size": settings.get("window")}


def _array(result: Result, kind: str, name: str) -> Any:
    """An array that a format holds.

    Raises:
        OptionError: the result is of another kind, or has no such array.
    """
    if result.kind != kind or name not in result.arrays:
        raise OptionError(
            f"this format holds the array {name!r} of a {kind} result; this is a {result.kind} result with {sorted(result.arrays)}"
        )
    return result.arrays[name]
