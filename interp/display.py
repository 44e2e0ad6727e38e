"""The one door from results to pictures: `.plot()`, `.view()` and the reports of scans load the widgets here, on first use.

Nothing below the widgets imports them: `interp.widgets.PLOTS` says which function draws which kind of result, and
`interp.widgets.views.VIEWS` which opens it as a notebook widget.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from interp.errors import OptionError

__all__ = ["plot", "view", "write_report"]


def plot(kind: str, result: object, *choices: object, **options: object) -> Any:
    """Draw a result as a plotly figure.

    Args:
        kind: name of a kind in `interp.widgets.PLOTS`, such as "heads" or "map".
        result: what that kind draws.
        choices, options: further arguments of that kind's function; see its own signature.

    Raises:
        OptionError: no such kind; the message lists them.
    """
    plots = import_module("interp.widgets").PLOTS
    if kind not in plots:
        raise OptionError(f"nothing draws the kind {kind!r}; known kinds are: {', '.join(plots)}")
    return plots[kind](result, *choices, **options)


def view(kind: str, result: object, **options: object) -> Any:
    """Open a result in a notebook widget.

    Args:
        kind: name of a kind in `interp.widgets.views.VIEWS`, such as "heads" or "scan".
        result: what that kind opens.
        options: further arguments of that kind's view, such as link=bus; see its own signature.

    Raises:
        OptionError: no such kind; the message lists them.
    """
    views = import_module("interp.widgets.views").VIEWS
    if kind not in views:
        raise OptionError(f"no view opens the kind {kind!r}; known kinds are: {', '.join(views)}")
    return views[kind](result, **options)


def write_report(folder: Path) -> Path:
    """Write `report.html` from the other files of a scan's folder, and return its path.

    Raises:
        OutputError: the folder holds no finished scan, or cannot be written.
        CorruptFileError: one of its files is damaged.
    """
    return import_module("interp.widgets").write_report(folder)
