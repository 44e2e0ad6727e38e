"""Views as pictures only: for documents and continuous integration, where no page can run a widget."""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "INTERP_STATIC"
_chosen: dict[str, bool] = {}


def static(on: bool = True) -> None:
    """From here on show views as PNG pictures, without the widget; `static(False)` shows widgets again, whatever the environment says."""
    _chosen["static"] = on


def is_static() -> bool:
    """Whether views are shown as pictures: as `static` chose, else where the environment variable INTERP_STATIC is 1."""
    return _chosen.get("static", os.environ.get(VARIABLE) == "1")
