"""One job at a time works on a folder: a lock that the system takes back when its holder ends, however it ends.

Workers inherit the lock, so that it holds until the last of them is gone, too: nobody begins while an orphan still writes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interp.batch.files import cannot_write
from interp.errors import OutputError

LOCK = ".lock"
ORPHAN_SECONDS = 60.0
"""How long to wait for workers whose job was killed: they end by themselves."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        OutputError: another process holds it, or the folder cannot be written.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_write(str(folder), error) from error
    try:
        _take(handle, folder)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        os.set_inheritable(handle, True)
        yield
    finally:
        os.close(handle)


def holder(folder: Path) -> int | None:
    """The process that works on a folder, None if none does. Takes the lock for a moment."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _noted(handle) or 0
    else:
        return None
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    until = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = _noted(handle)
            if time.monotonic() < until and number is not None and not _alive(number):
                time.sleep(0.1)
                continue
            raise OutputError(
                f"another process (number {number or 'unknown'}) is working on {folder}; wait until it is done, or choose another folder"
            ) from error
        except OSError as error:
            raise OutputError(
                f"the file system of {folder} has no file locks ({error.strerror}); choose a folder on a local disk"
            ) from error
        return


def _noted(handle: int) -> int | None:
    """The number of the process that wrote itself down as the holder."""
    text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdecimal() else None


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
