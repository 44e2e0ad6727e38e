"""HeadGrid without a browser: answers of the real comm path against the table's own numbers, tables of every form, picture, bus, static display."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from view_cases import HEADS, KV_HEADS, LAYERS, NASTY, Wire, frame, scores

from interp.errors import OptionError, OutputError

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def grid(**options: Any) -> Any:
    from interp.widgets.views.head_grid import HeadGrid

    return HeadGrid(frame(), **{"kv_heads": KV_HEADS, "title": "planted", **options})


def test_a_statistic_comes_back_exactly_through_the_comm(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(grid(), monkeypatch)
    for name, expected in scores().items():
        reply, buffers = wire.ask(op="values", statistic=name, id=7)
        values, spread, control = (np.frombuffer(b, "<f4").reshape(len(LAYERS), HEADS) for b in buffers)
        np.testing.assert_array_equal(values, expected.astype(np.float32))
        np.testing.assert_array_equal(spread, (expected / 4).astype(np.float32))
        assert np.isnan(control).all()
        assert (reply["id"], reply["k"], reply["rev"]) == (7, 3, 0)
        known = expected[~np.isnan(expected)].astype(np.float32)
        assert (reply["low"], reply["high"]) == (known.min(), known.max())
        assert reply["log"] == (name == "effective_keys")


def test_a_host_without_buffers_gets_the_same_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(grid(), monkeypatch)
    _, buffers = wire.ask(op="values", statistic="entropy", id=1)
    reply, none = wire.ask(op="values", statistic="entropy", id=2, b64=True)
    assert none == []
    assert [base64.b64decode(text) for text in reply["b64"]] == buffers


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, "no operation None"),
        ({"op": "no"}, "there are: values, clusters"),
        ({"op": ["values"]}, "no operation"),
        ({"op": "values"}, "must be one of entropy"),
        ({"op": "values", "statistic": 3}, "must be one of entropy"),
        ("values", "no operation"),
        (None, "no operation"),
    ],
)
def test_a_bad_request_is_answered_with_words(message: object, said: str) -> None:
    from interp.widgets.views.head_table import serve

    reply, buffers = serve(grid().source, message)
    assert said in reply["error"]
    assert buffers == []


def test_an_operation_that_breaks_is_an_answer_too() -> None:
    from interp.widgets.views.protocol import answer

    reply, buffers = answer({"divide": lambda source, message: 1 / source}, 0, {"op": "divide", "id": 3})
    assert (reply, buffers) == ({"id": 3, "error": "ZeroDivisionError: division by zero"}, [])


def test_alike_heads_are_neighbours_in_the_order_of_clusters() -> None:
    from interp.widgets.views.head_table import head_table

    kinds = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1])  # 2 layers of 7 heads, three kinds far apart
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "layer": np.repeat([0, 1], 7),
                "head": np.tile(np.arange(7), 2),
                "statistic": name,
                "value": 10.0 * (kinds == kind) + rng.random(14),
            }
        )
        for kind, name in enumerate("abc")
    ]
    order = head_table(pd.concat(parts)).cluster_order()
    assert sorted(order) == list(range(14))
    assert (np.diff(kinds[order]) != 0).sum() == 2, "each kind stands together"


def test_an_analysis_table_gives_every_score_with_its_companions() -> None:
    from interp.widgets.views.head_table import head_table

    table = pd.DataFrame(
        {
            "layer": [0, 0, 1, 1],
            "head": [0, 1, 0, 1],
            "score": [1.0, 2.0, 3.0, np.nan],
            "spread": 0.5,
            "control": 0.25,
            "mass": 4.0,
            "mass_control": 5.0,
            "label": "x",
        }
    )
    read = head_table(table)
    assert list(read.columns) == ["score", "mass"]
    np.testing.assert_array_equal(read.columns["score"].values, [[1, 2], [3, np.nan]])
    np.testing.assert_array_equal(read.columns["score"].spread, np.full((2, 2), 0.5))
    np.testing.assert_array_equal(read.columns["mass"].control, np.full((2, 2), 5.0))
    assert np.isnan(read.columns["mass"].spread).all()
    twice = pd.concat([table.assign(label="x"), table.assign(label="y")])
    assert list(head_table(twice).columns) == ["x: score", "x: mass", "y: score", "y: mass"]
    with pytest.raises(OptionError, match="several rows for one head"):
        head_table(pd.concat([table, table]))
    with pytest.raises(OptionError, match="head are missing"):
        head_table(pd.DataFrame({"layer": [0]}))
    with pytest.raises(OptionError, match="groups"):
        head_table(table, kv_heads=1).__class__(layers=(0,), heads=2, group=3, columns=read.columns)


def test_data_gives_the_table_back() -> None:
    data = grid().data().merge(frame(), on=["layer", "head", "statistic"])
    assert len(data) == len(LAYERS) * HEADS * 3
    np.testing.assert_array_equal(data["value_x"], data["value_y"].astype(np.float32))


def test_what_the_page_sets_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    view = grid()
    wire = Wire(view, monkeypatch)
    wire.set(selection={"layer": 5, "head": 1, "q": -3, "k": "x", "evil": 1}, picks=[[2, 0], [2, 0], ["a", 1], 7])
    assert view.selection == {"layer": 5, "head": 1, "q": None, "k": None}
    assert view.selected == (5, 1)
    assert view.picked == [(2, 0)]


def test_views_on_one_bus_follow_each_other_and_hover_changes_no_lock() -> None:
    from interp.widgets.views.selection import Selection

    bus = Selection()
    bus.lock(layer=7, head=2)
    one, other = grid(link=bus), grid(link=bus)
    assert one.selected == other.selected == (7, 2)
    one.selection = {"layer": 3, "head": 4, "q": 11, "k": None}
    assert other.selection == bus.locked == {"layer": 3, "head": 4, "q": 11, "k": None}
    other.hover = {"layer": 2, "head": 0, "q": None, "k": None}
    assert one.hover == bus.hover == other.hover
    assert one.selected == (3, 4)
    bus.clear()
    assert one.selected is None


def test_the_picture_has_the_colours_of_the_numbers(tmp_path: Path) -> None:
    from PIL import Image

    from interp.widgets.colours import sequential

    view = grid()
    picture = np.asarray(Image.open(view.png(tmp_path / "grid.png")))
    values = scores()["entropy"].astype(np.float32)
    part = (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))
    found = {tuple(int(v) for v in pixel) for pixel in picture.reshape(-1, 3)}
    for share in part[~np.isnan(part)]:
        assert tuple(int(v) for v in sequential()[int(np.floor(255 * float(share) + 0.5))]) in found


def test_the_bundle_has_widget_and_picture_and_static_leaves_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from interp.widgets.views import static as module

    view = grid()
    data, metadata = view._repr_mimebundle_()
    assert data[WIDGET_MIME]["model_id"] == view.model_id
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert metadata["image/png"] == {"width": image.width // 2, "height": image.height // 2}
    assert data["text/plain"] == "HeadGrid('planted')"
    monkeypatch.setenv("INTERP_STATIC", "1")
    assert WIDGET_MIME not in view._repr_mimebundle_()[0]
    module(False)
    try:
        assert WIDGET_MIME in view._repr_mimebundle_()[0], "what was chosen in Python holds"
    finally:
        module(True)
    assert WIDGET_MIME not in view._repr_mimebundle_()[0]


def test_the_state_that_a_notebook_keeps_is_small() -> None:
    state = grid().get_state()
    values = {name: v for name, v in state.items() if name not in ("_esm", "_css")}
    assert len(str(values)) < 4000
    assert len(state["_esm"]) < 40_000


def test_results_open_their_view_by_kind() -> None:
    from interp.display import view
    from interp.results import Result

    table = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "score": [1.0, 2.0], "spread": 0.5, "control": 0.25})
    opened = Result(kind="heads.induction", table=table, manifest={}).view(title="mine")
    assert (type(opened).__name__, opened.title) == ("HeadGrid", "mine")
    assert type(view("heads", frame(), statistic=NASTY)).__name__ == "HeadGrid"
    with pytest.raises(OptionError, match="no view opens the kind 'nothing'"):
        view("nothing", None)


def test_a_run_opens_with_its_key_groups() -> None:
    import interp

    model = interp.tiny("llama")
    run = model.run("a b c d e f g")
    opened: Any = run.view()
    assert opened.payload["group"] == model.hf.config.num_attention_heads // model.hf.config.num_key_value_heads > 1
    np.testing.assert_allclose(
        opened.data().query("statistic == 'entropy'")["value"],
        run.frame.query("statistic == 'entropy'")["value"],
        rtol=1e-6,
    )


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write x\.png"):
        grid().png(tmp_path / "missing" / "x.png")
