"""`interp kernels`: which attention kernels this machine has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from interp.cli.console import print_json, print_table, say


def kernels(
    build: Annotated[
        bool, typer.Option("--build", help="Compile the C++ kernels now, where that is still to be done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one backend per line as JSON.")] = False,
) -> None:
    """Say which kernel backends work here, fastest first, and why others do not."""
    from interp_kernels import status

    failed = build and not status.build(say).works
    found = status.status()
    if as_json:
        for backend in found:
            print_json(asdict(backend))
    else:
        rows = []
        for b in found:
            details = "\n".join(f"{name}: {value}" for name, value in b.details.items())
            rows.append([b.backend, "works" if b.works else f"no: {b.reason}", b.summary, details])
        print_table("Attention kernels", ("backend", "here", "what it is", "details"), rows, multiline=("details",))
    if failed:
        raise typer.Exit(1)
