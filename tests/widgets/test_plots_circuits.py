"""Figures of circuits and effects: numbers stand in their places, controls beside them, text is shown as text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp import display
from interp.errors import OptionError
from interp.results import Result
from interp.widgets.kinds import PLOTS

NASTY = "<b>m</b>"
KINDS = [kind for kind in PLOTS if kind.startswith(("circuits.", "interventions."))]


def patched(kind="circuits.activation_patching"):
    """Three layers, two positions; z of five heads and k of two key heads; a score that names its place."""
    rows = [
        {"layer": a, "head": b, "score": 100 * a + b + 0.5 * (label == "end") - 1000 * (site == "k"), "spread": 0.1, "control": 7.0,
         "site": site, "position": label}
        for site, heads in (("z", 5), ("k", 2)) for label in ("all", "end") for a in range(3) for b in range(heads)
    ]  # fmt: skip
    return Result(kind=kind, table=pd.DataFrame(rows), manifest={"model": {"name": NASTY}})


def bars(kind, **columns):
    base = {
        "layer": -1,
        "head": -1,
        "score": [0.5, -2.0],
        "spread": [0.1, 0.2],
        "control": [0.25, -1.0],
        "low": [0.4, -2.5],
        "high": [0.75, -1.0],
    }
    manifest = {"model": {"name": NASTY}, "controls": "given", "edits": [NASTY], "settings": {}}
    return Result(kind=kind, table=pd.DataFrame(base | columns), manifest=manifest)


def test_every_kind_of_this_part_is_drawn():
    assert set(KINDS) == {
        "circuits.activation_patching", "circuits.attribution_patching", "circuits.path_patching", "circuits.direct_logit_attribution",
        "circuits.codes", "circuits.knockout_sweep", "circuits.overlap", "interventions.text_effects", "interventions.answer_effects",
        "interventions.generation_effects",
    }  # fmt: skip


def test_heads_of_one_site_and_position_stand_in_their_places():
    figure = display.plot("circuits.activation_patching", patched(), site="k", position="end")
    np.testing.assert_allclose(figure.data[0].z, [[-1000 + 100 * a + b + 0.5 for a in range(3)] for b in range(2)])
    assert (np.asarray(figure.data[1].z) == 7).all()
    assert "site k, position end" in figure.layout.title.text
    assert "<b>" not in figure.layout.title.text
    first = display.plot("circuits.path_patching", patched("circuits.path_patching"), theme="dark")
    assert first.data[0].z[4][2] == 204
    with pytest.raises(OptionError, match="site must be one of z, k"):
        patched().plot(site="q")


def test_parts_of_an_attribution_are_bars():
    parts = {
        "heads": 1.5,
        "mlps": 2.0,
        "embedding": -0.25,
        "biases": 0.0,
        "sum": 3.25,
        "logit difference": 3.25,
        "largest error": 1e-6,
    }
    result = Result(
        kind="circuits.direct_logit_attribution", table=patched().table.iloc[:15:2], manifest={"parts": parts}
    )
    assert list(result.plot(view="parts").data[0].y) == [1.5, 2.0, -0.25, 0.0, 3.25, 3.25]


def test_knock_outs_are_lines_with_their_interval():
    result = bars("circuits.knockout_sweep", layer=[0, 1])
    result = Result(
        kind=result.kind, table=result.table, manifest={"settings": {"window": 3, "keys": "a", "queries": "b"}}
    )
    band, line, control = result.plot().data
    assert list(line.y) == [0.5, -2.0]
    assert list(control.y) == [0.25, -1.0]
    assert list(band.y) == [0.75, -1.0, -2.5, 0.4]
    assert list(band.x) == [0, 1, 1, 0]


def test_effects_and_overlaps_stand_beside_their_controls():
    figure = bars("interventions.text_effects", metric=["a<b", "c"]).plot()
    assert [list(trace.y) for trace in figure.data] == [[0.5], [0.25], [-2.0], [-1.0]]
    assert list(figure.data[0].error_y.array) == [0.25]
    np.testing.assert_allclose(figure.data[0].error_y.arrayminus, [0.1])
    assert list(figure.data[1].error_y.array) == [0.1]
    assert "a&lt;b" in {note.text for note in figure.layout.annotations}
    figure = bars("circuits.overlap", k=[5, 10]).plot()
    assert [list(trace.x) for trace in figure.data] == [["k = 5", "k = 10"]] * 2


def test_scores_of_codes_stand_beside_null_and_chance():
    rows = [
        {
            "score": name,
            "average_precision": value,
            "low": value - 0.1,
            "high": value + 0.2,
            "null": null,
            "chance": 0.1,
        }
        for name, value, null in (("node", 0.3, 0.25), ("edge", 0.4, 0.35), ("paired norm", 0.6, None))
    ]
    table = pd.DataFrame(
        {
            "layer": [0, 0],
            "head": [0, 1],
            "score": [1.0, 2.0],
            "spread": [0.0, 0.0],
            "control": [0.5, 0.5],
            "true": [True, False],
        }
    )
    result = Result(kind="circuits.codes", table=table, manifest={"model": {"name": NASTY}, "identification": rows})
    figure = result.plot()
    assert list(figure.data[0].y) == [0.3, 0.4, 0.6] and list(figure.data[1].y) == [0.25, 0.35, None]
    np.testing.assert_allclose(figure.data[0].error_y.arrayminus, 0.1)
    assert figure.layout.shapes[0].y0 == 0.1
    assert "1 heads to find" in figure.layout.title.text and "<b>" not in figure.layout.title.text
