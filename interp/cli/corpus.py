"""`interp corpus`: the size of the text that every machine has."""

from __future__ import annotations

from typing import Annotated

import typer

from interp.cli.console import print_json, print_table, say


def corpus(
    model: Annotated[str | None, typer.Option("--model", help="Count tokens with this model's tokenizer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one row per line as JSON.")] = False,
) -> None:
    """Describe the text that comes with Python: documents, characters and tokens of each part and of the held-out split."""
    from interp.tasks.corpus import describe

    tokenizer = None
    if model is not None:
        from interp.models.load import read

        tokenizer = read(model).tokenizer
    frame = describe(tokenizer)
    if as_json:
        for record in frame.to_dict("records"):
            print_json({str(name): value for name, value in (*record.items(), *frame.attrs.items())})
        return
    rows = [
        [f"{cell:,}" if isinstance(cell, int) else cell for cell in row]
        for row in frame.astype(object).itertuples(index=False)
    ]
    numbers = [name for name in frame.columns if name not in ("part", "split")]
    print_table(f"Text that comes with Python {frame.attrs['python']}", list(frame.columns), rows, numbers=numbers)
    say(f"sha256 of names and texts: {frame.attrs['sha256']}")
