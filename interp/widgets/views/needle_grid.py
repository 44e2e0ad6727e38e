"""`NeedleGrid`: a needle in a haystack by length and depth: what the model found, and what one head copied from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from interp.errors import OptionError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks import needle
from interp.widgets.colours import index_of, sequential
from interp.widgets.views.base import View
from interp.widgets.views.canvas import INK, LOCK, PAPER, SOFT, Canvas, figure
from interp.widgets.views.needle_grid_source import NeedleCells, needle_cells, serve
from interp.widgets.views.selection import Selection
from interp.widgets.views.token_view import TokenView

LISTED: Final = 40
"""Heads that the picker lists, best first; any other is shown when a linked view selects it."""
KEPT: Final = 256
"""Heads whose cells a saved page holds, best first."""
LIGHT: Final = 124
"""Colour of the table from which dark figures read better than light ones."""


class NeedleGrid(View):
    """Lengths from left to right, depths from top to bottom; a click locks a cell, `on_cell` hears of it, and `open_cell` shows its tokens.

    Args:
        given: of `interp.heads.retrieval`; a table with a row per trial (length, depth, correct); or `NeedleCells`.
        title: one line above the grid.
        link: the bus that this view shares with others: the grid follows the head selected there.

    Raises:
        OptionError: nothing that says lengths and depths.
    """

    NAME = "NeedleGrid"
    MODULES = ("views/needle_grid",)
    STYLES = ("head_grid", "needle_grid")
    serve = staticmethod(serve)

    def __init__(
        self,
        given: Result | pd.DataFrame | NeedleCells,
        *,
        title: str = "Needles",
        link: Selection | None = None,
    ) -> None:
        source = given if isinstance(given, NeedleCells) else needle_cells(given)
        super().__init__(source, title=title, payload=_payload(source), link=link)

    @property
    def cell(self) -> tuple[int, float] | None:
        """The locked cell as (length, depth), None where none is."""
        picked = [p for p in self.picks if len(p) == 2][:1]
        inside = [(i, j) for i, j in picked if 0 <= i < len(self.source.lengths) and 0 <= j < len(self.source.depths)]
        return next(((self.source.lengths[i], self.source.depths[j]) for i, j in inside), None)

    def on_cell(self, call: Callable[[tuple[int, float] | None], object]) -> None:
        """Call a function with (length, depth) when a cell is locked, and with None when it is let go."""
        self.observe(lambda _: call(self.cell), "picks")

    def open_cell(self, model: HookedModel, *, number: int = 0) -> TokenView:
        """Run the model on a prompt of the locked cell, and open its tokens at the selected head (else the best one).

        The prompt is made anew by `interp.tasks.needle`, of the cell's length and depth. What opens first is the last token, which the answer
        comes from. Cells that are locked later are run and shown in the same view.

        Args:
            model: a decoder with a tokenizer.
            number: which of `interp.tasks.needle.needles()` is hidden.

        Raises:
            OptionError: no cell is locked, or no such needle.
        """
        if self.cell is None or not 0 <= number < len(needle.needles()):
            raise OptionError(f"lock a cell first (click it), and give a number from 0 to {len(needle.needles()) - 1}")
        layer, head = self.selected or (self.source.copied.ranked[0] if self.source.copied is not None else (0, 0))
        opened = _tokens(model, self.cell, number, layer, head)

        def follow(cell: tuple[int, float] | None) -> None:
            if cell is not None:
                other = _tokens(model, cell, number, layer, head)
                opened.show(other.source, title=other.title, payload=other.payload)
                other.close()

        self.on_cell(follow)
        return opened

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """What was answered, and the cells of the best `KEPT` heads."""
        yield {"op": "answers"}
        if self.source.copied is not None:
            yield from (
                {"op": "head", "layer": layer, "head": head} for layer, head in self.source.copied.ranked[:KEPT]
            )

    def data(self) -> pd.DataFrame:
        """One row per cell, or per (layer, head, cell)."""
        return self.source.frame

    def picture(self) -> Image.Image:
        """The cells of the head that is selected, else of the best one, else what the model answered."""
        return _picture(self.source, self.title, self.selected, self.cell)


def _tokens(model: HookedModel, cell: tuple[int, float], number: int, layer: int, head: int) -> TokenView:
    if model.tokenizer is None:
        raise OptionError("a needle is text, and this model came without a tokenizer")
    length, depth = cell
    hidden = needle.needles()[number : number + 1]
    prompt = needle.prompts(model.tokenizer, lengths=[length], depths=[depth], hidden=hidden)[0]
    run = model.run(prompt.ids, layers=[layer], collect=(), logits="none")
    said = f"{hidden[0].answer!r} at depth {100 * depth:.3g} % of {length:,} tokens, head {layer}.{head}"
    return TokenView(run, layer=layer, head=head, title=said)


def _payload(cells: NeedleCells) -> dict[str, Any]:
    c = cells.copied
    return {
        "lengths": list(cells.lengths),
        "depths": list(cells.depths),
        "layers": [] if c is None else list(c.layers),
        "heads": 0 if c is None else c.heads,
        "best": [] if c is None else [list(head) for head in c.ranked[:LISTED]],
        "high": 1.0 if c is None else top_of_scale(cells),
    }


def top_of_scale(cells: NeedleCells) -> float:
    """Where the colours of scores end: at 1, or at the largest score where a form of the score exceeds 1."""
    if cells.copied is None:
        raise OptionError("no heads were scored in these trials")
    return max(1.0, float(np.nanmax(np.append(cells.copied.score, 0.0))))


def _picture(
    cells: NeedleCells, title: str, selected: tuple[int, int] | None, cell: tuple[int, float] | None
) -> Image.Image:
    c = cells.copied
    wide, tall, left, top = 58, 34, 66, 58
    width, height = max(left + len(cells.lengths) * (wide + 1) + 14, 460), top + len(cells.depths) * (tall + 1) + 96
    canvas = Canvas(width, height)
    canvas.text(14, 10, title, size=14)
    if c is None:
        said, values, high = "share of answers found", cells.found / np.maximum(cells.asked, 1), 1.0
    else:
        layer, head = (
            selected if selected is not None and selected[0] in c.layers and selected[1] < c.heads else c.ranked[0]
        )
        said, values, high = (
            f"retrieval score of head {layer}.{head}",
            c.score[c.layers.index(layer), head],
            top_of_scale(cells),
        )
    canvas.text(14, 32, said, size=11, colour=SOFT)
    indexes = index_of(np.asarray(values, np.float64), 0.0, high, log=False)
    for (i, j), index in np.ndenumerate(indexes):
        x, y = left + i * (wide + 1), top + j * (tall + 1)
        if index < 0:
            canvas.hatch(x, y, wide, tall)
        else:
            r, g, b = (int(v) for v in sequential()[index])
            canvas.box(x, y, wide, tall, (r, g, b))
        ink = INK if index < 0 or index >= LIGHT else PAPER
        canvas.text(x + wide / 2, y + 11, figure(float(values[i, j]), 2), size=11, colour=ink, anchor="mm")
        canvas.text(
            x + wide / 2,
            y + 25,
            f"{cells.found[i, j]:.0f} of {figure(float(cells.asked[i, j]))}",
            size=9,
            colour=ink,
            anchor="mm",
        )
        if cell == (cells.lengths[i], cells.depths[j]):
            canvas.outline(x, y, wide, tall, LOCK)
    for j, depth in enumerate(cells.depths):
        canvas.text(
            left - 8, top + j * (tall + 1) + tall / 2, f"{100 * depth:.3g} %", size=10, colour=SOFT, anchor="rm"
        )
    foot = top + len(cells.depths) * (tall + 1)
    for i, length in enumerate(cells.lengths):
        canvas.text(left + i * (wide + 1) + wide / 2, foot + 4, f"{length:,}", size=10, colour=SOFT, anchor="ma")
    canvas.bar(left, foot + 28, 180, ("0", figure(high / 2), figure(high)))
    canvas.text(left + 194, foot + 26, "depth down, tokens across", size=10, colour=SOFT)
    small = (
        "Means over the accepted answers of each cell; small: accepted of asked. Attention weight is not causal effect."
    )
    canvas.paragraph(14, foot + 60, small, columns=width // 6)
    return canvas.image
