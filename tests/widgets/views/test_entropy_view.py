"""EntropyView without a browser: reports, distance profiles against a dense map, monitors as they train, kept trainings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sink_cases import EDGES, HEADS, LAYERS, entropy_arrays, entropy_report
from torch import nn
from view_cases import Wire


def view(given: Any = None, **options: Any) -> Any:
    from interp.widgets.views.entropy_view import EntropyView

    return EntropyView(entropy_report() if given is None else given, **options)


def test_a_report_comes_back_with_its_control_and_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, a = Wire(view(), monkeypatch), entropy_arrays()
    reply, buffers = wire.ask(op="track", track="report", id=1)
    assert reply["quantities"] == ["score", "effective_keys"] and reply["alarms"] == []
    assert [len(b) for b in buffers] == [4, 0, 0]
    reply, (values, control) = wire.ask(op="values", track="report", quantity="score", id=2)
    np.testing.assert_array_equal(np.frombuffer(values, "<f4").reshape(LAYERS, HEADS), a["score"])
    np.testing.assert_array_equal(np.frombuffer(control, "<f4").reshape(LAYERS, HEADS), a["control"])
    assert (reply["low"], reply["high"], reply["log"]) == (0, 1, False)
    reply, (values, control) = wire.ask(op="values", track="report", quantity="effective_keys", id=3)
    assert reply["log"] and reply["high"] == pytest.approx(a["effective_keys"].max())
    assert np.isnan(np.frombuffer(control, "<f4")).all()
    _, (whole, rest) = wire.ask(op="profile", profile="position", layer=2, head=3, id=4)
    np.testing.assert_array_equal(np.frombuffer(whole, "<f4"), a["by_position"][2, 3])
    np.testing.assert_array_equal(np.frombuffer(rest, "<f4"), a["rest_by_position"][2, 3])
    _, (mean,) = wire.ask(op="profile", profile="length", layer=None, head=None, id=5)
    np.testing.assert_allclose(np.frombuffer(mean, "<f4"), a["by_length"].mean((0, 1)), rtol=1e-6)


def test_the_distance_profile_is_the_sum_of_a_dense_map_by_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    import interp

    run = interp.tiny("mistral").run("the cat sat on the mat, the cat ate the rat and sat again")
    record, n = run.record(1), len(run.tokens)
    window = record.mask.window or n
    i, j = np.mgrid[0:n, 0:n]
    seen = (j <= i) & (j > i - window)
    q, k = record.q[0, 3].double().numpy(), record.k[0, 3 // (record.q.shape[1] // record.k.shape[1])].double().numpy()
    weights = np.where(seen, np.exp(q @ k.T * (record.scale or q.shape[1] ** -0.5)), 0)
    weights /= weights.sum(1, keepdims=True)
    even = seen / seen.sum(1, keepdims=True)
    shown = view(run)
    labels = next(p["labels"] for p in shown.payload["profiles"] if p["name"] == "distance")
    _, buffers = Wire(shown, monkeypatch).ask(op="profile", profile="distance", layer=1, head=3, id=1)
    edges = [0, 1, 2, 4, 8, 16, 32, n]
    assert labels == ["0", "1", "2–3", "4–7", "8–15", "16–31", f"32–{n - 1}"]
    for buffer, whole in zip(buffers, (weights, even), strict=True):
        expected = [whole[(i - j >= a) & (i - j < b)].sum() / n for a, b in pairwise(edges)]
        np.testing.assert_allclose(np.frombuffer(buffer, "<f4"), expected, rtol=1e-5, atol=1e-7)
    reply, _ = Wire(shown, monkeypatch).ask(op="profile", profile="distance", layer=None, head=None, id=2)
    assert "choose one" in reply["error"]


def test_a_run_shows_its_own_entropies() -> None:
    import interp

    run = interp.tiny("llama").run("the cat sat on the mat")
    shown = view(run)
    assert shown.quantity == "normalised_entropy"
    expected = run.frame.query("statistic == 'normalised_entropy'")["value"]
    np.testing.assert_allclose(shown.data()["normalised_entropy"], expected, rtol=1e-6)
    rows = run.stats["normalised_entropy"][1, 2].double().numpy()
    curve = shown.source.profiles["position"].curves(1, 2)[0]
    np.testing.assert_allclose(curve[2], rows[2:4].mean(), rtol=1e-9)
    assert np.isnan(curve[0]), "the first row sees one key"


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.MultiheadAttention(15, 3, batch_first=True) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = x + part(x, x, x, need_weights=False)[0]
        return x.square().mean()


def test_a_view_of_a_monitor_follows_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.display import view as open_view
    from interp.entropy.monitor import Monitor

    torch.manual_seed(0)
    model = Tiny()
    with Monitor(model, every=1) as monitor:
        shown: Any = open_view("entropy.monitor", monitor)
        assert shown.payload["tracks"] == [] and shown.data().empty and shown.picture().width > 0
        for n in range(5):
            monitor.note(model(torch.randn(2, 7, 15)).detach() * 0 + n)
    assert shown.rev == 5 and shown.payload["layers"] == [0, 1]
    wire = Wire(shown, monkeypatch)
    _, buffers = wire.ask(op="track", track="training", id=1)
    steps, loss_steps, losses = (np.frombuffer(b, "<f4") for b in buffers)
    assert steps.tolist() == loss_steps.tolist() == losses.tolist() == [0, 1, 2, 3, 4]
    reply, (values, _) = wire.ask(op="values", track="training", quantity="entropy_q50", id=2)
    assert (reply["low"], reply["high"]) == (0, 1)
    table = monitor.frame.sort_values(["step", "layer", "head"])
    np.testing.assert_array_equal(np.frombuffer(values, "<f4"), table["entropy_q50"].to_numpy(np.float32))
    limits = {q["name"]: q["limit"] for q in shown.payload["quantities"]}
    assert limits["entropy_q50"][0] == monitor.rules.collapsed and limits["rho_q99"] is None


def test_many_steps_are_thinned_to_evenly_spaced_ones() -> None:
    from interp.widgets.views.entropy_source import thinned

    assert thinned(5, 7).tolist() == [0, 1, 2, 3, 4]
    few = thinned(1009, 7)
    assert few.tolist() == [0, 168, 336, 504, 672, 840, 1008]


def test_a_kept_training_opens_from_its_folder() -> None:
    import json

    import pandas as pd

    from interp.display import view as open_view
    from interp.errors import OptionError
    from interp.widgets.views.entropy_source import serve

    folder = Path(__file__).resolve().parents[3] / "data" / "results" / "entropy_causes"
    shown: Any = open_view("entropy.training", folder)
    name = shown.payload["tracks"][-1]
    assert shown.payload["track"] == shown.payload["tracks"][0]
    last: Any = open_view("entropy.training", folder, track=name)
    assert last.payload["track"] == name and last.data()["step"].max() == shown.source.tracks[name]().steps[-1]
    with pytest.raises(OptionError, match=f"there are: {shown.payload['track']}"):
        open_view("entropy.training", folder, track="lr7")
    readings = pd.read_parquet(folder / "runs" / f"{name}.parquet")
    alarm = json.loads((folder / "runs" / f"{name}.json").read_text())["first_alarm"]
    told, buffers = serve(shown.source, {"op": "track", "track": name})
    assert np.frombuffer(buffers[0], "<f4").tolist() == sorted(readings["step"].unique())
    assert [a["step"] for a in told["alarms"]] == ([] if alarm is None else [alarm])
    losses = pd.read_parquet(folder / "runs" / f"{name}.losses.parquet")["loss"].to_numpy()
    np.testing.assert_array_equal(np.frombuffer(buffers[2], "<f4"), losses)
    _, (values, _) = serve(shown.source, {"op": "values", "track": name, "quantity": "entropy"})
    heads = readings["head"].nunique()
    one = readings.query("layer == 2 and head == 1").sort_values("step")["entropy"]
    np.testing.assert_array_equal(np.frombuffer(values, "<f4").reshape(len(one), -1)[:, 2 * heads + 1], one)


def test_what_cannot_be_shown_is_refused_and_bad_requests_are_answered(tmp_path: Path) -> None:
    import interp
    from interp.errors import CorruptFileError, OptionError
    from interp.results import Result
    from interp.widgets.views.entropy_source import serve

    with pytest.raises(OptionError, match=r"run\[b\]"):
        view(interp.tiny("llama").run(["one", "two two"]))
    with pytest.raises(OptionError, match=r"interp\.entropy\.report"):
        view(Result(kind="sinks", table=entropy_report().table, manifest={}))
    with pytest.raises(OptionError, match="there are: score, effective_keys"):
        view(quantity="entropi")
    with pytest.raises(CorruptFileError):
        view(tmp_path)
    for message, said in (
        ({"op": "track"}, "one of report"),
        ({"op": "values", "track": "report", "quantity": "spread"}, "one of score, effective_keys"),
        ({"op": "profile", "profile": "distance"}, "one of position, length"),
        ({"op": "profile", "profile": "length", "layer": 9, "head": 0}, "from 0 to 2"),
    ):
        assert said in serve(view().source, message)[0]["error"]


def test_a_saved_result_opens_without_a_model_and_is_drawn(tmp_path: Path) -> None:
    from PIL import Image

    from interp.results import Result
    from interp.widgets.colours import sequential

    entropy_report().save(tmp_path / "entropy")
    opened: Any = Result.load(tmp_path / "entropy").view()
    assert type(opened).__name__ == "EntropyView" and len(EDGES) - 1 == len(opened.payload["profiles"][0]["labels"])
    picture = Image.open(opened.png(tmp_path / "entropy.png")).convert("RGB")
    found = {colour for _, colour in picture.getcolors(10**6) or []}
    for x in entropy_arrays()["score"].ravel().astype(np.float64):
        assert tuple(int(v) for v in sequential()[int(np.floor(255 * x + 0.5))]) in found
