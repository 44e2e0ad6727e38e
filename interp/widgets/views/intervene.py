"""`Intervene`: choose heads and an edit, run, see before and after beside a random control, and copy the Python that does the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from interp.errors import OptionError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.widgets.views.base import View
from interp.widgets.views.canvas import SOFT, Canvas
from interp.widgets.views.compare_view import CompareView, compare_picture, compare_requests
from interp.widgets.views.intervene_source import Bench, choices, grounds, serve
from interp.widgets.views.selection import Selection
from interp.widgets.views.task_choices import PROMPTS

DRAWS = 5


class Intervene(View):
    """Heads come from the picks or the locked head of a linked `HeadGrid`, or are written as "3.1, 5.2". The work runs on a thread of its own:
    the page says how far it is, can cancel it, and shows errors as words. The model itself is never changed.

    Args:
        model: a decoder.
        texts: one text or several, or token ids; effects are measured on all of them, the map of heads on the first.
        prompts: how many of a task, where the reader tries an edit on one of `task_choices.TASKS` instead.
        calibrations: name -> file of `interp.calibration.save_calibration`, offered as edits.
        draws: random sets of heads for the control.
        seed: of the draws and the bootstrap.
        title: one line above.
        link: the bus that this view shares with others.

    Raises:
        OptionError: no text, one of a single token, or no prompts.
    """

    NAME = "Intervene"
    MODULES = (*CompareView.MODULES, "views/parts", "views/intervene")
    STYLES = (*CompareView.STYLES, "intervene")
    serve = staticmethod(serve)

    def __init__(
        self,
        model: HookedModel,
        texts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        *,
        prompts: int = PROMPTS,
        calibrations: Mapping[str, str | Path] | None = None,
        draws: int = DRAWS,
        seed: int = 0,
        title: str = "Intervene",
        link: Selection | None = None,
    ) -> None:
        source = bench(model, texts, prompts=prompts, calibrations=calibrations, draws=draws, seed=seed)
        super().__init__(source, title=title, payload=bench_payload(source), link=link)

    @property
    def result(self) -> Result | None:
        """Effects of the last edit that finished, beside random heads; None before."""
        return None if self.source.outcome is None else self.source.outcome.effect

    @property
    def code(self) -> str | None:
        """The Python that does the same as the last edit that finished; None before."""
        return None if self.source.outcome is None else self.source.outcome.code

    def wait(self, seconds: float | int | None = None) -> None:
        """Wait until nothing is under way."""
        self.source.wait(seconds)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """The last outcome, if there is one."""
        return bench_requests(self.source)

    def data(self) -> pd.DataFrame:
        """Metrics and heads before and after the last edit; empty before."""
        return pd.DataFrame() if self.source.outcome is None else self.source.outcome.comparison.frame

    def picture(self) -> Image.Image:
        """The last outcome."""
        if self.source.outcome is None:
            canvas = Canvas(420, 60)
            canvas.text(14, 10, self.title, size=14)
            canvas.text(14, 34, "No edit has been tried yet.", size=11, colour=SOFT)
            return canvas.image
        return compare_picture(self.source.outcome.comparison, self.title, self.selected)


def bench(
    model: HookedModel,
    texts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
    *,
    prompts: int = PROMPTS,
    calibrations: Mapping[str, str | Path] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Bench:
    """Make a bench ready; arguments and errors as `Intervene`."""
    several: Any = [texts] if isinstance(texts, str) or (len(texts) and isinstance(texts[0], int)) else texts
    ids = [[int(i) for i in (model.encode(text) if isinstance(text, str) else text)] for text in several]
    if not ids or min(map(len, ids)) < 2:
        raise OptionError("wanted at least one text of two tokens or more to try edits on")
    if prompts < 1:
        raise OptionError(f"prompts must be at least 1; got {prompts}")
    files = {name: Path(path) for name, path in (calibrations or {}).items()}
    return Bench(model, ids, prompts=prompts, files=files, draws=draws, seed=seed)


def bench_payload(source: Bench) -> dict[str, Any]:
    """What the page needs from the start."""
    return {
        "choices": choices(source.files),
        "grounds": grounds(source),
        "made": f"{source.model.source.name}; {source.draws} random controls",
        "layers": source.model.layers,
        "heads": source.model.heads,
    }


def bench_requests(source: Bench) -> Iterable[Mapping[str, Any]]:
    """What a saved page answers: the state, and the last outcome."""
    yield {"op": "state"}
    if source.outcome is not None:
        yield {"op": "outcome"}
        yield from ({"op": "compare", "message": message} for message in compare_requests(source.outcome.comparison))
