"""Labels of heads by rule, from the raw scores of a report: which score must pass which threshold.

The rules are a proposal (heads.md section 14), from no paper; a head may carry several labels, and the raw scores always stand beside them:

    previous     offset-1 mass > 0.4 on random tokens and on real text
    duplicate    offset-L mass > 0.3                              (echo heads of RazorAttention, duplicate-token heads of IOI)
    induction    offset-(L - 1) mass > 0.3, and an OV copying score above its own control
    retrieval    copy score >= 0.1                                                          (Wu et al. 2024, arXiv 2404.15574)
    streaming    mass on sink and window > 0.95, and output error < 0.05                    (DuoAttention's proxies, arXiv 2410.10819)
                 (the proposal is for 64 sinks and a window of 256 at 4,096 tokens; a report measures 16 and 64 at its own length)
    sink         mean attention on the first token > 0.3                                    (Gu et al. 2025, arXiv 2410.10781: alpha)
    successor    weight score > 0.4 (micro), and at least 3 tasks above 0.5                 (Gould et al. 2023, arXiv 2312.09230)

A rule whose scores were not measured, or are NaN for a head, says nothing: no label. A label is a hypothesis until an ablation confirms it
(`interp.heads.confirm`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from interp.errors import OptionError

LABELS: Final = ("previous", "duplicate", "induction", "retrieval", "streaming", "sink", "successor")
"""Every label, in the order in which they are written."""
SCORES: Final = {
    "previous": "previous_token",
    "duplicate": "duplicate_token",
    "induction": "induction",
    "retrieval": "retrieval",
    "streaming": "streaming_mass",
    "sink": "first_token",
    "successor": "successor",
}
"""The column by which the heads of a label are ranked."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Thresholds of the labels; see the module.

    Attributes:
        previous: least offset-1 mass, on random tokens and on text (exceeded).
        duplicate: least offset-L mass (exceeded).
        induction: least offset-(L - 1) mass (exceeded).
        copying: how far the OV copying score of an induction head must exceed its control.
        retrieval: least retrieval score (reached).
        streaming: least mass on sink and window (exceeded).
        output_error: largest relative error of a streaming head's output (not reached).
        sink: least mean attention on the first token (exceeded).
        successor: least successor score (exceeded).
        successor_tasks: tasks that must score above 0.5 (reached).

    Raises:
        OptionError: a threshold that is no share.
    """

    previous: float = 0.4
    duplicate: float = 0.3
    induction: float = 0.3
    copying: float = 0.0
    retrieval: float = 0.1
    streaming: float = 0.95
    output_error: float = 0.05
    sink: float = 0.3
    successor: float = 0.4
    successor_tasks: int = 3

    def __post_init__(self) -> None:
        """Check that the thresholds are shares."""
        for name, value in vars(self).items():
            if name != "successor_tasks" and not 0.0 <= value <= 1.0:
                raise OptionError(f"rule {name}: wanted a threshold between 0 and 1, got {value}")
        if self.successor_tasks < 1:
            raise OptionError(f"rule successor_tasks: wanted at least 1, got {self.successor_tasks}")


def passes(table: pd.DataFrame, rules: Rules, *, controls: bool = False) -> pd.DataFrame:
    """Which head passes which rule: bool columns `LABELS`, rows as in the table.

    Args:
        table: of a report (`interp.heads.report`); columns that are missing pass nothing.
        rules: thresholds.
        controls: judge the controls instead of the scores: what the rules say where the effect was taken away. Conditions without a
            control of their own (copying, tasks) are kept as measured.
    """

    def column(name: str, *, measured: bool = False) -> Any:
        chosen = f"{name}_control" if controls and not measured else name
        return table[chosen] if chosen in table.columns else pd.Series(np.nan, index=table.index)

    copying = column("copying", measured=True) - column("copying_control", measured=True)
    found = {
        "previous": (column("previous_token") > rules.previous) & (column("previous_token_text") > rules.previous),
        "duplicate": column("duplicate_token") > rules.duplicate,
        "induction": (column("induction") > rules.induction) & (copying > rules.copying),
        "retrieval": column("retrieval") >= rules.retrieval,
        "streaming": (column("streaming_mass") > rules.streaming) & (column("streaming_output") < rules.output_error),
        "sink": column("first_token") > rules.sink,
        "successor": (column("successor") > rules.successor)
        & (column("successor_tasks", measured=True) >= rules.successor_tasks),
    }
    return pd.DataFrame({label: found[label] for label in LABELS})


def in_words(passed: pd.DataFrame) -> list[str]:
    """The labels of each head, joined by ", "; "" for a head that passes no rule."""
    return [", ".join(name for name in LABELS if row[name]) for row in passed.to_dict("records")]


def labelled(table: pd.DataFrame, *, most: int | None = None) -> dict[str, list[tuple[int, int]]]:
    """The heads of every label that some head has: label -> (layer, head), largest score first, ties to the lowest layer and head.

    Args:
        table: of a report, with its column "labels".
        most: heads of a label at most.
    """
    split = [set(words.split(", ")) for words in table["labels"]]
    found: dict[str, list[tuple[int, int]]] = {}
    for label in _present(split):
        rows: Any = table[[label in words for words in split]]
        by = SCORES[label]
        rows = rows.sort_values([by, "layer", "head"], ascending=[False, True, True]).head(most or len(rows))
        found[label] = [(int(a), int(b)) for a, b in zip(rows["layer"], rows["head"], strict=True)]
    return found


def _present(split: Iterable[set[str]]) -> list[str]:
    there = set().union(*split)
    return [label for label in LABELS if label in there]
