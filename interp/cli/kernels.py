"""`interp kernels`: which attention kernels this machine has."""

from __future__ import annotations

from typing import Annotated

import typer

from interp.cli.console import complain, say


def kernels(
    build: Annotated[
        bool, typer.Option("--build", help="Compile the C++ kernels now, where that is still to be done.")
    ] = False,
) -> None:
    """Say which kernel backends work here, and why others do not."""
    if build:
        from interp_kernels.build import ready

        ok, reason = ready(say)
        if not ok:
            complain(f"error: {reason}")
            raise typer.Exit(1)
    from interp_kernels.status import status

    print(status())
