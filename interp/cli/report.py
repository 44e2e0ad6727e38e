"""`interp report`: writes the report of a finished scan anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished scan.")]) -> None:
    """Write report.html anew from the other files of a scan's folder; needs no model."""
    from interp.batch.result import open_scan
    from interp.display import write_report

    print(write_report(open_scan(folder).folder))
