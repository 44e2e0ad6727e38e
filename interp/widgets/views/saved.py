"""A view as one file: the same script over the answers to the requests that the file's reader can make."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from interp.widgets.page import fill_page, join_modules

WEB: Final = Path(__file__).resolve().parents[1] / "web"
SHARED: Final = ("dom", "data", "views/requests", "views/frame")
"""Modules that every view is written with, each after those that it imports."""
SQUEEZE: Final = 512
"""Bytes from which a buffer is kept compressed."""


@cache
def module_source(modules: tuple[str, ...], host: str, names: tuple[str, ...]) -> str:
    """The script of views: shared modules, the views' own, the table of what can be mounted, and the host that mounts it.

    Args:
        modules: the views' modules in `web`, without `.js`, each after those that it imports.
        host: "widget" (an anywidget in a notebook) or "page" (a saved file).
        names: the views; view X is mounted by the function mountX of its module.
    """
    sources = [(WEB / f"{name}.js").read_text(encoding="utf-8") for name in dict.fromkeys((*SHARED, *modules))]
    table = "const MOUNTS = {" + ", ".join(f"{name}: mount{name}" for name in names) + "};\n"
    return join_modules([*sources, table, (WEB / "views" / f"{host}.js").read_text(encoding="utf-8")])


@cache
def style_source(styles: tuple[str, ...]) -> str:
    """The style sheet of views: the shared one, then the named ones of `web/views`."""
    names = dict.fromkeys(("base", *styles))
    return "\n".join((WEB / "views" / f"{name}.css").read_text(encoding="utf-8") for name in names)


def saved_page(
    views: Sequence[Mapping[str, Any]], *, modules: tuple[str, ...], styles: tuple[str, ...], title: str
) -> str:
    """One self-contained page: it needs no network, no server and no Python, and its policy allows its own script alone.

    Args:
        views: state and answers of each view (`saved_view`), shown one below the other and linked.
        modules, styles: of all of them.
        title: of the page.
    """
    names = tuple(dict.fromkeys(str(view["state"]["name"]) for view in views))
    template = (WEB / "views" / "page.html").read_text(encoding="utf-8")
    style = style_source(styles) + (WEB / "views" / "page.css").read_text(encoding="utf-8")
    script = module_source(modules, "page", names)
    return fill_page(template, style=style, script=script, data={"title": title, "views": list(views)})


def saved_view(
    state: Mapping[str, Any],
    requests: Iterable[Mapping[str, Any]],
    serve: Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[bytes]]],
) -> dict[str, Any]:
    """What a file keeps of one view: its traits, and the answer to each request, under the request's canonical text."""
    answers = {}
    for request in requests:
        reply, buffers = serve(request)
        answers[json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)] = {
            **{name: value for name, value in reply.items() if name != "id"},
            "kept": [_kept(b) for b in buffers],
        }
    return {"state": dict(state), "answers": answers}


def _kept(buffer: bytes) -> dict[str, str]:
    squeezed = zlib.compress(buffer, 9) if len(buffer) >= SQUEEZE else buffer
    name = "zlib" if len(squeezed) < len(buffer) else "raw"
    return {name: base64.b64encode(squeezed if name == "zlib" else buffer).decode("ascii")}
