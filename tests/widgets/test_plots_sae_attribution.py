"""Figures of whose features are: every kind is drawn, its traces hold the table's numbers, and text from a model is escaped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.errors import OptionError
from interp.results import Result
from interp.widgets.kinds import PLOTS
from interp.widgets.plots_sae_attribution import long_prefix_figure, recursive_figure

MODEL = {"model": {"name": "a <b>model</b>"}, "layer": 5}


def heads(**columns: Any) -> pd.DataFrame:
    size = max(len(x) for x in columns.values())
    given = {
        "layer": [5] * size,
        "head": [-1] * size,
        "score": [0.5] * size,
        "spread": [0.1] * size,
        "control": [0.2] * size,
    }
    return pd.DataFrame(given | columns)


def attribution() -> Result:
    table = heads(
        head=[0, 1, 1], feature=[4, 0, 2], weight_head=[0, 0, 1], weight_share=[0.6, 0.7, 0.8], family=["local", "other", "local"]
    )  # fmt: skip
    share = np.array([[0.3, 0.7], [np.nan, np.nan], [0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=np.float32)
    arrays = {"weight_share": share, "dfa_share": share, "dfa_share_without_sinks": share}
    return Result(kind="saes.attribution", table=table, manifest=MODEL, arrays=arrays)


def prefix() -> Result:
    rows = [
        {
            "layer": a,
            "head": b,
            "prefix": p,
            "kind": kind,
            "score": x * p,
            "spread": 0.1,
            "control": 0.01,
            "corrupted": x,
        }
        for a, b, kind, x in ((1, 2, "long prefix", 0.2), (0, 1, "short prefix", 0.3), (0, 0, "", 0.01))
        for p in (1, 2, 3)
    ]
    return Result(kind="saes.long_prefix", table=pd.DataFrame(rows), manifest=MODEL)


def recursive() -> Result:
    table = heads(
        step=[0, 0, 1], part=["head", "mlp", "embedding"], layer=[3, 2, -1], head=[7, -1, -1], score=[0.1, -0.4, 0.3]
    )  # fmt: skip
    steps = [
        {"layer": 5, "head": None, "query": 9, "source": 2, "value": 0.3, "tokens": ["<a>", "<b>"]},
        {"layer": 3, "head": 7, "query": 2, "source": 1, "value": 0.1, "tokens": ["<b>", "<i>c"]},
    ]
    return Result(kind="saes.recursive_dfa", table=table, manifest=MODEL | {"steps": steps})


RESULTS = {
    "saes.attribution": attribution(),
    "saes.long_prefix": prefix(),
    "saes.recursive_dfa": recursive(),
    "saes.polysemanticity": Result(
        kind="saes.polysemanticity", table=heads(head=[0, 1], low=[0.4, 0.3], high=[0.7, 0.6]),
        manifest=MODEL | {"settings": {"k": 10}},
    ),
    "saes.prefix_on_text": Result(
        kind="saes.prefix_on_text", table=heads(head=[2, 4], before=[0.6, 0.7]), manifest=MODEL
    ),
    "saes.ioi_position": Result(
        kind="saes.ioi_position", table=heads(version=["zero", "same order"]), manifest=MODEL | {"clean": 3.5}
    ),
    "saes.ioi_features": Result(kind="saes.ioi_features", table=heads(feature=[3, 11]), manifest=MODEL | {"clean": 3.5}),
}  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_kind_is_drawn_with_its_title_escaped(kind: str, theme: str) -> None:
    figure = PLOTS[kind](RESULTS[kind], theme=theme)
    assert len(figure.data) >= 2
    assert "<b>" not in figure.layout.title.text and "model" in figure.layout.title.text
    with pytest.raises(OptionError, match="theme"):
        PLOTS[kind](RESULTS[kind], theme="sepia")


def test_shares_are_means_over_the_features_of_the_table() -> None:
    figure = PLOTS["saes.attribution"](RESULTS["saes.attribution"])
    assert list(figure.data[0].y) == pytest.approx([(0.9 + 0.3 + 0.2) / 3, (0.1 + 0.7 + 0.8) / 3])
    same, other, families = figure.data[3:6]
    assert [row[0] for row in same.customdata] == [4, 2] and [row[0] for row in other.customdata] == [0]
    assert dict(zip(families.x, families.y, strict=True)) == {"local": 2, "other": 1}


def test_lines_of_a_head_hold_its_scores_and_its_cut_prefix() -> None:
    lines = {trace.name: trace for trace in PLOTS["saes.long_prefix"](prefix()).data}
    assert list(lines["1.2"].y) == pytest.approx([0.2, 0.4, 0.6])
    assert list(lines["1.2, cut to 1"].y) == pytest.approx([0.2] * 3)
    assert "0.0" not in lines
    with pytest.raises(OptionError, match="most"):
        long_prefix_figure(prefix(), most=0)


def test_steps_say_who_reads_what_from_where() -> None:
    figure = recursive_figure(recursive())
    said = [a.text for a in figure.layout.annotations]
    assert "the feature at 9 from" in said[0] and "head 3.7 at 2 from" in said[1]
    assert not any("<i>" in text or "<b>" in text for text in said)
    assert list(figure.data[0].x) == ["mlp 2", "3.7"]
