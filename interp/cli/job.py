"""`interp job status | resume | merge DIR`: jobs by their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from interp.cli.console import print_json, print_table, say
from interp.cli.jobs import FOLDING, Workers, command_again, in_context
from interp.errors import CorruptFileError, OptionError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the job, its --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
FAILURES = 20


def status(folder: Folder, as_json: Json = False) -> None:
    """Say how far a job is, which shards failed, and why."""
    from interp.batch.status import job_status

    found = job_status(folder)
    if as_json:
        print_json(found.record())
        return
    total = "" if found.shards_total is None else f" of {found.shards_total}"
    rows = [
        ["job", found.kind],
        ["model", (found.plan.get("model") or {}).get("name", "?")],
        ["state", found.state if found.process is None else f"{found.state} (process {found.process})"],
        ["begun", found.started],
        ["finished shards", f"{found.shards}{total}"],
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


def resume(
    ctx: Any,
    folder: Folder,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the command that began a job again: finished shards are kept, those set aside are tried anew."""
    _again(ctx, folder, {"as_json": as_json, "quiet": quiet, **({} if workers is None else {"workers": workers})})


def merge(ctx: Any, folder: Folder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make the result of the shards that are finished, and measure nothing. Exit code 3 if some are missing."""
    ctx.meta[FOLDING] = True
    _again(ctx, folder, {"as_json": as_json, "quiet": quiet})


def _again(ctx: Any, folder: Path, instead: dict[str, Any]) -> None:
    words, options = command_again(folder)
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
    command.callback(**{**options, **{name: value for name, value in instead.items() if name in known}})


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Jobs, by the folders of their results.")


@app.callback()
def _job() -> None:
    """Jobs, by the folders of their results: how far they are, going on, merging what is there."""


app.command()(status)
app.command()(in_context(resume))
app.command()(in_context(merge))
