"""`interp sinks report | streaming MODEL --out DIR`: attention sinks by input, and what long texts cost without them."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from interp.cli.analysis import Model, Out, Quiet, Seed, loading
from interp.cli.console import print_table, say
from interp.cli.jobs import RESULT, analysis_job, check_job, in_context, run_alone
from interp.cli.options import load_model, number_list, one_of
from interp.cli.texts import read_text

if TYPE_CHECKING:
    from interp.batch.analysis_task import Say
    from interp.results import Result


@analysis_job("sinks")
def report(
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of each sequence (64 in the paper).")] = 64,
    sequences: Annotated[int, typer.Option("--sequences", help="Sequences of each kind (100 in the paper).")] = 100,
    long_tokens: Annotated[int, typer.Option("--long-tokens", help="Tokens of the one long text.")] = 1024,
    form: Annotated[
        str, typer.Option("--form", help="Rule for sinks behind the first token: paper or code.")
    ] = "paper",
    seed: int = 0,
) -> Any:
    """Attention sinks of each head: Sink_1 on natural text, control on random tokens (Gu et al. 2025). A job: resumable."""
    from interp.sinks.detect import Form

    chosen = one_of(form, get_args(Form), "--form")
    return {"tokens": tokens, "sequences": sequences, "long_tokens": long_tokens, "form": chosen, "seed": seed}


def streaming(
    ctx: Any,
    model: Model,
    out: Out,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of each piece of text.")] = 4096,
    pieces: Annotated[int, typer.Option("--pieces", help="How many pieces.")] = 8,
    size: Annotated[int, typer.Option("--size", help="Keys that every policy but full attention keeps.")] = 1024,
    sinks: Annotated[str, typer.Option("--sinks", help="How many first keys to keep, with commas.")] = "1,2,4,8",
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", "-t", help="A file with a long text, may be repeated; the corpus if left out."),
    ] = None,
    newline: Annotated[
        int | None,
        typer.Option("--newline", help="Token id that replaces the first tokens; the newline's if left out."),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    **loading: Any,
) -> None:
    """Perplexity of long texts with the first keys kept, lost or replaced (Xiao et al. 2024). A job: resumable."""
    from interp.sinks.streaming_loss import BEYOND, streaming_loss

    wanted = number_list(sinks, "--sinks") or []
    texts = [read_text(file) for file in text] if text else None
    check_job(out, "sinks.streaming", RESULT)
    hooked = load_model(model, **loading)
    settings = {
        "tokens": tokens, "pieces": pieces, "size": size, "sinks": wanted, "newline": newline, "seed": seed,
        "texts_sha256": None if texts is None else [hashlib.sha256(x.encode()).hexdigest() for x in texts],
    }  # fmt: skip

    def run(steps: Path, say: Say) -> Result:
        return streaming_loss(
            hooked,
            texts=texts,
            tokens=tokens,
            pieces=pieces,
            size=size,
            sinks=wanted,
            newline="\n" if newline is None else newline,
            seed=seed,
            folder=steps,
            progress=partial(say, "policies"),
        )

    result = run_alone(ctx, hooked, "sinks.streaming", settings, run, out=out, quiet=quiet, result=RESULT)
    if not quiet:
        table: Any = result.table[result.table["bucket"] == BEYOND]
        columns = ("policy", "perplexity", "95 % interval", "times full", "95 % interval of that")
        rows = [
            [
                r["policy"],
                f"{r['perplexity']:.4g}",
                f"{r['low']:.4g} to {r['high']:.4g}",
                f"{r['ratio']:.4g}",
                f"{r['ratio_low']:.4g} to {r['ratio_high']:.4g}",
            ]
            for r in table.to_dict("records")
        ]
        title = f"{hooked.source.name}: perplexity of rows {size} to {tokens - 2}, {pieces} pieces"
        print_table(title, columns, rows, numbers=columns[1:])
        say(f"table by position, arrays and manifest lie in {out / RESULT}")


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Attention sinks.")


@app.callback()
def _sinks() -> None:
    """Attention sinks: where attention rests that has nowhere to go."""


app.command()(report)
app.command()(in_context(loading(streaming)))
