"""Freed memory goes back to the system: when it is time, and really."""

from __future__ import annotations

import ctypes
import sys

import pytest

from interp.batch.memory import GiveBack, _malloc_trim


def resident() -> int:
    """Bytes of anonymous memory that this process has in RAM."""
    with open("/proc/self/smaps_rollup", encoding="utf-8") as file:
        (line,) = [line for line in file if line.startswith("Anonymous:")]
    return 1024 * int(line.split()[1])


def test_not_more_often_than_asked() -> None:
    now, given = [100.0], []
    give = GiveBack(30.0, trim=lambda pad: given.append((now[0], pad)), clock=lambda: now[0])
    for now[0] in (100.0, 129.9, 130.0, 131.0, 159.9, 160.0, 400.0, 429.0):
        give()
    assert given == [(130.0, 0), (160.0, 0), (400.0, 0)]


@pytest.mark.skipif(_malloc_trim() is None, reason="the C library keeps no freed memory that could be given back")
def test_what_is_freed_between_used_pieces_is_given_back() -> None:
    """64 MiB in pieces of 16 KiB; every hundredth stays in use, so that the heap cannot shrink from its end."""
    assert sys.platform == "linux"
    c = ctypes.CDLL(None)
    c.malloc.argtypes, c.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    c.free.argtypes = [ctypes.c_void_p]
    size, count = 1 << 14, 1 << 12
    pieces = [c.malloc(size) for _ in range(count)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    for n, piece in enumerate(pieces):
        if n % 100:
            c.free(piece)
    kept = resident()
    GiveBack(0.0)()
    given = kept - resident()
    assert given > 0.9 * size * count, "what was freed"
    for piece in pieces[::100]:
        assert ctypes.string_at(piece, size) == b"\x01" * size, "what is in use stays"
        c.free(piece)
