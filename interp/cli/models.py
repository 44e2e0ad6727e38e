"""`interp models`: the models that a name on this machine stands for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from interp.cli.console import print_json, print_table


def models(as_json: Annotated[bool, typer.Option("--json", help="Print one model per line as JSON.")] = False) -> None:
    """List the models that can be named: embedded ones, those in the Hugging Face cache, and tiny ones for trying things out."""
    from interp.models.available import available_models

    found = available_models()
    if as_json:
        for model in found:
            print_json(asdict(model))
        return
    rows = [[m.name, m.kind, m.state, "" if m.bytes is None else f"{m.bytes / 1e6:,.0f} MB", m.note] for m in found]
    print_table(
        "Models on this machine; any hub id, folder or .gguf file works too",
        ("name", "kind", "state", "size", "note"),
        rows,
        numbers=("size",),
    )
