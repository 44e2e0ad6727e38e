"""`interp entropy MODEL --out DIR`: the entropy structure of a finished model."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from interp.cli.entropy_train import train
from interp.cli.jobs import analysis_job


class ReportUnlessNamed(TyperGroup):
    """A group whose first word may be left out: `interp entropy MODEL` is `interp entropy report MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front where none is named."""
        named = not args or args[0] in self.commands or args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if named else ["report", *args])


@analysis_job("entropy")
def report(
    tokens: Annotated[int, typer.Option("--tokens", min=8, help="Tokens of each sequence.")] = 512,
    sequences: Annotated[int, typer.Option("--sequences", min=2, help="Sequences of each kind.")] = 16,
    seed: int = 0,
) -> Any:
    """Entropy of each head: normalised per visible keys, without its sinks, against its bound; control on random tokens. A job: resumable."""
    return {"tokens": tokens, "sequences": sequences, "seed": seed}


app = typer.Typer(
    cls=ReportUnlessNamed,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Attention entropy. `interp entropy MODEL --out DIR` measures a finished model.",
)


@app.callback()
def _entropy() -> None:
    """Attention entropy. `interp entropy MODEL --out DIR` measures a finished model."""


app.command()(report)
app.command()(train)
