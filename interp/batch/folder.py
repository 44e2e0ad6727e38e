"""The folder of a job: which plan it holds part of, what is finished, and what may be written there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from interp.batch.clock import now
from interp.batch.files import UNFINISHED, make_folder, read_json, write_json
from interp.batch.places import SHARDS_AT, open_place, place_for_record, recorded_place
from interp.batch.plan import plan_key, refuse_other_plan
from interp.batch.result import PARTS, PLAN
from interp.batch.task import SHARD_FILE, Task
from interp.errors import OptionError, OutputError, PlanMismatchError

Resume = Literal["auto", "require", "never"]


@dataclass(frozen=True, kw_only=True)
class JobFolder:
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
        """Where the plan, the lock and the log lie, and the shards if they are not sent elsewhere."""
        return self.folder / PARTS


def prepare(folder: Path) -> Path:
    """Make a job's folder and its folder of parts, and return the latter. Raises OutputError if that cannot be done."""
    make_folder(folder / PARTS)
    return folder / PARTS


def claim(folder: Path, task: Task[Any], resume: Resume, *, shards: bool, where: str) -> JobFolder:
    """Take a folder for a task: begin it there, or go on with what is there. Call this with the folder's lock held.

    Args:
        folder: made by `prepare`.
        task: what is to be measured.
        resume: "auto" goes on where there is something, "require" insists that there is, "never" that there is not.
        shards: whether any shard is finished; where none is there is nothing to mix, and another plan may begin.
        where: the shards go: a folder or URL.

    Raises:
        OptionError: an unknown `resume`.
        PlanMismatchError: the folder holds another plan; the message names what differs.
        OutputError: there is nothing to resume, or something although there must not be, or the shards lie in another place.
    """
    if resume not in get_args(Resume):
        raise OptionError(f"resume must be one of {', '.join(get_args(Resume))}; got {resume!r}")
    _sweep(folder)
    plan = task.record()
    key = plan_key(plan)
    manifest = folder / task.manifest_file
    begun = folder / PARTS / PLAN
    if begun.exists():
        keep_place(folder, where)
    there = read_json(begun) if begun.exists() else read_json(manifest) if manifest.exists() else None
    if there is not None and not shards and not manifest.exists() and there.get("key") != key:
        there = None
    if there is None:
        _refuse_foreign(folder, task.result_file)
        if resume == "require":
            raise OutputError(f"{folder} holds nothing to resume; leave out --resume (resume='require') to begin there")
        started = now()
        total, tokens = task.totals()
        facts: dict[str, Any] = {"shards": total, "tokens": tokens, "manifest": task.manifest_file}
        elsewhere = place_for_record(folder, where)
        if elsewhere is not None:
            facts[SHARDS_AT] = elsewhere
        write_json(begun, {"kind": task.kind, "key": key, "started": started, **facts, "plan": dict(plan)})
        return JobFolder(folder=folder, started=started, finished=False)
    if resume == "never":
        raise OutputError(
            f"{folder} holds a {there.get('kind', 'scan')} already, and resume='never' was asked for; choose another folder, or delete it"
        )
    if there.get("kind", "scan") != task.kind:
        raise PlanMismatchError(
            f"{folder} holds a {there.get('kind')} job, and this is a {task.kind}; choose another folder"
        )
    refuse_other_plan(_plan_of(there, folder), plan, str(folder))
    finished = manifest.exists() and (folder / task.result_file).exists() and _whole(read_json(manifest), key)
    return JobFolder(folder=folder, started=str(there.get("started", now())), finished=finished)


def keep_place(folder: Path, where: str) -> None:
    """See that shards go where those of a begun job lie, and write the place down if it has none yet. Call this with the lock held.

    Raises:
        OutputError: the job has shards in another place.
    """
    record = read_json(folder / PARTS / PLAN)
    wanted, there = place_for_record(folder, where), recorded_place(folder, record)
    if wanted == record.get(SHARDS_AT):
        return
    if any(SHARD_FILE.fullmatch(name) for name in open_place(there).names()):
        raise OutputError(
            f"the shards of the job in {folder} lie in {there}, and {where} was asked for; leave out --shards (shards=), or choose another folder"
        )
    rest = {name: value for name, value in record.items() if name != SHARDS_AT}
    write_json(folder / PARTS / PLAN, rest if wanted is None else {**rest, SHARDS_AT: wanted})


def _plan_of(record: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    plan = record.get("plan")
    if not isinstance(plan, Mapping):
        raise OutputError(f"{folder} holds a manifest or {PLAN} that no job wrote; choose another folder")
    return plan


def _whole(manifest: Mapping[str, Any], key: str) -> bool:
    """Whether a manifest is that of a finished job of this plan, with no shard set aside."""
    job = manifest.get("job", manifest)
    return job.get("key") == key and not job.get("set_aside")


def _sweep(folder: Path) -> None:
    """Remove what writers left unfinished that were killed; nobody else writes while we hold the lock."""
    for path in (*folder.glob(UNFINISHED), *(folder / PARTS).rglob(UNFINISHED)):
        path.unlink(missing_ok=True)


def _refuse_foreign(folder: Path, result: str) -> None:
    """Refuse to write over files of our names that no plan accounts for."""
    strange = [path for path in (folder / result, *sorted((folder / PARTS).glob("[0-9]*.parquet"))) if path.exists()]
    if strange:
        raise OutputError(
            f"{folder} holds {strange[0].name} but no {PLAN} that says what it is; choose another folder, or delete the file"
        )
