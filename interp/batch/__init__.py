"""Scans over large texts: resumable jobs in a folder, exact merging, Parquet results with a manifest and a report."""

from __future__ import annotations

from interp.batch.events import Event as Event
from interp.batch.interrupt import ScanInterruptedError as ScanInterruptedError
from interp.batch.result import HeadValue as HeadValue
from interp.batch.result import ScanResult as ScanResult
from interp.batch.result import open_scan as open_scan
from interp.batch.texts import Texts as Texts
from interp.batch.texts import from_corpus as from_corpus
from interp.batch.texts import from_dataset as from_dataset
from interp.batch.texts import from_file as from_file

__all__ = [
    "Event",
    "HeadValue",
    "ScanInterruptedError",
    "ScanResult",
    "Texts",
    "from_corpus",
    "from_dataset",
    "from_file",
    "open_scan",
]
