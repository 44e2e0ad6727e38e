"""`interp sinks report MODEL --out DIR`: attention sinks on natural, random and repeated tokens."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from interp.cli.analysis import analysis
from interp.cli.counting import Count
from interp.cli.options import one_of


@analysis("sinks")
def report(
    model: Any,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of each sequence (64 in the paper).")] = 64,
    count: Annotated[int, typer.Option("--sequences", help="Sequences of each kind (100 in the paper).")] = 100,
    long_tokens: Annotated[int, typer.Option("--long-tokens", help="Tokens of the one long text.")] = 1024,
    form: Annotated[
        str, typer.Option("--form", help="Rule for sinks behind the first token: paper or code.")
    ] = "paper",
    seed: int = 0,
    progress: Count | None = None,
) -> Any:
    """Attention sinks of each head: Sink_1 on natural text, control on random tokens (Gu et al. 2025)."""
    from interp.sinks.detect import Form
    from interp.sinks.report import report as measure

    chosen = one_of(form, get_args(Form), "--form")
    return measure(
        model, tokens=tokens, count=count, long_tokens=long_tokens, form=chosen, seed=seed, progress=progress
    )


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Attention sinks.")


@app.callback()
def _sinks() -> None:
    """Attention sinks: where attention rests that has nowhere to go."""


app.command()(report)
