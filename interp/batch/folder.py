"""The folder of a scan: which plan it holds part of, what is finished, and what may be written there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from interp.batch.files import make_folder, read_json, write_json
from interp.batch.plan import Plan, refuse_other_plan
from interp.batch.provenance import now
from interp.batch.result import MANIFEST, PARTS, STATS_FILE
from interp.errors import OptionError, OutputError

Resume = Literal["auto", "require", "never"]
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class ScanFolder:
    """A folder that belongs to one plan.

    Attributes:
        folder: the whole.
        started: when the plan was begun, UTC.
        finished: whether all of it is there already.
    """

    folder: Path
    started: str
    finished: bool

    @property
    def parts(self) -> Path:
        """Where the shards lie."""
        return self.folder / PARTS


def prepare(folder: Path) -> Path:
    """Make a scan's folder and its folder of parts, and return the latter. Raises OutputError if that cannot be done."""
    make_folder(folder / PARTS)
    return folder / PARTS


def claim(folder: Path, plan: Plan, resume: Resume) -> ScanFolder:
    """Take a folder for a plan: begin it there, or go on with what is there. Call this with the folder's lock held.

    Args:
        folder: made by `prepare`.
        plan: what is to be measured.
        resume: "auto" goes on where there is something, "require" insists that there is, "never" that there is not.

    Raises:
        OptionError: an unknown `resume`.
        PlanMismatchError: the folder holds another plan; the message names what differs.
        OutputError: there is nothing to resume, or something although there must not be.
    """
    if resume not in get_args(Resume):
        raise OptionError(f"resume must be one of {', '.join(get_args(Resume))}; got {resume!r}")
    manifest = folder / MANIFEST
    begun = folder / PARTS / PLAN
    there = read_json(begun) if begun.exists() else read_json(manifest) if manifest.exists() else None
    if there is None:
        _refuse_foreign(folder)
        if resume == "require":
            raise OutputError(f"{folder} holds nothing to resume; leave out --resume (resume='require') to begin there")
        started = now()
        write_json(begun, {"key": plan.key, "started": started, "plan": plan.record()})
        return ScanFolder(folder=folder, started=started, finished=False)
    if resume == "never":
        raise OutputError(
            f"{folder} holds a scan already, and resume='never' was asked for; choose another folder, or delete it"
        )
    refuse_other_plan(_plan_of(there, folder), plan.record(), str(folder))
    finished = manifest.exists() and (folder / STATS_FILE).exists() and read_json(manifest).get("key") == plan.key
    return ScanFolder(folder=folder, started=str(there.get("started", now())), finished=finished)


def _plan_of(record: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    plan = record.get("plan")
    if not isinstance(plan, Mapping):
        raise OutputError(f"{folder} holds a {MANIFEST} or {PLAN} that no scan wrote; choose another folder")
    return plan


def _refuse_foreign(folder: Path) -> None:
    """Refuse to write over files of our names that no plan accounts for."""
    strange = [
        path for path in (folder / STATS_FILE, *sorted((folder / PARTS).glob("[0-9]*.parquet"))) if path.exists()
    ]
    if strange:
        raise OutputError(
            f"{folder} holds {strange[0].name} but no {PLAN} that says what it is; choose another folder, or delete the file"
        )
