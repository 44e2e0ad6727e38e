"""Figures of head analyses: every kind that is returned can be drawn, numbers stand in their places, text is shown as text."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp import display
from interp.errors import OptionError
from interp.results import Result
from interp.widgets.kinds import PLOTS

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("calibration", "circuits", "entropy", "explain", "heads", "interventions", "sinks")
LAYERS, HEADS = 3, 5
NASTY = "<img src=x onerror=alert(1)>"


def table(layers: int = LAYERS) -> pd.DataFrame:
    """A score that names its place: 100 layer + head, its control 50 less."""
    layer, head = np.repeat(np.arange(layers), HEADS), np.tile(np.arange(HEADS), layers)
    score = 100.0 * layer + head
    return pd.DataFrame({"layer": layer, "head": head, "score": score, "spread": score / 10, "control": score - 50})


def result(kind: str, frame: pd.DataFrame | None = None, **more: object) -> Result:
    manifest = {"model": {"name": NASTY}} | dict(more.pop("manifest", {}))  # type: ignore[call-overload]
    return Result(kind=kind, table=table() if frame is None else frame, manifest=manifest, **more)  # type: ignore[arg-type]


def returned_kinds() -> set[str]:
    """Every kind that the analyses give to a `Result`."""
    found = set()
    for path in [f for part in PARTS for f in (ROOT / "interp" / part).glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Result":
                found |= {k.value.value for k in node.keywords if k.arg == "kind" and isinstance(k.value, ast.Constant)}
    return found | {f"heads.{name}" for name in ("previous_token", "duplicate_token", "induction")}  # an f-string there


def test_every_kind_that_is_returned_can_be_drawn() -> None:
    kinds = returned_kinds()
    assert len(kinds) > 12
    assert kinds <= set(PLOTS)


def test_score_and_control_share_their_colours() -> None:
    frame = table().sample(frac=1, random_state=2)
    figure = display.plot("heads.copying", result("heads.copying", frame))
    score, control = figure.data
    assert score.z[4][2] == 204  # rows are heads
    assert control.z[4][2] == 154
    assert score.x == ("0", "1", "2")
    assert score.coloraxis == control.coloraxis == "coloraxis"
    assert score.customdata[4][2].tolist() == pytest.approx([20.4, 154.0])  # spread and control in the hover
    assert "spread: %{customdata[0]:.3g}" in score.hovertemplate
    assert figure.layout.yaxis.autorange == "reversed"
    assert "<img" not in figure.layout.title.text


def test_without_a_control_there_is_one_map_and_words_are_escaped() -> None:
    frame = table().assign(control=np.nan, labels=NASTY, other=7.0, other_control=1.0)
    figure = display.plot("heads.report", result("heads.report", frame))
    assert len(figure.data) == 1
    assert "<img" not in str(figure.data[0].customdata)
    assert "&lt;img" in str(figure.data[0].customdata)
    assert len(display.plot("heads.report", result("heads.report", frame), "other", "dark").data) == 2
    with pytest.raises(OptionError, match="labels"):
        display.plot("heads.report", result("heads.report", frame), "labels")
    with pytest.raises(OptionError, match="theme"):
        display.plot("heads.report", result("heads.report", frame), theme="grey")


def test_many_layers_stand_above_each_other() -> None:
    tall = display.plot("heads.qrhead", result("heads.qrhead", table(17)))
    flat = display.plot("heads.qrhead", result("heads.qrhead", table(16)))
    assert (tall.data[1].xaxis, tall.layout.yaxis2.domain[1] < tall.layout.yaxis.domain[0]) == ("x2", True)
    assert flat.layout.xaxis2.domain[0] > flat.layout.xaxis.domain[1]


def test_the_grid_of_a_retrieval_head() -> None:
    grid = np.arange(2 * 3 * LAYERS * HEADS, dtype=float).reshape(2, 3, LAYERS, HEADS) / 100
    arrays = {"grid": grid, "grid_accepted": np.array([[1, 2, 3], [4, 5, 6]])}
    settings = {"settings": {"lengths": [512, 1024], "depths": [0.1, 0.5, 0.9]}}
    given = result("heads.retrieval", arrays=arrays, manifest=settings)
    (heat,) = display.plot("heads.retrieval", given, head=(2, 4)).data
    assert heat.z[1][0] == pytest.approx(grid[0, 1, 2, 4])  # rows are depths, columns lengths
    assert heat.customdata[2][1] == 6
    assert heat.x == ("512", "1024")
    assert heat.y == ("10 %", "50 %", "90 %")
    assert len(display.plot("heads.retrieval", given).data) == 2
    with pytest.raises(OptionError, match=r"9\.9"):
        display.plot("heads.retrieval", given, head=(9, 9))
    with pytest.raises(OptionError, match="no grid"):
        display.plot("heads.retrieval", result("heads.retrieval"), head=(0, 0))


def test_tasks_of_a_successor_head() -> None:
    frame = table().assign(days=0.25, months=lambda t: t["head"] / 10)
    given = result(
        "heads.successor", frame, manifest={"lists": [{"task": "days"}, {"task": "months"}, {"task": "days"}]}
    )
    figure = display.plot("heads.successor", given, head=(1, 3))
    assert figure.data[0].x == ("days", "months")
    assert figure.data[0].y == (0.25, 0.3)
    assert figure.layout.shapes[0].y0 == 53.0  # the control


def test_sinks() -> None:
    rates = {kind: {"0.2": 0.5 + n / 10, "0.3": 0.25} for n, kind in enumerate(("natural", "random", "repeated"))}
    given = result("sinks", arrays={"phi": np.arange(12.0).reshape(4, 3)}, manifest={"sink_1": rates})
    bars = display.plot("sinks", given, view="rates").data
    assert [b.name for b in bars] == ["natural", "random", "repeated"]
    assert [b.y[0] for b in bars] == [0.5, 0.6, 0.7]
    (heat,) = display.plot("sinks", given, view="phi").data
    assert heat.z[3][2] == 11


def test_the_embedding_tells_clusters_by_shape_and_colour() -> None:
    frame = table().assign(cluster=lambda t: t["head"] % 3, labels=NASTY, tsne_1=1.0, tsne_2=2.0, pca_1=3.0, pca_2=4.0)
    figure = display.plot("heads.embedding", result("heads.embedding", frame), view="pca")
    assert len({(t.marker.symbol, t.marker.color) for t in figure.data}) == 3
    assert figure.data[1].text[0].startswith("0.1 &lt;img")
    assert set(figure.data[0].x) == {3.0}


def test_ablations_stand_beside_their_controls() -> None:
    rows = pd.DataFrame(
        {
            "layer": -1,
            "head": -1,
            "score": [0.5, 0.6, 0.7],
            "control": [0.1, 0.2, 0.3],
            "spread": [0.01, 0.02, 0.03],
            "label": ["induction", "induction", NASTY],
            "kind": ["zero", "mean", "zero"],
            "metric": ["loss", "loss", NASTY],
            "base": 1.0,
            "k": [1, 5, 10],
        }
    )
    figure = display.plot("heads.confirm", result("heads.confirm", rows))
    chosen, random, *others = figure.data
    assert chosen.x == ("induction, zero", "induction, mean")
    assert tuple(chosen.y) == (0.5, 0.6)
    assert tuple(random.y) == (0.1, 0.2)
    assert tuple(random.error_y.array) == (0.01, 0.02)
    assert len(others) == 2
    assert "<img" not in str(figure.layout) + str(others[0].x)
    causal = display.plot("heads.causal_retrieval", result("heads.causal_retrieval", rows.head(2)))
    assert causal.data[0].x == ("k = 1", "k = 5")
