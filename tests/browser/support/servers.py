"""A server of a browser test: its own process on a free port of this machine, awaited, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START = 90
"""Seconds that a server may take to answer on a loaded machine."""


def free_port() -> int:
    """A port that nothing listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], *, alive: str, env: Mapping[str, str], log: Path, cwd: Path | None = None
) -> Iterator[None]:
    """Run a server until the block ends; the block begins when `alive`, an address of it, answers. One thread for its sums.

    Raises:
        RuntimeError: it ended or kept silent; with the end of its log.
    """
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **threads, **env},
            start_new_session=True,
        )
    try:
        begin = time.monotonic()
        while True:
            try:
                urllib.request.urlopen(alive, timeout=2).read()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None or time.monotonic() - begin > START:
                    raise RuntimeError(log.read_text()[-3000:]) from None
                time.sleep(0.1)
        yield
    finally:
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, sign)  # its own session: the server and its kernels alone
            with suppress(subprocess.TimeoutExpired):
                server.wait(3)
                break
