"""`SAEFeature`: what the features of an autoencoder do: an index first, then one feature: when it fires, what it writes, whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd
from PIL import Image

from interp.widgets.views.base import View
from interp.widgets.views.canvas import INK, LOCK, SCALE, SOFT, Canvas, figure, font, visible
from interp.widgets.views.sae_source import FeatureTable, feature_table, serve
from interp.widgets.views.selection import Selection

SAVED: Final = 12
"""Features whose records a saved page holds, besides the one on show."""
AROUND: Final = 12
"""Tokens before the chosen one, in a picture."""
BAR: Final = (31, 78, 140)


class SAEFeature(View):
    """An index of features that can be sorted and searched; a click opens one: histogram of its values, tokens that it raises and lowers,
    shares of heads, and contexts with its value at every token and what the chosen token took from which source.

    A locked head on the bus leaves the features that are mostly its own; a click on a head's bar locks that head.

    Args:
        source: a `FeatureSource` (see `interp.saes.dashboard.feature_source`), or a result of `interp.saes.feature_attribution`,
            which has no contexts.
        features: which features, None for the most active ones.
        title: one line above.
        link: the bus that this view shares with others.

    Raises:
        OptionError: no features.
    """

    NAME = "SAEFeature"
    MODULES = ("views/sae_parts", "views/sae_feature")
    STYLES = ("sae_feature",)
    serve = staticmethod(serve)

    def __init__(
        self,
        source: object,
        *,
        features: Sequence[int] | None = None,
        title: str = "Features of an autoencoder",
        link: Selection | None = None,
    ) -> None:
        table = feature_table(source, features)
        super().__init__(table, title=title, payload={"made": table.made}, link=link)

    @property
    def feature(self) -> int:
        """The feature on show: the one that was opened, else the first of the index."""
        opened = [p[0] for p in self.picks if len(p) == 1 and p[0] in self.source.features]
        return opened[-1] if opened else self.source.features[0]

    def pick(self, feature: int) -> None:
        """Show one feature. Raises OptionError if it is not in the index."""
        self.source.of(feature)
        self.picks = [[feature]]

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """The index, the feature on show and the first ones of the index."""
        yield {"op": "index"}
        yield from (
            {"op": "feature", "feature": f} for f in dict.fromkeys([self.feature, *self.source.features[:SAVED]])
        )

    def data(self) -> pd.DataFrame:
        """The index as a table."""
        return self.source.table()

    def picture(self) -> Image.Image:
        """The feature on show: histogram, shares of heads, tokens that it raises and lowers, its first contexts."""
        return _picture(self.source, self.feature, self.title)


def _picture(table: FeatureTable, feature: int, title: str) -> Image.Image:
    record = table.of(feature)
    contexts = [e for group in record.get("groups", ())[:1] for e in group["examples"]][:6]
    canvas = Canvas(760, 262 + 20 * len(contexts))
    canvas.text(14, 10, title, size=14)
    said = [
        f"feature {feature}",
        f"density {figure(record.get('density'))}",
        f"largest value {figure(record.get('max'))}",
        table.made,
    ]
    canvas.text(14, 32, "; ".join(w for w in said if not w.endswith("–") and w), size=11, colour=SOFT)
    canvas.text(14, 56, "values where it fires", size=10, colour=SOFT)
    _bars(canvas, (14, 72, 210, 90), record.get("histogram", {}).get("counts", []))
    canvas.text(244, 56, "shares of heads (DFA, else weights)", size=10, colour=SOFT)
    heads = record.get("heads", {})
    _bars(canvas, (244, 72, 210, 90), heads.get("dfa") or heads.get("weights") or [])
    logits = record.get("logits", {})
    for x, name, words in ((474, "raised", "raises"), (620, "lowered", "lowers")):
        canvas.text(x, 56, words, size=10, colour=SOFT)
        for n, (token, value) in enumerate(logits.get(name, ())[:6]):
            canvas.text(x, 72 + 16 * n, f"{visible(token)[:12]}  {figure(value, 2)}", size=10, colour=INK)
    canvas.text(14, 186, "top contexts" if contexts else "no contexts here", size=10, colour=SOFT)
    for n, example in enumerate(contexts):
        _context(canvas, example, 204 + 20 * n, record.get("max") or 1.0)
    canvas.paragraph(
        14,
        218 + 20 * len(contexts),
        "Exact on the text that was read; DFA tells what was read, not what it caused.",
        columns=120,
    )
    return canvas.image


def _bars(canvas: Canvas, box: tuple[int, int, int, int], heights: Sequence[float | int | None]) -> None:
    x, y, width, height = box
    canvas.line(x, y + height, x + width, y + height)
    known = [0.0 if h is None or h != h else float(h) for h in heights]
    most = max(known, default=0.0) or 1.0
    step = width / max(len(known), 1)
    for n, h in enumerate(known):
        tall = height * h / most
        canvas.box(x + n * step, y + height - tall, max(step - 1, 1.0), tall, BAR)


def _context(canvas: Canvas, example: Mapping[str, Any], y: int, most: float) -> None:
    start = max(example["position"] - AROUND, 0)
    x = 14.0
    for i in range(start, len(example["tokens"])):
        text = visible(example["tokens"][i])
        size = font(11).getlength(text) / SCALE + 1
        if x + size > 746:
            break
        share = min(1.0, max(0.0, example["values"][i] / most)) ** 0.5
        if share > 0:
            r, g, b = (
                round(paper * (1 - share) + ink * share) for paper, ink in zip((252, 251, 248), BAR, strict=True)
            )
            canvas.box(x, y, size, 17.0, (r, g, b))
        canvas.text(x, y + 2, text, size=11, colour=(255, 255, 255) if share > 0.6 else INK)
        if i == example["position"]:
            canvas.outline(x, y, size, 17.0, LOCK)
        x += size
