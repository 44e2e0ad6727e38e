"""Notebooks of marimo as apps, for browser tests: one server of a folder, on this machine alone, with fresh settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_port, serving

TOKEN = "interp-test-token"


@contextmanager
def marimo_apps(folder: Path, home: Path) -> Iterator[str]:
    """Serve the notebooks (*.py) of a folder until the block ends. Gives the address to open one at: add the name of its file.

    Every page that opens has a kernel of its own, a thread of the server. Settings, caches and logs of marimo lie under `home`; interp
    keeps its cache, which holds the kernels that were built for this machine.
    """
    from interp.models.cache import cache_folder

    port = free_port()
    options = (
        "--headless",
        "--host=127.0.0.1",
        f"--port={port}",
        "--token",
        f"--token-password={TOKEN}",
        "--no-sandbox",
    )
    home.mkdir(parents=True, exist_ok=True)
    env = {f"XDG_{name}_HOME": str(home / name) for name in ("CONFIG", "CACHE", "STATE", "DATA")}
    env |= {"HOME": str(home), "INTERP_CACHE": str(cache_folder())}
    command = [sys.executable, "-m", "marimo", "--yes", "run", *options, str(folder)]
    url = f"http://127.0.0.1:{port}"
    with serving(command, alive=f"{url}/health", env=env, log=home / "server.log", cwd=home):
        yield f"{url}/?access_token={TOKEN}&file="
