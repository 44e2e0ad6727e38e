"""`SuccessorTable`: heads that send a word to the next one, beside their controls, and the pairs that each gets right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from interp.errors import OptionError
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.succession import Chain
from interp.widgets.views.base import View
from interp.widgets.views.canvas import HATCH, LOCK, SOFT, Canvas, figure
from interp.widgets.views.selection import Selection
from interp.widgets.views.successor_table_source import FIXED, SuccessorScores, serve, successor_scores

SHOWN: Final = 20
"""Heads that are listed at first, and in the picture."""
KEPT: Final = 256
"""Heads whose pairs a saved page holds, best first."""
TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "score": ("score", "share of all pairs for which the successor has the largest logit"),
    "control": ("control", "the same when the successors of each list are dealt out at random"),
    "spread": ("sd", "standard deviation of the score over tasks"),
    "itself": ("itself", "share of words that the head sends to themselves (copying)"),
    "tasks_above": ("tasks > 0.5", "number of tasks that score above 0.5"),
}
"""Column -> what its head says, and what that means."""


class SuccessorTable(View):
    """A row per head; a click on a column's head sorts, a click on a row locks the head and shows its pairs.

    Args:
        result: of `interp.heads.successor`.
        model: the model that was scored: then the words are shown as it writes them, each with its successor's rank. Without it a pair is
            first or not, and the words are shown of the lists that were scored whole.
        lists: the lists that were scored, where they were not the default ones.
        title: one line above the table.
        link: the bus that this view shares with others.

    Raises:
        OptionError: another kind of result, or a model other than the one that was scored.
    """

    NAME = "SuccessorTable"
    MODULES = ("views/copy", "views/successor_table")
    STYLES = ("successor_table",)
    serve = staticmethod(serve)

    def __init__(
        self,
        result: Result,
        *,
        model: HookedModel | None = None,
        lists: Sequence[Chain] | None = None,
        title: str = "Successor heads",
        link: Selection | None = None,
    ) -> None:
        source = successor_scores(result, model=model, lists=lists)
        super().__init__(source, title=title, payload=_payload(source), link=link)

    def requests(self) -> Iterable[Mapping[str, Any]]:
        """Scores and words, and the pairs of the best `KEPT` heads."""
        yield from ({"op": "scores"}, {"op": "words"})
        best: Any = _sorted(self.source.table, "score").head(KEPT)
        yield from (
            {"op": "head", "layer": int(a), "head": int(b)} for a, b in zip(best["layer"], best["head"], strict=True)
        )

    def data(self) -> pd.DataFrame:
        """The whole table of scores, variants of the score included."""
        return self.source.table.copy()

    def examples(self, layer: int, head: int) -> pd.DataFrame:
        """The pairs of one head: task, case, word, successor (empty where unknown), first, and rank where a model tells it.

        Raises:
            OptionError: no such head.
        """
        ranks = self.source.examples(layer, head)
        rows = [
            (x.task, x.case, *(x.pairs[n] if x.pairs else ("", ""))) for x in self.source.lists for n in range(x.count)
        ]
        table = pd.DataFrame(rows, columns=["task", "case", "word", "successor"]).assign(first=ranks == 1)
        return table if self.source.ranks is None else table.assign(rank=ranks)

    def markdown(self, *, by: str = "score", heads: int = SHOWN) -> str:
        """The table as the page copies it: the first heads of the order, largest first.

        Raises:
            OptionError: no such column.
        """
        columns = self.source.columns
        if by not in columns:
            raise OptionError(f"no column {by!r}; there are: {', '.join(columns)}")
        rows = _sorted(self.source.table, by).head(heads)
        lines = [["head", *(_title(c)[0] for c in columns)], ["---", *("---:" for _ in columns)]]
        for row in rows.to_dict("records"):
            lines.append([f"{row['layer']}.{row['head']}", *(figure(float(np.float32(row[c]))) for c in columns)])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def picture(self) -> Image.Image:
        """The best heads; a locked one is framed."""
        return _picture(self.source, self.title, self.selected)


def _sorted(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Largest first, ties to the lowest layer and head, undefined last: the order of the page."""
    return table.sort_values([by, "layer", "head"], ascending=[False, True, True])


def _title(column: str) -> tuple[str, str]:
    return TITLES.get(column, (column.replace("_", " "), f"share of pairs of {column.replace('_', ' ')}"))


def _payload(source: SuccessorScores) -> dict[str, Any]:
    said = [{"name": c, "title": _title(c)[0], "words": _title(c)[1], "task": c not in FIXED} for c in source.columns]
    return {"columns": said, "heads": len(source.table), "shown": SHOWN, "ranked": source.ranks is not None}


def _picture(source: SuccessorScores, title: str, locked: tuple[int, int] | None) -> Image.Image:
    rows: Any = _sorted(source.table, "score").head(SHOWN)
    widths = [max(44, 7 * len(_title(c)[0]) + 12) for c in source.columns]
    width, line = 70 + sum(widths) + 14, 19
    canvas = Canvas(max(width, 420), 92 + line * len(rows))
    canvas.text(14, 10, title, size=14)
    edges = 70 + np.cumsum(widths)
    for x, c in zip(edges, source.columns, strict=True):
        canvas.text(float(x) - 8, 36, _title(c)[0], size=10, colour=SOFT, anchor="ra")
    canvas.text(14, 36, "head", size=10, colour=SOFT)
    canvas.line(14, 51, width - 14, 51, HATCH)
    for n, row in enumerate(rows.to_dict("records")):
        y = 55 + n * line
        canvas.text(14, y, f"{row['layer']}.{row['head']}")
        for x, c in zip(edges, source.columns, strict=True):
            canvas.text(float(x) - 8, y, figure(float(np.float32(row[c]))), anchor="ra")
        if (row["layer"], row["head"]) == locked:
            canvas.outline(8, y - 3, width - 16, line, LOCK)
    small = f"The best {len(rows)} of {len(source.table)} heads. Exact, from the weights alone: no text was run. A score is not a causal effect."
    canvas.paragraph(14, 62 + line * len(rows), small, columns=width // 6)
    return canvas.image
