"""What the browser tests of views share: a view's real script in a page without Jupyter, answered by its real `serve` in this process."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOST = Path(__file__).parents[1] / "support" / "fake_host.js"
sys.path.insert(0, str(HOST.parent))
URL = "http://127.0.0.1:9/"  # nothing listens there: every request is answered by the test
BLANK = "<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><style>{}</style><body></body>"


class Mounted:
    """A view in a page.

    Attributes:
        view: the Python widget; what the page sets arrives in its traits, and `push` brings a trait to the page.
        page: the browser's page.
        asked: every message that the page sent.
        drop_buffers: lose binary buffers, as some hosts do.
        silent: answer nothing, as a busy kernel.
    """

    def __init__(self, page: Page, view: Any) -> None:
        self.page, self.view = page, view
        self.asked: list[dict[str, Any]] = []
        self.drop_buffers = self.silent = False

    def answer(self, text: str) -> list[Any] | None:
        message = json.loads(text)
        self.asked.append(message)
        if self.silent:
            return None
        reply, buffers = self.view.serve(self.view.source, message)
        reply["rev"] = self.view.rev
        return [reply, [] if self.drop_buffers else [base64.b64encode(b).decode() for b in buffers]]

    def changed(self, name: str, value: object) -> None:
        setattr(self.view, name, value)

    def push(self, *names: str) -> None:
        """Bring traits that Python changed to the page."""
        values = {name: getattr(self.view, name) for name in names}
        self.page.evaluate("values => window.host.take(values)", values)

    def settled(self) -> None:
        """Wait until everything on show has arrived."""
        self.page.wait_for_selector('.iv[data-state="ready"]')


@pytest.fixture
def mount(page: Page) -> Iterator[Callable[..., Mounted]]:
    """mount(view, settled=True, drop_buffers=False, style="") shows a view in a page without Jupyter."""
    mounts: list[Mounted] = []

    def show(view: Any, *, settled: bool = True, drop_buffers: bool = False, style: str = "") -> Mounted:
        mounted = Mounted(page, view)
        mounted.drop_buffers = drop_buffers
        mounts.append(mounted)
        files = {
            "": (BLANK.format(style), "text/html"),
            "host.js": (HOST.read_text(encoding="utf-8"), "text/javascript"),
            "view.js": (view._esm, "text/javascript"),
        }

        def fulfil(route: Any) -> None:
            path = route.request.url.removeprefix(URL)
            if path == "changed":
                mounted.changed(**route.request.post_data_json)
                route.fulfill(status=204)
                return
            body, kind = files[path]
            route.fulfill(body=body, content_type=f"{kind}; charset=utf-8")

        page.route(f"{URL}**", fulfil)
        page.expose_function("python_answer", mounted.answer)
        page.goto(URL)
        page.add_style_tag(content=view._css)
        state = {
            name: view.trait_values()[name]
            for name in ("name", "title", "rev", "payload", "selection", "hover", "picks")
        }
        page.evaluate("async state => { const { mount } = await import('/host.js'); await mount(state); }", state)
        if settled:
            mounted.settled()
        return mounted

    yield show
    assert len(mounts) <= 1, "a page shows one view; take a new page for the next"


@pytest.fixture
def lab(page: Page, tmp_path: Path) -> Iterator[Any]:
    """A running JupyterLab with a page of it; see `support/lab.py`."""
    from lab import jupyterlab

    (tmp_path / "root").mkdir()
    with jupyterlab(page, tmp_path / "root", tmp_path / "home") as running:
        yield running
