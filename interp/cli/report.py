"""`interp report`: writes the report of a finished scan anew, or draws scans of several models or a saved result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of a finished scan, of scans of several models, or of a result."),
    ],
) -> None:
    """Write report.html anew from the other files of the folder; needs no model."""
    from interp.batch.result import MODELS_FILE, open_scan
    from interp.results import Result, saved_kind

    if (folder / MODELS_FILE).exists():
        from interp.batch.series import open_models
        from interp.widgets.plots_batch import write_models_report

        print(write_models_report(open_models(folder)))
        return

    if saved_kind(folder) is not None:
        path = folder / "report.html"
        Result.load(folder).plot().write_html(path, include_plotlyjs=True)
        print(path)
        return
    from interp.display import write_report

    print(write_report(open_scan(folder).folder))
