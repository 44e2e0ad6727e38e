"""`Place`: where the shards of a job lie: a folder, or whatever else `interp.batch.remote` can write to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, runtime_checkable

from interp.batch.files import make_folder, read_json, write_file
from interp.batch.result import PARTS, PLAN
from interp.errors import CorruptFileError

SHARDS_AT: Final = "shards_at"
"""Where a job's record says that its shards lie, if not in its own folder of parts. It is no part of the plan."""


@runtime_checkable
class Place(Protocol):
    """Files by name, each whole or absent; "/" in a name separates folders."""

    def names(self) -> set[str]:
        """The names of all finished files."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a finished file of this name."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all. Raises OutputError if that cannot be done."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, seekable. Raises CorruptFileError if it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True)
class LocalPlace:
    """A folder of this machine, or one that several machines share."""

    folder: Path

    def names(self) -> set[str]:
        """The names of all files but hidden ones (unfinished files and the lock are)."""
        files = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return {path.as_posix() for path in files if not path.name.startswith(".")}

    def has(self, name: str) -> bool:
        """Whether there is a finished file of this name."""
        return (self.folder / name).is_file()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        path = self.folder / name
        make_folder(path.parent)
        write_file(path, lambda temporary: temporary.write_bytes(content))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        try:
            return (self.folder / name).open("rb")
        except OSError as error:
            raise CorruptFileError(f"{name} cannot be read ({error.strerror}); run the job again") from error


def open_place(where: str) -> Place:
    """The place that a recipe names.

    Args:
        where: a folder, or the URL of one.

    Raises:
        OptionError: it is a URL of a kind that is not known.
    """
    if where.startswith("file://"):
        return LocalPlace(folder=Path(where.removeprefix("file://")))
    if "://" in where:
        from interp.batch.remote import RemotePlace  # it imports fsspec, which folders do not need

        return RemotePlace(url=where)
    return LocalPlace(folder=Path(where))


def place_of(folder: Path, asked: str | None) -> str:
    """Where the shards of a job go: where it was asked for, or else where they went when it was begun, or else its folder of parts."""
    begun = folder / PARTS / PLAN
    if asked is not None:
        return asked
    return recorded_place(folder, read_json(begun) if begun.exists() else {})


def recorded_place(folder: Path, record: Mapping[str, Any]) -> str:
    """Where the record of a job (its `plan.json`) says that the shards lie."""
    named = record.get(SHARDS_AT)
    if named is None:
        return str(folder / PARTS)
    return str(named) if "://" in named else os.path.normpath(os.path.join(os.path.realpath(folder), named))


def place_for_record(folder: Path, where: str) -> str | None:
    """How a job's record names a place: a URL as it is, a folder relative to the job's; None is the job's folder of parts."""
    path = where.removeprefix("file://")
    if "://" in path:
        return path
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    return None if relative == PARTS else relative
