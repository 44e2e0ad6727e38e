"""`interp job status | resume | merge DIR`: jobs by their folders, of one model or of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from interp.cli.console import print_json, print_table, say
from interp.cli.jobs import Patience, Workers, in_context
from interp.cli.remembered import FOLDING, command_again
from interp.errors import CorruptFileError, OptionError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the job, its --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
FAILURES = 20
NOT_BEGUN = "not begun"


def status(folder: Folder, as_json: Json = False) -> None:
    """Say how far a job is, which shards failed, and why."""
    from interp.batch.result import MODELS_FILE
    from interp.batch.status import job_status

    if (folder / MODELS_FILE).exists():
        _print_models(folder, as_json)
        return
    found = job_status(folder)
    if as_json:
        print_json(found.record())
        return
    rows = [
        ["job", found.kind],
        ["model", (found.plan.get("model") or {}).get("name", "?")],
        ["state", found.state if found.process is None else f"{found.state} (process {found.process})"],
        ["begun", found.started],
        ["finished shards", _of(found.shards, found.shards_total)],
        *([["finished evaluations", found.evaluations]] if found.evaluations else []),
        ["shards with split batches", found.splits],
        ["failed attempts", len(found.failures)],
    ]
    print_table(str(folder), ("", ""), rows)
    if found.failures:
        columns = ("shard", "attempt", "set aside", "worker", "time", "error")
        last = [
            [f.shard, f.attempt, "yes" if f.set_aside else "", f.worker if f.worker >= 0 else "", f.time, f.error]
            for f in found.failures[-FAILURES:]
        ]
        print_table(f"last {len(last)} failed attempts", columns, last, numbers=columns[:2])
    if found.state in ("stopped", "incomplete"):
        say(f"`interp job resume {folder}` goes on with it")


def _print_models(folder: Path, as_json: bool) -> None:
    """A line for the job of each model, and one for all."""
    from interp.batch.status import common_state, models_status

    jobs = models_status(folder)
    state, begun = common_state(jobs.values()), [job for job in jobs.values() if job is not None]
    shards, failures = sum(job.shards for job in begun), sum(len(job.failures) for job in begun)
    totals = [None if job is None else job.shards_total for job in jobs.values()]
    total = None if None in totals else sum(n for n in totals if n is not None)
    if as_json:
        for label, job in jobs.items():
            print_json({"model": label, **({"state": NOT_BEGUN} if job is None else job.record())})
        print_json({"models": len(jobs), "state": state, "shards": shards, "shards_total": total, "failures": failures})
        return
    rows: list[list[object]] = [
        [
            label,
            *(
                [NOT_BEGUN, "", ""]
                if job is None
                else [job.state, _of(job.shards, job.shards_total), len(job.failures)]
            ),
        ]
        for label, job in jobs.items()
    ]
    rows.append([f"all {len(jobs)}", state, _of(shards, total), failures])
    columns = ("model", "state", "finished shards", "failed attempts")
    print_table(str(folder), columns, rows, numbers=columns[2:])
    if state in ("stopped", "incomplete"):
        say(
            f"`interp job resume {folder}` goes on with all of them; `interp job status {folder}/model=NAME` says more of one"
        )


def _of(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done} of {total}"


def resume(
    ctx: Any,
    folder: Folder,
    workers: Workers = None,
    patience: Patience = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the command that began a job again: finished shards are kept, those set aside are tried anew."""
    given = {name: x for name, x in (("workers", workers), ("patience", patience)) if x is not None}
    _again(ctx, folder, {"as_json": as_json, "quiet": quiet}, given, fold=False)


def merge(ctx: Any, folder: Folder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make the result of the shards that are finished, and measure nothing. Exit code 3 if some are missing."""
    _again(ctx, folder, {"as_json": as_json, "quiet": quiet}, {}, fold=True)


def _again(ctx: Any, folder: Path, shown: dict[str, Any], given: dict[str, Any], *, fold: bool) -> None:
    """Run a job's command with other ways of showing progress, where it has them, and other options."""
    words, options = command_again(folder)
    ctx.meta[FOLDING] = fold
    command: Any = ctx.find_root().command
    for word in words:
        command = command.commands.get(word) if isinstance(command, TyperGroup) else None
        if command is None:
            raise CorruptFileError(f"{folder} was begun by `interp {' '.join(words)}`, and there is no such command")
    known = {parameter.name for parameter in command.params}
    strange = sorted(set(options) - known)
    if strange:
        raise OptionError(
            f"`interp {' '.join(words)}` has no option {', '.join(strange)} any more; run the command itself with --out {folder}"
        )
    unfit = sorted(set(given) - known)
    if unfit:
        raise OptionError(f"the job was begun by `interp {' '.join(words)}`, which has no --{unfit[0]}; leave it out")
    command.callback(**{**options, **{name: value for name, value in shown.items() if name in known}, **given})


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Jobs, by the folders of their results.")


@app.callback()
def _job() -> None:
    """Jobs, by the folders of their results: how far they are, going on, merging what is there."""


app.command()(status)
app.command()(in_context(resume))
app.command()(in_context(merge))
