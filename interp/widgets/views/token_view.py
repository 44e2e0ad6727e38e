"""`TokenView`: the text first: point at a token and see what it looks at, or what looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd
from PIL import Image

from interp.capture.run import Capture
from interp.errors import OptionError
from interp.results import Result
from interp.widgets.views.base import View
from interp.widgets.views.canvas import INK, LOCK, SCALE, SOFT, Canvas, figure, font, visible
from interp.widgets.views.selection import Selection
from interp.widgets.views.token_source import DIRECTIONS, TOP, WEIGHTINGS, Direction, TokenSource, serve, token_source

SAVED: Final = 512
"""Tokens whose rows and columns a saved page answers, those nearest to the one on show."""
SHADE: Final = (31, 78, 140)
"""Accent of the saved page in its light theme."""
WIDTH: Final = 560
LINE: Final = 20
LINES: Final = 18
NEAR: Final = 400
"""Tokens to either side of the one on show that the picture lays out: enough for its lines, whatever the text's length."""


class TokenView(View):
    """The tokens of one text; the strongest tokens of one row (or column) of one head's map are shaded, all others are one number.

    Hover previews a token, a click locks it, a second click or Esc lets go. Before anything is chosen the last token shows what it looks
    at. The head follows the selection, so a `HeadGrid` on the same bus chooses it.

    Args:
        run: a run of one text that kept its queries and keys (`run.encoder` is one too).
        layer, head: which head to open on; None for the first layer that was captured.
        norms: result of `interp.explain.norms` on the same text: adds weights times the norm of what each key adds.
        title: one line above the text.
        link: the bus that this view shares with others.

    Raises:
        ShapeError, CaptureError: several texts, or no queries and keys.
        OptionError: no such head, or norms of another text.
    """

    NAME = "TokenView"
    MODULES = ("views/token_text", "views/token_view")
    STYLES = ("token_view",)
    serve = staticmethod(serve)

    def __init__(
        self,
        run: Capture | TokenSource,
        *,
        layer: int | None = None,
        head: int = 0,
        norms: Result | None = None,
        title: str = "Tokens",
        link: Selection | None = None,
    ) -> None:
        source = run if isinstance(run, TokenSource) else token_source(run, norms)
        layers = source.capture.layers
        self.first = (layers[0] if layer is None else layer, head)
        if self.first[0] not in layers or not 0 <= head < source.capture.heads:
            raise OptionError(
                f"no head {self.first[0]}.{head} here; layers are {', '.join(map(str, layers))}, heads 0 to {source.capture.heads - 1}"
            )
        payload = {
            "layers": list(layers),
            "heads": source.capture.heads,
            "first": list(self.first),
            "norms": bool(source.norms),
            "top": TOP,
        }
        super().__init__(source, title=title, payload=payload, link=link)

    @property
    def shown(self) -> tuple[int, int, int, Direction]:
        """What is on show in Python's eyes: layer, head, position, direction; locked, else what the view opened on."""
        layer, head = self.selected or self.first
        tokens, q, k = len(self.source.tokens), self.selection["q"], self.selection["k"]
        if layer not in self.source.capture.layers or head >= self.source.capture.heads:
            layer, head = self.first
        if q is not None and q < tokens:
            return layer, head, q, "sources"
        if k is not None and k < tokens:
            return layer, head, k, "readers"
        return layer, head, tokens - 1, "sources"

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """The text, and of the head on show every row and column of the nearest tokens."""
        layer, head, at, _ = self.shown
        tokens = len(self.source.tokens)
        start = min(max(at - SAVED // 2, 0), max(tokens - SAVED, 0))
        yield {"op": "tokens"}
        for direction in DIRECTIONS:
            for by in WEIGHTINGS if self.source.norms and direction == "sources" else WEIGHTINGS[:1]:
                for i in {*range(start, min(start + SAVED, tokens)), 0, tokens - 1}:
                    yield {"op": "looks", "layer": layer, "head": head, "at": i, "direction": direction, "by": by}

    def data(self) -> pd.DataFrame:
        """The strongest tokens of the locked one (else of the last): layer, head, query, key, token, weight."""
        return self.source.frame(*self.shown)

    def picture(self) -> Image.Image:
        """The text around the token on show, shaded, and the strongest tokens with their weights."""
        return _picture(self.source, self.title, *self.shown)


def _picture(source: TokenSource, title: str, layer: int, head: int, at: int, direction: Direction) -> Image.Image:
    looks = source.looks(layer, head, at, direction=direction)
    weights = dict(zip(looks.index.tolist(), looks.weight.tolist(), strict=True))
    near = range(max(at - NEAR, 0), min(at + NEAR, len(source.tokens)))
    lines, width = _lines(source.tokens, near), WIDTH
    centre = next(n for n, line in enumerate(lines) if line[-1][0] >= at)
    start = min(max(centre - LINES // 2, 0), max(len(lines) - LINES, 0))
    shown = lines[start : start + LINES]
    canvas = Canvas(width + 250, max(len(shown) * LINE, 300) + 106)
    canvas.text(14, 10, title, size=14)
    verb = "looks at" if direction == "sources" else "is looked at by"
    canvas.text(14, 30, f"layer {layer}, head {head}: token {at} {verb} the shaded ones", colour=SOFT)
    for n, line in enumerate(shown):
        y = 54 + n * LINE
        for i, x, size, text in line:
            share = weights.get(i, 0.0) ** 0.5
            if i in weights:
                mixed = [round(p * (1 - share) + s * share) for p, s in zip((252, 251, 248), SHADE, strict=True)]
                canvas.box(14 + x, y, size, LINE - 2, (mixed[0], mixed[1], mixed[2]))
            canvas.text(14 + x, y + 2, text, size=11, colour=(255, 255, 255) if share > 0.6 else INK)
            if i == at:
                canvas.outline(14 + x, y, size, LINE - 2, LOCK)
    for n, (i, weight) in enumerate(list(weights.items())[:14]):
        y = 54 + n * LINE
        canvas.box(width + 30, y + 14, max(206 * weight, 1), 3, SHADE)
        canvas.text(width + 30, y, f"{i}  {visible(source.tokens[i])[:16]}", size=10)
        canvas.text(width + 236, y, figure(weight), size=10, anchor="ra")
    foot = 54 + max(len(shown) * LINE, 300) + 8
    what = "of the row" if direction == "sources" else "rows that it receives"
    canvas.text(
        14,
        foot,
        f"{looks.others} other tokens: {figure(looks.rest)}; all together: {figure(looks.total)} {what}",
        colour=SOFT,
    )
    canvas.paragraph(14, foot + 18, "Every weight is exact. Attention weight is not causal effect.", columns=120)
    return canvas.image


def _lines(tokens: tuple[str, ...], near: range) -> list[list[tuple[int, float, float, str]]]:
    """Tokens of a range in lines of the picture: (position, x, width, text) each."""
    lines: list[list[tuple[int, float, float, str]]] = [[]]
    x = 0.0
    for i in near:
        text = visible(tokens[i])
        size = font(11).getlength(text) / SCALE + 1
        if x + size > WIDTH and lines[-1]:
            lines.append([])
            x = 0.0
        lines[-1].append((i, x, size, text))
        x += size
    return lines
