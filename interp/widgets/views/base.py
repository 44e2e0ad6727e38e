"""`View`: what every notebook widget shares: small synced traits, data by request, one bus, a saved page, a picture, a table."""

from __future__ import annotations

import base64
import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import pandas as pd
import traitlets
from PIL import Image

from interp.errors import OutputError
from interp.widgets.colours import sequential
from interp.widgets.payload import base64_of
from interp.widgets.views.canvas import SCALE, png
from interp.widgets.views.protocol import Reply
from interp.widgets.views.saved import module_source, saved_page, saved_view, style_source
from interp.widgets.views.selection import Selection, place_of
from interp.widgets.views.static import is_static

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
STATE = ("name", "title", "rev", "payload", "selection", "hover", "picks")


class View(anywidget.AnyWidget):
    """A widget over a source that holds everything it shows. The page asks, `serve(source, message)` answers.

    A subclass names its script (`MODULES`, with a function mountNAME in the last one) and style sheets (`STYLES`), sets `serve` to the
    module's own pure function, and defines `requests`, `data` and `picture`.

    Args:
        source: what is shown.
        title: what it is, in one line.
        payload: what the page needs from the start: little, and plain JSON values.
        link: the bus that this view shares with others.

    Attributes:
        source: what is shown; `show` exchanges it.
        selection: what is locked: {"layer", "head", "q", "k"}, None where nothing is.
        hover: the same for what is under the pointer.
        picks: several places marked by hand, as lists of whole numbers.
    """

    NAME: ClassVar[str]
    MODULES: ClassVar[tuple[str, ...]]
    STYLES: ClassVar[tuple[str, ...]] = ()

    name = traitlets.Unicode().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    rev = traitlets.Int(0).tag(sync=True)
    payload = traitlets.Dict().tag(sync=True)
    selection = traitlets.Dict(default_value=place_of({})).tag(sync=True)
    hover = traitlets.Dict(default_value=place_of({})).tag(sync=True)
    picks = traitlets.List().tag(sync=True)

    def __init__(
        self, source: object, *, title: str, payload: Mapping[str, Any], link: Selection | None = None
    ) -> None:
        super().__init__(name=self.NAME, title=title, payload=_with_colours(payload))
        self.source: Any = source
        self._lock = threading.Lock()
        self.on_msg(self._handle)
        if link is not None:
            link.join(self)

    # anywidget reads both when an instance is made: importing this module reads no files.
    @property
    def _esm(self) -> str:
        return module_source(self.MODULES, "widget", (self.NAME,))

    @property
    def _css(self) -> str:
        return style_source(self.STYLES)

    @staticmethod
    @abstractmethod
    def serve(source: Any, message: object) -> Reply:
        """Answer one request of the page: pure, bounds-checked, never raising (`protocol.answer`)."""

    @abstractmethod
    def requests(self) -> Iterable[Mapping[str, Any]]:
        """The requests that a saved page answers, exactly as the script makes them."""

    @abstractmethod
    def data(self) -> pd.DataFrame:
        """What is shown, as a table."""

    @abstractmethod
    def picture(self) -> Image.Image:
        """What is shown, drawn without a browser, `canvas.SCALE` pixels for each of the page."""

    @property
    def selected(self) -> Any:
        """The locked head as (layer, head), None where none is."""
        layer, head = self.selection.get("layer"), self.selection.get("head")
        return None if layer is None or head is None else (layer, head)

    def show(self, source: object, *, title: str, payload: Mapping[str, Any]) -> None:
        """Show another source: one message to the page, and answers that were under way for the old one are dropped there."""
        with self._lock, self.hold_sync():
            self.source = source
            self.title, self.payload, self.rev = title, _with_colours(payload), self.rev + 1

    def saved(self) -> dict[str, Any]:
        """Traits and answers of this view, as a saved page keeps them."""
        state = {name: self.trait_values()[name] for name in STATE} | {"hover": place_of({})}
        return saved_view(state, self.requests(), lambda message: self.serve(self.source, message))

    def html(self, path: str | Path) -> Path:
        """Write a self-contained page that opens from its file, offline, in any browser. Returns the path.

        Raises:
            OutputError: it cannot be written.
        """
        page = saved_page([self.saved()], modules=self.MODULES, styles=self.STYLES, title=self.title)
        return _write(Path(path), page.encode())

    def png(self, path: str | Path) -> Path:
        """Write a picture; needs no browser. Returns the path.

        Raises:
            OutputError: it cannot be written.
        """
        return _write(Path(path), png(self.picture()))

    def __repr__(self) -> str:
        """Name and title."""
        return f"{self.NAME}({self.title!r})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and a picture of it for readers that run none."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        image = self.picture()
        size = {"width": image.width // SCALE, "height": image.height // SCALE}
        data = data | {"image/png": base64.b64encode(png(image)).decode("ascii")}
        if is_static():
            data.pop(WIDGET_MIME, None)
        return data, metadata | {"image/png": size}

    def _handle(self, _widget: object, message: object, _buffers: object) -> None:
        # JupyterLab calls this on a thread of its own, so that a view answers while a cell runs.
        with self._lock:
            reply, buffers = self.serve(self.source, message)
            self.send(reply | {"rev": self.rev}, buffers)

    @traitlets.validate("selection", "hover")
    def _checked_place(self, proposal: Any) -> dict[str, int | None]:
        return place_of(proposal["value"])

    @traitlets.validate("picks")
    def _checked_picks(self, proposal: Any) -> list[list[int]]:
        kept = [list(p) for p in proposal["value"] if isinstance(p, list | tuple) and all(type(x) is int for x in p)]
        return [p for n, p in enumerate(kept) if p not in kept[:n]]


def _with_colours(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {"colours": base64_of(sequential()), **payload}


def _write(path: Path, content: bytes) -> Path:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"cannot write {path.name}: {error.strerror or error}; choose a folder that exists and can be written"
        ) from error
    return path
