"""Makes the picture of the monitor's live view: JupyterLab in a browser, notebook 05 run while its training goes on, as PNG.

.venv/bin/python tools/live_screenshot.py docs/images/entropy_live.png
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
STARTS = 120
SEEN = """step => {
    const cells = [...document.querySelectorAll(".jp-CodeCell")];
    const cell = cells.find(c => c.textContent.includes("monitor.view()"));
    cell?.scrollIntoView({ block: "start" });  // the notebook does not draw what is out of sight
    return Number(cell?.querySelector(".gtitle")?.textContent.match(/step (\\d+)/)?.[1]) >= step;
}"""
QUIET = {"fetchNews": "false", "checkForUpdates": False}


def prepare(folder: Path) -> None:
    """Write the notebook's cells up to the training's end, beside a link to the data, and settings without news."""
    book = nbformat.read(ROOT / "notebooks" / "05_entropy_collapse.ipynb", as_version=4)
    last = next(n for n, cell in enumerate(book.cells) if "monitor.close()" in cell.source)
    book.cells = book.cells[: last + 1]
    (folder / "notebooks").mkdir()
    nbformat.write(book, folder / "notebooks" / "live.ipynb")
    (folder / "data").symlink_to(ROOT / "data")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))


@contextmanager
def lab(folder: Path) -> Iterator[str]:
    """A JupyterLab on the folder, for this machine alone; gives the address of its notebook."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    places = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "spaces")}
    server = subprocess.Popen(
        command, env=os.environ | places, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        began = time.monotonic()
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5):
                    break
            except OSError:
                if time.monotonic() - began > STARTS or server.poll() is not None:
                    raise
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/doc/tree/notebooks/live.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--step", type=int, default=245, help="of the training from which the picture is taken")
    parser.add_argument("--size", default="1280x1110", help="width x height of the window in pixels")
    given = parser.parse_args()
    browser_path = next((path for path in map(shutil.which, NAMES) if path), None)
    if browser_path is None:
        parser.error(f"no browser on PATH; install one of {', '.join(NAMES)}")
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        prepare(Path(folder))
        with lab(Path(folder)) as address:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(300_000)
            page.goto(address, wait_until="commit")
            page.get_by_text(re.compile(r"\| Idle$")).wait_for()  # run before, it would ask which kernel
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_function(SEEN, arg=given.step, polling=500)
            given.picture.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=given.picture)
            browser.close()
    print(f"{given.picture}: {given.picture.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
