"""A real JupyterLab for browser tests: its own server on a free port, fresh settings, one notebook, cells run through the app's own commands."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from servers import START, free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOKEN = "interp-test-token"
QUIET = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Light"},
}


class Lab:
    """A running server and a page of it.

    Attributes:
        url: of the server.
        root: folder of its notebooks.
        page: the browser's page.
    """

    def __init__(self, url: str, root: Path, page: Page) -> None:
        self.url, self.root, self.page = url, root, page

    def setting(self, plugin: str, values: dict[str, Any]) -> None:
        """Keep a setting of the app before it opens."""
        body = json.dumps({"raw": json.dumps(values)}).encode()
        request = urllib.request.Request(f"{self.url}/lab/api/settings/{plugin}", body, method="PUT")
        request.add_header("Authorization", f"token {TOKEN}")
        urllib.request.urlopen(request, timeout=30).read()

    def open(self, cells: Sequence[str], *, name: str = "test.ipynb", theme: str = "JupyterLab Light") -> None:
        """Write a notebook of code cells and open it alone in the app, with an idle kernel."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / name)
        for plugin, values in QUIET.items():
            self.setting(plugin, {"theme": theme} if "theme" in values else values)
        self.page.goto(f"{self.url}/doc/tree/{name}?token={TOKEN}&reset", timeout=1000 * START)
        self.page.wait_for_function("() => window.jupyterapp", timeout=1000 * START)
        self.page.evaluate("() => window.jupyterapp.restored")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=1000 * START)
        self.idle()

    def idle(self) -> None:
        """Wait until the kernel is connected and has nothing to do."""
        self.page.wait_for_function(
            """() => { const k = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
                return k && k.connectionStatus === 'connected' && k.status === 'idle'; }""",
            timeout=1000 * START,
        )

    def run(self, cell: int, *, wait: bool = True) -> None:
        """Run a cell; with `wait` until it is done, failing on a Python error in it."""
        self.page.evaluate(
            """async ([cell, wait]) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = cell;
                notebook.deselectAll();
                const done = window.jupyterapp.commands.execute('notebook:run-cell');
                if (wait) await done;
            }""",
            [cell, wait],
        )
        if wait:
            wrong = [o for o in self.outputs(cell) if o.get("output_type") == "error"]
            assert not wrong, "\n".join(wrong[0]["traceback"])

    def paste(self, cell: int, source: str) -> None:
        """Put a text into a cell, in place of what is there."""
        self.page.evaluate(
            "([cell, source]) => window.jupyterapp.shell.currentWidget.content.model.cells.get(cell).sharedModel.setSource(source)",
            [cell, source],
        )

    def outputs(self, cell: int) -> list[dict[str, Any]]:
        """What a cell has put out, as the notebook keeps it."""
        return self.page.evaluate(
            "cell => window.jupyterapp.shell.currentWidget.content.model.cells.get(cell).outputs.toJSON()", cell
        )

    def printed(self, cell: int) -> str:
        """What a cell printed."""
        return "".join("".join(o["text"]) for o in self.outputs(cell) if o.get("output_type") == "stream")

    def hears(self, cell: int, words: str, seconds: float = 30.0) -> None:
        """Run a cell until it prints these words.

        A click is heard in its own time: JupyterLab sends what widgets say to a subshell beside the one that runs cells.
        """
        until = time.monotonic() + seconds
        while True:
            self.run(cell)
            printed = self.printed(cell).strip()
            if printed == words or time.monotonic() > until:
                break
            time.sleep(0.1)
        assert printed == words

    def restart(self) -> None:
        """Restart the kernel without asking."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        self.idle()

    def save(self) -> dict[str, Any]:
        """Save the notebook and read it back."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")
        return json.loads(next(self.root.glob("*.ipynb")).read_text(encoding="utf-8"))


@contextmanager
def jupyterlab(page: Page, root: Path, home: Path, *extra: str) -> Iterator[Lab]:
    """A server over `root` with all its settings under `home`; stopped, with its kernels, when the block ends."""
    port = free_port()
    folders = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    env = {f"JUPYTER_{name}": str(home / name) for name in folders}
    env |= {f"JUPYTERLAB_{name}": str(home / name) for name in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    env["IPYTHONDIR"] = str(home / "ipython")
    options = [
        *("--no-browser", "--allow-root", f"--ServerApp.root_dir={root}", "--ServerApp.ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"),
        *("--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly", *extra),
    ]
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jupyterlab", *options]
    with serving(command, alive=f"{url}/api/status?token={TOKEN}", env=env, log=home / "server.log"):
        yield Lab(url, root, page)
