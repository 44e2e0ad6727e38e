"""CompareView without a browser: changes against hand-worked numbers, two of a kind, signs, recipes, refusals, picture and registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from compare_cases import HEADS, LAYERS, NASTY, before, change, effects, heads, patching, scans
from view_cases import Wire

from interp.errors import OptionError
from interp.results import Result


def view(*things: Any, **options: Any) -> Any:
    from interp.widgets.views.compare_view import CompareView

    return CompareView(*things, **options)


def grids(buffers: list[bytes]) -> list[np.ndarray]:
    return [np.frombuffer(b, "<f4").reshape(len(LAYERS), HEADS) for b in buffers]


def test_the_metrics_of_an_edit_come_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, buffers = Wire(view(effects()), monkeypatch).ask(op="effects", id=3)
    first, second = reply["rows"]
    sides, bounds = {"before": 2.0, "after": 2.5, "change": 0.5}, {"low": 0.25, "high": 0.75, "sd": None}
    assert first == {"name": "cross-entropy", **sides, **bounds, "control": 0.125, "control_sd": 0.0625}
    assert (second["change"], second["control"], second["low"]) == (-0.25, None, None)
    assert second["name"] == NASTY
    assert (buffers, reply["of"], reply["id"]) == ([], 2, 3)


def test_two_tables_are_compared_head_by_head(monkeypatch: pytest.MonkeyPatch) -> None:
    made = view(heads(before()), heads(before() + change()))
    reply, buffers = Wire(made, monkeypatch).ask(op="heads", name="entropy", id=1)
    shift, one, other, spread, control, low, high = grids(buffers)
    np.testing.assert_array_equal(shift, change().astype(np.float32))
    np.testing.assert_array_equal(one, before().astype(np.float32))
    np.testing.assert_array_equal(other[:2], (before() + change())[:2].astype(np.float32))
    assert np.isnan(spread).all()
    assert np.isnan(control).all()
    assert np.isnan(low).all() and np.isnan(high).all()
    assert reply["limit"] == 11 / 32
    (mean,) = made.source.effects
    assert mean.change == pytest.approx(np.nanmean(change()))
    assert mean.before == pytest.approx(before().ravel()[:20].mean())
    assert mean.low < mean.change < mean.high


def test_two_results_show_the_change_of_their_controls_too() -> None:
    one = patching()
    other = replace(one, table=one.table.assign(score=one.table["score"] + 0.25, control=one.table["control"] - 0.125))
    (mean,) = view(one, other).source.effects
    assert (mean.change, mean.control) == (pytest.approx(0.25), pytest.approx(-0.125))


def test_two_results_about_no_head_are_joined_by_metric() -> None:
    one = effects()
    other = replace(one, table=one.table.assign(score=[0.75, -0.5]).iloc[::-1])
    first, second = view(one, other).source.effects
    assert (first.name, first.before, first.after, first.change) == ("cross-entropy", 0.5, 0.75, 0.25)
    assert second.change == -0.25


def test_the_effects_of_patching_are_changes_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    made = view(patching())
    (name,) = made.source.names
    _, buffers = Wire(made, monkeypatch).ask(op="heads", name=name, id=1)
    shift, one, _, spread, control, _, _ = grids(buffers)
    np.testing.assert_array_equal(shift, change().astype(np.float32))
    np.testing.assert_array_equal(control, (change() / 2).astype(np.float32))
    assert (spread == 0.5).all()
    assert np.isnan(one).all()


LOST = (0.75, 0.5, 0.25, -0.125, (-0.25, 0.125))
RISEN = (2.0, 3.0, 1.0, 0.5, (1.0, 0.5))


@pytest.mark.parametrize(("base", "after", "score", "control", "expected"), [LOST, RISEN])
def test_what_an_analysis_counts_as_a_loss_is_a_fall_here(
    base: float, after: float, score: float, control: float, expected: tuple[float, float]
) -> None:
    row = {"layer": -1, "head": -1, "score": score, "spread": 0.1, "control": control, "base": base, "ablated": after}
    row |= {"k": 3, "kind": "zero", "metric": "recall"}
    (effect,) = view(Result(kind="heads.causal_retrieval", table=pd.DataFrame([row]), manifest={})).source.effects
    assert (effect.change, effect.control, effect.control_sd) == (*expected, 0.1)
    assert effect.name == "k = 3, zero, recall"


def test_a_deployment_states_the_metric_and_not_its_change() -> None:
    row = {"layer": -1, "head": -1, "metric": "recall", "score": 0.5, "spread": 0.25, "control": 0.375, "base": 0.75}
    (effect,) = view(Result(kind="heads.deployment", table=pd.DataFrame([row]), manifest={})).source.effects
    assert (effect.before, effect.after, effect.change, effect.control) == (0.75, 0.5, -0.25, -0.375)


def test_the_recipe_is_json_and_says_how() -> None:
    made = json.loads(view(effects()).payload["recipe"])
    assert made["kind"] == "interventions.text_effects"
    assert made["edits"] == ["AblateHeads(zero: 1.2)"]
    assert made["settings"] == {"x": None}
    assert made["model"] == {"name": NASTY + "?"}, "a comm cannot carry a lone surrogate"
    both = json.loads(view(effects(), effects()).payload["recipe"])
    assert both["before"]["seed"] == both["after"]["seed"] == 5


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (heads(before()), heads(before()[:, :7], "other"), "0 numbers in common"),
        (heads(before()), heads(before())[lambda f: f["layer"] < 5], "3 layers x 7 heads and 2 layers"),
        (effects(), patching(), "measure different things"),
        (3, 4, "a int has no numbers of heads"),
        (3, None, "a int has no numbers of heads"),
    ],
)
def test_what_cannot_be_compared_is_said(first: object, second: object, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        view(first, second)


def test_bad_requests_are_answered_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(view(patching()), monkeypatch)
    assert "must be one of" in wire.ask(op="heads", name=["x"], id=1)[0]["error"]
    assert "no operation" in wire.ask(op="table", id=2)[0]["error"]


def test_the_table_has_metrics_and_heads() -> None:
    data = view(heads(before()), heads(before() + change())).data()
    assert len(data) == 1 + len(LAYERS) * HEADS
    row = data.query("layer == 5 and head == 0").iloc[0]
    assert (row["before"], row["change"]) == (14 / 64, 6 / 32)


def test_colours_are_symmetric_about_a_fixed_zero() -> None:
    from interp.widgets.diverging import NOTHING, ZERO, diverging, signed_index

    values = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 3.0, np.nan])
    assert signed_index(values, 1.0).tolist() == [0, 64, ZERO, 191, 254, 254, -1]
    assert signed_index(np.array([0.25]), 0.0).tolist() == [ZERO]
    table = diverging().astype(int)
    assert table.shape == (255, 3)
    assert (table[ZERO] == NOTHING).all()
    blue, orange = table[:ZERO], table[ZERO + 1 :]
    assert (blue[:, 2] > blue[:, 0]).all()
    assert (orange[:, 0] > orange[:, 2]).all()


def test_the_picture_has_the_colours_of_the_changes(tmp_path: Path) -> None:
    from PIL import Image

    from interp.widgets.diverging import diverging

    picture = np.asarray(Image.open(view(patching()).png(tmp_path / "x.png")))
    found = {tuple(int(v) for v in pixel) for pixel in picture.reshape(-1, 3)}
    for x in change()[~np.isnan(change())]:
        index = 127 + int(np.floor(np.float64(np.float32(x)) / (11 / 32) * 127 + 0.5))
        assert tuple(int(v) for v in diverging()[index]) in found


def test_saved_results_open_by_kind_without_a_model(tmp_path: Path) -> None:
    for result in (effects(), patching()):
        opened: Any = Result.load(replace(result, manifest={}).save(tmp_path / result.kind)).view()
        assert type(opened).__name__ == "CompareView"


def test_two_runs_are_compared() -> None:
    import interp

    model = interp.tiny("llama")
    one, other = model.run("a b c d e"), model.run("e d c b a")
    made = view(one, other).source
    expected = other.stats["entropy"].nanmean(-1) - one.stats["entropy"].nanmean(-1)
    np.testing.assert_allclose(made.column("entropy").values, expected.numpy(), atol=1e-6)
    assert json.loads(made.recipe)["after"]["kind"] == "run"


def test_two_maps_share_one_viewport() -> None:
    import interp
    from interp.widgets.views import compare

    run = interp.tiny("llama").run("a b c d e")
    both: Any = compare(run.attention[0, 1], run.attention[2, 3], title="two heads")
    assert (type(both).__name__, both.title) == ("AttentionMapView", "two heads")
    assert both.payload["which"] == ["a", "b", "difference"]
    assert type(compare(effects(), effects())).__name__ == "CompareView"


def test_steps_of_an_attribution_are_maps_of_their_own() -> None:
    rows = [
        {"layer": layer, "head": head, "score": step + layer / 4 + head, "spread": 0.5, "control": 0.25}
        | {"part": "head" if head >= 0 else "mlp", "step": step, "query": 7, "source": 3}
        for step in (0, 1)
        for layer in (0, 1)
        for head in (-1, 0, 1, 2)
    ]
    made = view(Result(kind="saes.recursive_dfa", table=pd.DataFrame(rows), manifest={})).source
    assert made.names == ["step 0: score", "step 1: score"]
    np.testing.assert_array_equal(made.column("step 1: score").values, [[1, 2, 3], [1.25, 2.25, 3.25]])
    assert [e.name for e in made.effects] == [
        "step 0, mlp, layer 0",
        "step 0, mlp, layer 1",
        "step 1, mlp, layer 0",
        "step 1, mlp, layer 1",
    ]


# ------------------------------------------------------------------ two scans
def test_two_scans_show_both_means_and_the_interval_of_every_head(monkeypatch: pytest.MonkeyPatch) -> None:
    made = scans().view()
    assert made.title == "large less small"
    assert set(made.source.names) == {"entropy", NASTY}
    reply, buffers = Wire(made, monkeypatch).ask(op="heads", name="entropy", id=1)
    shift, one, other, spread, control, low, high = grids(buffers)
    known = np.isfinite(change())
    np.testing.assert_allclose(shift, change().astype(np.float32), atol=1e-6)
    np.testing.assert_allclose(one, before(), atol=1e-6)
    np.testing.assert_allclose(other[known], (before() + change())[known], atol=1e-6)
    np.testing.assert_allclose(low, change() - 1 / 64, atol=1e-6)
    np.testing.assert_allclose(high, change() + 1 / 32, atol=1e-6)
    assert (spread == 1 / 128).all() and np.isnan(control).all()
    assert reply["limit"] == pytest.approx(11 / 32)
    mean = next(e for e in made.source.effects if "entropy" in e.name)
    assert mean.change == pytest.approx(np.nanmean(change()), abs=1e-6)
    assert mean.low < mean.change < mean.high
    assert made.payload["ends"] == ["A: small", "B: large"]
    assert made.payload["note"] == "Intervals of single heads (90 %): paired bootstrap over shards."
    said = json.loads(made.payload["recipe"])
    assert (said["kind"], said["differences"]) == ("batch.compare", {"model": ["small", "large"]})
    row = made.data().query("name == 'entropy' and layer == 3 and head == 2").iloc[0]
    assert (row["low"], row["high"]) == (pytest.approx(1 / 32 - 1 / 64, abs=1e-6), pytest.approx(1 / 16, abs=1e-6))
    assert made.picture().width > 0


def test_intervals_of_several_kinds_are_told_apart_by_analysis() -> None:
    methods = {"entropy": "bootstrap over samples", NASTY: "no interval: the result keeps no repeats"}
    made = scans()
    settings = made.manifest["settings"] | {"method": "by the analysis, see methods", "methods": methods}
    note = replace(made, manifest={**made.manifest, "settings": settings}).view().payload["note"]
    assert note == f"Intervals of single heads (90 %): entropy: {methods['entropy']}; {NASTY}: {methods[NASTY]}."


def test_names_of_scans_are_text(tmp_path: Path) -> None:
    page = scans((NASTY, "b")).view().html(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
