"""explore without a browser: every part answers as it would alone, the head's page against the run's own arrays, what is left out, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_cases import index, record
from view_cases import Wire

import interp
from interp.errors import OptionError

TEXT = [11, 29, 7, 3, 5, 13, 17, 19, 23, 2, 31, 37, 41]


@pytest.fixture(scope="module")
def model() -> Any:
    return interp.tiny("llama")


@pytest.fixture(scope="module")
def run(model: Any) -> Any:
    return model.run(TEXT)


def test_it_opens_on_the_head_with_the_largest_value(run: Any) -> None:
    view = interp.explore(run, statistic="entropy")
    values = np.nanmean(run.stats["entropy"].numpy(), -1)
    assert view.shown == np.unravel_index(values.argmax(), values.shape)
    assert view.selected is None
    view.selection = {"layer": 2, "head": 5, "q": None, "k": None}
    assert view.shown == (2, 5)
    view.selection = {"layer": 9, "head": 5, "q": None, "k": None}
    assert view.shown == view.source.first


def test_every_part_answers_as_it_would_alone(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.widgets.views.attention_map import AttentionMapView
    from interp.widgets.views.head_grid import HeadGrid
    from interp.widgets.views.token_view import TokenView

    wire = Wire(interp.explore(run), monkeypatch)
    alone: dict[str, Any] = {
        "grid": HeadGrid(run.frame, kv_heads=2),
        "tokens": TokenView(run),
        "map": AttentionMapView(run.attention[2, 3]),
    }
    messages = {
        "grid": {"op": "values", "statistic": "entropy"},
        "tokens": {"op": "looks", "layer": 1, "head": 4, "at": 7, "direction": "sources", "by": "weight"},
        "map": {"op": "value", "q": 7, "k": 5},
    }
    for part, view in alone.items():
        expected, buffers = view.serve(view.source, messages[part])
        reply, found = wire.ask(op=part, layer=2, head=3, message=messages[part], id=4)
        assert found == buffers
        assert {n: reply[n] for n in expected if n != "id"} == {n: expected[n] for n in expected if n != "id"}
        assert reply["id"] == 4


def test_the_page_of_a_head_says_what_the_run_says(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, (x, y) = Wire(interp.explore(run), monkeypatch).ask(op="head", layer=1, head=4, id=1)
    np.testing.assert_array_equal(np.frombuffer(x, "<f4"), np.arange(len(run.ids)))
    np.testing.assert_allclose(np.frombuffer(y, "<f4"), run.stats["entropy"][1, 4].numpy(), rtol=1e-6)
    entropy = next(s for s in reply["scores"] if s["title"] == "entropy")
    means = run.stats["entropy"].double().nanmean(-1)
    assert entropy["value"] == pytest.approx(float(means[1, 4]), rel=1e-5)
    assert (entropy["rank"], entropy["of"]) == (int((means > means[1, 4]).sum()) + 1, means.numel())
    dense = run.attention[1, 4][:, :].double()
    seen = torch.ones_like(dense).tril()
    share = dense.sum(0) / seen.sum(0)
    best = reply["sinks"][0]
    assert best["position"] == int(share[:-8].argmax())
    assert best["share"] == pytest.approx(float(share[:-8].max()), rel=1e-4)
    assert reply["features"] == []


def test_means_over_ranges_of_a_long_text_are_its_own() -> None:
    from interp.widgets.views.explore_source import BINS, _binned

    rows = np.arange(1009, dtype=np.float32)
    rows[:5] = np.nan
    x, y = _binned(rows)
    assert len(x) == len(y) == BINS
    np.testing.assert_allclose(y[1:], x[1:], rtol=1e-5)
    # The first range is rows 0 to 6, of which 5 and 6 are defined.
    assert (x[0], y[0]) == (3.0, 5.5)


def test_scores_and_features_join(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    from interp.widgets.views.sae_source import FeatureTable

    layers, heads = np.repeat(np.arange(3), 6), np.tile(np.arange(6), 3)
    scores = pd.DataFrame({"layer": layers, "head": heads, "score": np.arange(18) / 32, "spread": 0.5, "control": 0.25})
    features = FeatureTable(index=tuple({**row, "layer": 1} for row in index()), record=record)
    view = interp.explore(run, scores=scores, features=features)
    wire = Wire(view, monkeypatch)
    reply, _ = wire.ask(op="head", layer=1, head=2, id=1)
    assert [f["feature"] for f in reply["features"]] == [7, 11]
    mine = next(s for s in reply["scores"] if s["title"] == "score")
    assert (mine["value"], mine["spread"], mine["control"], mine["rank"]) == (8 / 32, 0.5, 0.25, 10)
    assert wire.ask(op="features", message={"op": "feature", "feature": 3}, id=2)[0]["record"]["feature"] == 3
    with pytest.raises(OptionError, match=r"scores are of 3 layers x 5 heads, the run of 3 x 6"):
        interp.explore(run, scores=scores[scores["head"] < 5])


def test_an_edit_can_be_tried_from_it(model: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    view = interp.explore(run, model=model)
    wire = Wire(view, monkeypatch)
    wire.ask(op="bench", message={"op": "run", "edit": "temperature", "heads": [[1, 1]], "values": {"tau": 0.5}}, id=1)
    view.source.bench.wait(60)
    assert wire.ask(op="bench", message={"op": "state"}, id=2)[0]["state"] == "done"
    assert view.source.bench.texts == [TEXT]


def test_a_calibration_file_is_among_the_edits(
    model: Any, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from interp.interventions import Temperature, to_json

    path = tmp_path / "mine.json"
    path.write_text('{"calibration": 1, "edits": ' + to_json([Temperature(tau={(1, 1): 0.5})]) + "}")
    view = interp.explore(run, model=model, calibrations={"mine": path})
    assert [c["title"] for c in view.payload["bench"]["choices"]][-1] == "calibration file: mine"
    ask = Wire(view, monkeypatch).ask
    ask(op="bench", message={"op": "run", "edit": "mine", "heads": [], "values": {}}, id=1)
    view.source.bench.wait(60)
    assert view.source.bench.outcome.effect.manifest["edits"] == ["Temperature(by head: 1.1)"]
    with pytest.raises(OptionError, match="give model= as well"):
        interp.explore(run, calibrations={"mine": path})


def test_without_queries_and_keys_there_is_a_grid_and_no_map(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    view = interp.explore(model.run(TEXT, keep="none"))
    wire = Wire(view, monkeypatch)
    assert "map" not in view.payload
    assert 'keep="qk"' in wire.ask(op="map", layer=0, head=0, message={"op": "marginals"}, id=1)[0]["error"]
    assert 'keep="qk"' in wire.ask(op="tokens", message={"op": "tokens"}, id=2)[0]["error"]
    assert wire.ask(op="head", layer=0, head=0, id=3)[0]["sinks"] == []
    assert view.picture().height > 0


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"op": "head", "layer": 3, "head": 0}, "layer must be a whole number from 0 to 2"),
        ({"op": "map", "layer": 0, "head": 6}, "head must be a whole number from 0 to 5"),
        ({"op": "map", "layer": 0, "head": 0, "message": {"op": "x"}}, "no operation 'x'"),
        ({"op": "map", "layer": 0, "head": 0}, "no operation None"),
        ({"op": "grid", "message": [1]}, "no operation None"),
        ({"op": "features", "message": {}}, "give features="),
        ({"op": "bench", "message": {}}, "give model="),
        ({"op": "elsewhere"}, "there are: grid, tokens, map, head, features, bench"),
    ],
)
def test_bad_requests_are_answered_with_words(
    run: Any, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any], said: str
) -> None:
    assert said in Wire(interp.explore(run), monkeypatch).ask(id=1, **message)[0]["error"]


def test_layers_that_were_not_captured_are_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some = model.run(TEXT, layers=[0, 2])
    assert (
        "layers are 0, 2" in Wire(interp.explore(some), monkeypatch).ask(op="head", layer=1, head=0, id=1)[0]["error"]
    )
    with pytest.raises(OptionError, match=r"no head 1\.0 here; layers are 0, 2"):
        interp.explore(some, head=(1, 0))
    with pytest.raises(OptionError, match=r"one text"):
        interp.explore(model.run([TEXT, TEXT[:5]]))
    with pytest.raises(OptionError, match="no statistic 'x'"):
        interp.explore(some, statistic="x")


def test_a_saved_page_holds_what_it_needs(run: Any, tmp_path: Path) -> None:
    view = interp.explore(run, head=(1, 4))
    asked = [json.dumps(m, sort_keys=True) for m in view.requests()]
    assert len(asked) == len(set(asked))
    for needed in (
        {"op": "head", "layer": 1, "head": 4},
        {"op": "grid", "message": {"op": "values", "statistic": "entropy"}},
        {"op": "map", "layer": 1, "head": 4, "message": {"op": "marginals"}},
        {"op": "tokens", "message": {"op": "tokens"}},
    ):
        assert json.dumps(needed, sort_keys=True) in asked
    assert view.png(tmp_path / "x.png").stat().st_size > 0
    assert len(view.get_state()["_esm"]) < 160_000


def test_one_channel_to_the_page_is_opened(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import comm

    from interp.widgets.views.head_grid import HeadGrid

    opened: list[str] = []
    create = comm.create_comm
    monkeypatch.setattr(
        comm, "create_comm", lambda **options: (opened.append(options["target_name"]), create(**options))[1]
    )
    HeadGrid(run.frame)._repr_mimebundle_()
    of_one_view = len(opened)
    view = interp.explore(run)
    view.html(tmp_path / "x.html")
    view._repr_mimebundle_()
    assert len(opened) == 2 * of_one_view, "a view that is made for its parts and closed again is an error on the page"


def test_the_tiles_of_a_few_heads_are_kept(run: Any) -> None:
    from interp.widgets.views.explore_source import REMEMBERED

    source = interp.explore(run).source
    first = source.pictured(0, 0).a
    assert source.pictured(0, 0).a is first
    for head in range(6):
        source.pictured(1, head), source.pictured(2, head)
    assert len(source._tiles) == REMEMBERED
    assert source.pictured(0, 0).a is not first
