"""`report.html`: a scan's statistics of every head, as one self-contained page that needs no network, no server and no Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.batch.files import write_file
from interp.batch.result import REPORT, open_scan
from interp.maps.thumbnail import Thumbnail, load_thumbnails
from interp.widgets.page import build_page
from interp.widgets.payload import report_data

MAPS = Path("parts") / "maps"
WEB = Path(__file__).resolve().parent / "web"
MODULES = ("dom", "data", "state", "about", "grid", "multiples", "inspector", "ranking", "maps", "main")


def write_report(folder: Path) -> Path:
    """Write `report.html` from the other files of a finished scan's folder.

    Returns:
        The page's path.

    Raises:
        OutputError: the folder holds no finished scan, or cannot be written.
        CorruptFileError: one of its files is damaged.
    """
    scan = open_scan(folder)
    page = report_page(scan.frame, scan.manifest, load_thumbnails(folder / MAPS))
    write_file(folder / REPORT, lambda temporary: temporary.write_text(page, encoding="utf-8", newline="\n"))
    return folder / REPORT


def report_page(frame: pd.DataFrame, manifest: Mapping[str, Any], thumbnails: Sequence[Thumbnail] = ()) -> str:
    """The page of a table of statistics (see `payload.report_data` for the arguments)."""
    return build_page(WEB, MODULES, report_data(frame, manifest, thumbnails))
