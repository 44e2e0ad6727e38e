"""The command `interp`: subcommands, exit codes, and errors in one sentence.

Results go to standard output, everything for the person at the keyboard to standard error. Exit codes: 0 done (or done already), 1 failed,
2 wrong usage, 3 a job is done but for some shards, 130 interrupted (the same command goes on from there). torch is imported inside the
commands that need it, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from interp.cli.calibrate import calibrate
from interp.cli.circuits import app as circuits
from interp.cli.compare import compare
from interp.cli.console import complain
from interp.cli.corpus import corpus
from interp.cli.demo import demo
from interp.cli.effects import effects
from interp.cli.entropy import app as entropy
from interp.cli.explain import explain
from interp.cli.heads import app as heads
from interp.cli.job import app as job
from interp.cli.kernels import kernels
from interp.cli.models import models
from interp.cli.report import report
from interp.cli.sae import app as sae
from interp.cli.scan import scan
from interp.cli.show import show
from interp.cli.sinks import app as sinks
from interp.cli.stats import stats
from interp.errors import InterpError, OptionError

FAILED = 1
WRONG_USAGE = 2
IN_PART = 3
INTERRUPTED = 130


class Commands(TyperGroup):
    """The subcommands, with the one place where errors become a sentence and an exit code."""

    def invoke(self, ctx: Any) -> object:
        """Run a subcommand; with --debug errors keep their traceback."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt as error:
            complain(str(error) or "stopped; what is finished is kept")
            raise typer.Exit(INTERRUPTED) from error
        except InterpError as error:
            if ctx.params.get("debug"):
                raise
            complain(f"error: {error}")
            raise typer.Exit(_exit_code(error)) from error
        except RuntimeError as error:
            from interp_kernels.dispatch import BackendError  # imports torch, which whatever failed has imported before

            if not isinstance(error, BackendError) or ctx.params.get("debug"):
                raise
            complain(f"error: {error}")
            raise typer.Exit(FAILED) from error


def _exit_code(error: InterpError) -> int:
    from interp.batch.endings import IncompleteJobError

    if isinstance(error, OptionError):
        return WRONG_USAGE
    return IN_PART if isinstance(error, IncompleteJobError) else FAILED


def _version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(version("interp"))
        raise typer.Exit()
    return wanted


app = typer.Typer(
    name="interp",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _interp(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exact attention statistics of every head of a transformer, in O(N) memory."""


for _command in (scan, demo, show, report, models, stats, corpus, kernels, calibrate, effects, explain, compare):
    app.command()(_command)
app.add_typer(circuits, name="circuits")
app.add_typer(entropy, name="entropy")
app.add_typer(heads, name="heads")
app.add_typer(job, name="job")
app.add_typer(sae, name="sae")
app.add_typer(sinks, name="sinks")


def main() -> None:
    """Run the command line and exit with its code."""
    app(prog_name="interp")
