"""Batch jobs over large texts: resumable folders, workers, exact merging, Parquet results with a manifest and a report.

What needs torch is taken from its own module, so that results open at once: `interp.batch.scan`, `.job`, `.analysis_task`, `.series`, `.array`,
`.compare` and `.compare_results`.
"""

from __future__ import annotations

from interp.batch.endings import IncompleteJobError as IncompleteJobError
from interp.batch.endings import JobFailedError as JobFailedError
from interp.batch.engine_local import LocalEngine as LocalEngine
from interp.batch.events import Event as Event
from interp.batch.interrupt import ScanInterruptedError as ScanInterruptedError
from interp.batch.result import HeadValue as HeadValue
from interp.batch.result import ScanResult as ScanResult
from interp.batch.result import open_scan as open_scan
from interp.batch.status import JobStatus as JobStatus
from interp.batch.status import job_status as job_status
from interp.batch.task import Engine as Engine
from interp.batch.task import ModelChoice as ModelChoice
from interp.batch.task import Task as Task
from interp.batch.templates import Chat as Chat
from interp.batch.templates import Template as Template
from interp.batch.texts import Texts as Texts
from interp.batch.texts import from_corpus as from_corpus
from interp.batch.texts import from_dataset as from_dataset
from interp.batch.texts import from_file as from_file
from interp.batch.texts import sampled as sampled

__all__ = [
    "Chat",
    "Engine",
    "Event",
    "HeadValue",
    "IncompleteJobError",
    "JobFailedError",
    "JobStatus",
    "LocalEngine",
    "ModelChoice",
    "ScanInterruptedError",
    "ScanResult",
    "Task",
    "Template",
    "Texts",
    "from_corpus",
    "from_dataset",
    "from_file",
    "job_status",
    "open_scan",
    "sampled",
]
