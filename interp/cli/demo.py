"""`interp demo`: the main job on the embedded default model and the documentation that comes with Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import load_model
from interp.cli.progress import watching
from interp.cli.summary import print_summary

MODEL = "smollm2-135m"
CONTEXT = 2048
TOKENS = 10 * CONTEXT


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("runs/demo"),
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens to measure.")] = TOKENS,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of torch.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False,
) -> None:
    """Scan real English text with the embedded model, and write a report. Started again, it goes on where it stopped."""
    from interp.batch.scan import scan
    from interp.batch.texts import from_corpus

    model = load_model(MODEL, dtype="float32", device="cpu", backend="auto", threads=threads)
    with watching(f"scan {MODEL}", as_json=as_json, quiet=quiet) as watcher:
        result = scan(
            model,
            from_corpus("topics"),
            out=out,
            context=CONTEXT,
            max_tokens=max_tokens,
            shard=2,
            join=True,
            progress=watcher,
        )
    if not as_json and not quiet:
        print_summary(result)
