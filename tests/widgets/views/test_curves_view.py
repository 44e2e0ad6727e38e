"""CurvesView without a browser: what each kind of thing becomes, what the page is told, saved pages, pictures, errors as words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curves_cases import (
    BUCKETS,
    HEADS,
    LAYERS,
    MODELS,
    NASTY,
    POLICIES,
    evaluation,
    models,
    perplexity,
    sae_log,
    sinks_log,
    streaming,
    value,
)
from view_cases import Wire

from interp.display import view as open_view
from interp.errors import OptionError
from interp.widgets.views.canvas import LOCK
from interp.widgets.views.curves_source import Chart, Curves, Line, serve
from interp.widgets.views.curves_view import CurvesView


def numbers(buffer: bytes) -> np.ndarray:
    return np.frombuffer(buffer, "<f4")


def panel(view: Any, name: str) -> tuple[list[dict[str, Any]], list[list[np.ndarray]]]:
    """The charts of a panel, and of each its five arrays."""
    reply, buffers = serve(view.source, {"op": "panel", "panel": name, "id": 1})
    assert "error" not in reply, reply
    arrays = [numbers(b) for b in buffers]
    return reply["charts"], [arrays[5 * n : 5 * n + 5] for n in range(len(reply["charts"]))]


def test_streaming_losses_are_points_with_intervals_on_a_logarithm() -> None:
    shown = streaming().view()
    charts, arrays = panel(shown, "streaming")
    assert [c["title"] for c in charts] == ["perplexity", "times that of full"]
    assert [line["name"] for line in charts[0]["lines"]] == list(POLICIES)
    assert charts[0]["labels"] == list(BUCKETS) and charts[0]["log"] and not charts[0]["joined"]
    _, values, low, high, heads = arrays[0]
    expected = [[perplexity(p, b) for b in range(len(BUCKETS))] for p in range(len(POLICIES))]
    np.testing.assert_allclose(values.reshape(3, 5), expected, rtol=1e-6)
    np.testing.assert_allclose(low, values / 2, rtol=1e-6)
    np.testing.assert_allclose(high, values * 2, rtol=1e-6)
    assert not len(heads)
    # The lines of a ratio are all but the one that it is taken to; 1 is drawn across.
    assert [line["name"] for line in charts[1]["lines"]] == list(POLICIES[1:])
    assert charts[1]["limit"] == [1.0, "full"]
    np.testing.assert_allclose(arrays[1][1].reshape(2, 5), [[1, 4, 4, 4, 4], [1, 16, 16, 16, 16]], rtol=1e-6)
    low_end, high_end = charts[0]["y"]
    assert 0 < low_end < 8 / 5 / 2 and high_end > 2 * perplexity(2, 1)


def test_of_models_the_mean_and_the_heads_that_move_most() -> None:
    shown = models().view(title="a series")
    assert shown.payload["word"] == "statistic" and shown.payload["panels"] == ["entropy", NASTY]
    (chart,), ((_, values, _, _, heads),) = panel(shown, "entropy")
    names = [line["name"] for line in chart["lines"]]
    # Head h of layer number n moves by 3 n + h: the last ones move most.
    order = [(layer, head) for layer in reversed(LAYERS) for head in reversed(range(HEADS))][:8]
    assert names == ["mean of all heads", *(f"{layer}.{head}" for layer, head in order)]
    assert [(line["layer"], line["head"]) for line in chart["lines"][1:]] == order
    rows = values.reshape(9, len(MODELS))
    everything = [[[value(layer, head, m) for m in range(5)] for head in range(HEADS)] for layer in LAYERS]
    np.testing.assert_allclose(rows[0], np.mean(everything, axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(rows[1], [value(17, 2, m) for m in range(5)], rtol=1e-6)
    np.testing.assert_allclose(heads.reshape(len(LAYERS), HEADS, 5), everything, rtol=1e-6)
    # A head that is undefined is not named.
    (other,), _ = panel(shown, NASTY)
    assert "17.2" not in [line["name"] for line in other["lines"]]


def test_an_evaluation_shows_densities_losses_probes_and_every_metric() -> None:
    shown = evaluation().view()
    charts, arrays = panel(shown, "evaluation")
    assert [(c["title"], c["drawn"]) for c in charts] == [
        ("density of features", True),
        ("cross-entropy with z replaced", True),
        ("sparse probes", True),
        ("every metric", False),
    ]
    # Of eleven features one never fires; of the second view all fire on a quarter of the tokens.
    assert arrays[0][1].reshape(2, 50).sum(1).tolist() == [10, 11]
    assert charts[1]["labels"] == ["as it is", "autoencoder", "mean", "zero"]
    assert arrays[1][1].tolist() == [2.0, 2.25, 3.0, 3.5, 1.875, 2.125, 2.875, 3.375]
    assert [line["name"] for line in charts[2]["lines"]] == [
        "1 feature",
        "1 number of z",
        "all of z",
        "shuffled answers",
    ]
    assert charts[2]["labels"] == ["digit", NASTY]
    assert charts[3]["labels"] == ["ev", "ce_clean", "ce_sae", "ce_mean", "ce_zero"]
    np.testing.assert_allclose(arrays[3][1].reshape(2, 5)[:, 0], [0.9, 0.775], rtol=1e-6)


def test_an_evaluation_that_was_saved_opens_without_a_model(tmp_path: Path) -> None:
    from interp.saes.evaluation import Evaluation

    shown = Evaluation.load(evaluation().save(tmp_path / "e")).view()
    assert panel(shown, "evaluation")[0] == panel(evaluation().view(), "evaluation")[0]


def test_a_training_is_thinned_for_the_page_and_whole_in_its_data(tmp_path: Path) -> None:
    shown = open_view("saes.training", sae_log(tmp_path / "run"))
    charts, arrays = panel(shown, "training")
    assert [c["title"] for c in charts] == [
        "loss", "active features per token (L0)", "explained variance", "share of dead features", "share of cross-entropy recovered",
    ]  # fmt: skip
    assert charts[0]["of"] == 1301 and len(arrays[0][0]) == 600
    assert (arrays[0][0][0], arrays[0][0][-1]) == (20, 26020), "first and last step stay"
    np.testing.assert_allclose(arrays[0][1], 1 / arrays[0][0], rtol=1e-5)
    assert arrays[4][0].tolist() == [20, 26020] and arrays[4][1].tolist() == [0.5, 0.75] and not charts[4]["joined"]
    assert (shown.data()["chart"] == "loss").sum() == 1301
    plain = open_view("saes.training", sae_log(tmp_path / "other", steps=3, recovered=False))
    assert len(panel(plain, "training")[0]) == 4


def test_sinks_over_training_by_threshold_rate_and_decay(tmp_path: Path) -> None:
    shown = open_view("entropy.training_sinks", sinks_log(tmp_path / "sinks"))
    assert shown.payload["panels"] == [f"ε = {eps}" for eps in (0.2, 0.3, 0.4, 0.5)]
    charts, arrays = panel(shown, "ε = 0.3")
    assert [c["title"] for c in charts] == [
        f"{what}, weight decay {decay:g}" for what in ("Sink_1, ε = 0.3", "mean α₁") for decay in (0, 0.1)
    ]
    names = [(line["name"], line["dash"]) for line in charts[1]["lines"]]
    assert names == [
        (f"{attention}, learning rate {rate:g}", attention == "sigmoid")
        for rate in (0.001, 0.003)
        for attention in ("sigmoid", "softmax")
    ]
    values = arrays[1][1].reshape(4, 5)
    np.testing.assert_allclose(values[0], np.array([0, 7, 21, 49, 77]) / 100 - 0.03, atol=1e-6)
    assert np.isnan(values[2]).tolist() == [False, False, False, True, False], "the missing step parts the line"
    # A head that spreads evenly over n keys gives the first one 1 / n: the mean over rows of 64 tokens.
    assert charts[2]["limit"][0] == pytest.approx(sum(1 / n for n in range(1, 65)) / 64)
    with pytest.raises(OptionError, match="no sinks over training"):
        open_view("entropy.training_sinks", tmp_path)


CASES: list[Callable[[], Any]] = [streaming, models, evaluation]


@pytest.mark.parametrize("made", CASES)
def test_it_is_saved_drawn_and_tabled(made: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = made().view()
    page = shown.html(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert shown.png(tmp_path / "x.png").stat().st_size > 5000
    assert shown.picture().height < 4000
    assert (shown.data()[["layer", "head"]].dtypes == "int64").all()
    wire = Wire(shown, monkeypatch)
    for message in shown.requests():
        assert "error" not in wire.ask(**message, id=1)[0]
    assert "must be one of" in wire.ask(op="panel", panel="no", id=2)[0]["error"]
    assert "must be one of" in wire.ask(op="panel", panel=["entropy"], id=2)[0]["error"]
    assert "no operation" in wire.ask(op="rows", id=3)[0]["error"]


def test_a_locked_head_is_in_the_picture() -> None:
    shown = models().view()
    assert not (np.asarray(shown.picture()) == LOCK).all(-1).any()
    shown.selection = {"layer": 2, "head": 0, "q": None, "k": None}
    assert (np.asarray(shown.picture()) == LOCK).all(-1).any()


def test_axes_hold_everything_and_a_near_zero_begins_at_zero() -> None:
    def chart(*values: float, **more: Any) -> Chart:
        return Chart(
            title="t", x_title="x", y_title="y", x=np.arange(len(values), dtype=float),
            lines=(Line(name="a", values=np.array(values)),), **more,
        )  # fmt: skip

    assert chart(1.0, 4.0).range[0] == 0.0 and chart(1.0, 4.0).range[1] > 4.0
    low, high = chart(90.0, 100.0).range
    assert 80 < low < 90 and 100 < high < 110
    low, high = chart(-1.0, 4.0).range
    assert low < -1 and high > 4
    low, high = chart(3.0, 3.0).range
    assert low < 3 < high
    assert chart(math.nan, math.nan).range == (0.0, 1.0)
    assert chart(math.nan, 0.0, log=True).range == (1.0, 10.0)
    low, high = chart(1.0, 100.0, 0.0, log=True).range
    assert 0 < low < 1 and high > 100
    assert chart(1.0, 2.0, limit=(9.0, "there")).range[1] > 9


def test_what_cannot_be_drawn_is_said() -> None:
    from interp.results import Result

    other = Result(kind="sinks", table=streaming().table, manifest={})
    with pytest.raises(OptionError, match="got 'sinks'"):
        CurvesView(other)
    with pytest.raises(OptionError, match="no statistic 'x' here"):
        models().view(panel="x")
    with pytest.raises(OptionError, match="nothing to draw"):
        Curves(panels={})
    with pytest.raises(OptionError, match="3 values of each"):
        Chart(title="t", x_title="x", y_title="y", x=np.arange(3.0), lines=(Line(name="a", values=np.ones(2)),))
