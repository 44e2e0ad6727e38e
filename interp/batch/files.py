"""Files that are whole or absent: written under another name, brought to the disk, then renamed; a full disk costs no finished file."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from interp.errors import CorruptFileError, OutputError

UNFINISHED = ".*.[0-9]*.tmp"
"""Names of files that a killed process may have left."""

_REASONS = {
    errno.ENOSPC: "the disk is full; what is finished is kept: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; what is finished is kept: free some space and run the same command again",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "there is a file of that name; choose another folder",
}


def cannot_write(what: str, error: OSError) -> OutputError:
    """The error that says why a file or folder could not be written, and what to do."""
    reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}; choose another folder, or look at the disk")
    return OutputError(f"cannot write {what}: {reason}")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises OutputError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(str(folder), error) from error


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all.

    Args:
        path: where it is to be.
        write: writes it to the path that it is given, in the same folder.

    Raises:
        OutputError: it cannot be written; a file that was there before is unchanged.
    """
    # Named after the process: another one that was thought to be dead must not write into the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            write(temporary)
            _to_disk(temporary)
            os.replace(temporary, path)
            _to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path.name, error) from error


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON, whole or not at all."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptFileError: it is not one.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path.name} cannot be read ({error}); start again in a new folder") from error
    if not isinstance(record, dict):
        raise CorruptFileError(f"{path.name} holds no JSON object; start again in a new folder")
    return record


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
