"""Label rules on a table written by hand: each threshold from both sides, controls, missing scores, ranking."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp.errors import OptionError
from interp.heads.labels import LABELS, Rules, in_words, labelled, passes

PASSING = {
    "previous_token": 0.41,
    "previous_token_text": 0.41,
    "duplicate_token": 0.31,
    "induction": 0.31,
    "copying": 0.05,
    "copying_control": 0.04,
    "retrieval": 0.1,
    "streaming_mass": 0.96,
    "streaming_output": 0.04,
    "first_token": 0.31,
    "successor": 0.41,
    "successor_tasks": 3,
}
"""Scores that pass every rule by a little."""
FAILS = {
    "previous_token": (0.4, "previous"),
    "previous_token_text": (0.4, "previous"),
    "duplicate_token": (0.3, "duplicate"),
    "induction": (0.3, "induction"),
    "copying": (0.04, "induction"),
    "retrieval": (0.0999, "retrieval"),
    "streaming_mass": (0.95, "streaming"),
    "streaming_output": (0.05, "streaming"),
    "first_token": (0.3, "sink"),
    "successor": (0.4, "successor"),
    "successor_tasks": (2, "successor"),
}
"""Score -> a value that just does not pass, and the label that it costs."""


def row(**changed: float) -> pd.DataFrame:
    return pd.DataFrame([{"layer": 0, "head": 0, **PASSING, **changed}])


def test_all_rules_pass_together() -> None:
    assert in_words(passes(row(), Rules())) == [", ".join(LABELS)]


@pytest.mark.parametrize("name", FAILS)
def test_each_score_decides_its_own_label(name: str) -> None:
    value, label = FAILS[name]
    for failing in (value, np.nan):
        passed = passes(row(**{name: failing}), Rules()).iloc[0]
        assert [x for x in LABELS if not passed[x]] == [label]
    without = passes(row().drop(columns=name), Rules()).iloc[0]
    assert [x for x in LABELS if not without[x]] == [label]


def test_thresholds_are_arguments() -> None:
    strict = passes(row(), Rules(retrieval=0.2, successor_tasks=4, copying=0.02)).iloc[0]
    assert [x for x in LABELS if not strict[x]] == ["induction", "retrieval", "successor"]
    with pytest.raises(OptionError, match="retrieval"):
        Rules(retrieval=1.5)
    with pytest.raises(OptionError, match="successor_tasks"):
        Rules(successor_tasks=0)


def test_controls_are_judged_by_the_same_rules() -> None:
    controls = {"previous_token_control": 0.9, "previous_token_text_control": 0.9, "duplicate_token_control": 0.1}
    judged = passes(row(**controls), Rules(), controls=True).iloc[0]
    assert [x for x in LABELS if judged[x]] == ["previous"]


def test_heads_of_a_label_are_ranked_by_its_score() -> None:
    rows = [(3, 1, 0.5), (2, 4, 0.9), (2, 0, 0.5), (5, 5, 0.99)]
    labels = ["retrieval", "sink, retrieval", "retrieval", ""]
    table = pd.DataFrame(rows, columns=["layer", "head", "retrieval"]).assign(labels=labels, first_token=0.4)
    assert labelled(table) == {"retrieval": [(2, 4), (2, 0), (3, 1)], "sink": [(2, 4)]}
    assert labelled(table, most=1)["retrieval"] == [(2, 4)]
