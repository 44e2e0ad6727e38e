"""SinkExplorer without a browser: rates and alphas against the arrays themselves, runs, several measurements, saved results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sink_cases import HEADS, KEYS, LAYERS, SEQUENCES, alphas, sink_report
from view_cases import Wire


def explorer(given: Any = None, **options: Any) -> Any:
    from interp.widgets.views.sink_explorer import SinkExplorer

    return SinkExplorer(sink_report() if given is None else given, **options)


def test_heads_come_back_for_the_first_key_and_the_strongest_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(explorer(), monkeypatch)
    for name, alpha in alphas().items():
        for place, expected in (("first", alpha[..., 0]), ("behind", alpha[..., 1:-2].max(-1))):
            reply, buffers = wire.ask(op="heads", condition=name, place=place, id=1)
            np.testing.assert_array_equal(np.frombuffer(buffers[0], "<f4").reshape(SEQUENCES, LAYERS, HEADS), expected)
            assert reply["k"] == 1


def test_keys_come_back_for_one_head_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, alpha = Wire(explorer(), monkeypatch), alphas()["random"].astype(np.float64)
    for at, expected in (
        ({"layer": 2, "head": 3}, alpha[:, 2, 3].mean(0)),
        ({"layer": None, "head": None}, alpha.mean((0, 1, 2))),
    ):
        reply, buffers = wire.ask(op="keys", condition="random", id=1, **at)
        edges, values, strongest, even = (np.frombuffer(b, "<f4") for b in buffers)
        np.testing.assert_array_equal(edges, np.arange(KEYS + 1))
        np.testing.assert_array_equal(strongest, np.arange(KEYS))
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        order = np.argsort(-expected[:-2])
        assert [row["key"] for row in reply["listed"]] == order.tolist()
        np.testing.assert_allclose([row["alpha"] for row in reply["listed"]], expected[order], rtol=1e-6)
        # An even causal head gives key k 1 / (i + 1) in each of the rows i >= k that see it.
        wanted = [np.mean([1 / (i + 1) for i in range(k, KEYS)]) for k in range(KEYS)]
        np.testing.assert_allclose(even, wanted, rtol=1e-6)


def test_many_keys_are_shown_by_the_strongest_of_each_bin() -> None:
    from interp.widgets.views.sink_source import BINS, SinkCondition, SinkSource, serve

    values = np.random.default_rng(0).permutation(1009) / 1009
    condition = SinkCondition(alpha=values.astype(np.float32)[None, None, None], tokens=(), even=np.full(1009, np.nan))
    source = SinkSource(layers=(4,), heads=1, conditions={"x": condition}, ratios={}, hidden=())
    reply, buffers = serve(source, {"op": "keys", "condition": "x", "layer": 4, "head": 0})
    edges, shown, strongest, _ = (np.frombuffer(b, "<f4") for b in buffers)
    assert len(shown) == BINS and (edges[0], edges[-1]) == (0, 1009) and reply["keys"] == 1009
    for n in range(BINS):
        inside = values[int(edges[n]) : int(edges[n + 1])]
        assert shown[n] == np.float32(inside.max()) and values[int(strongest[n])] == inside.max()


def test_data_holds_alphas_and_rates_of_every_condition() -> None:
    data = explorer(threshold=0.6).data()
    for name, alpha in alphas().items():
        rows = data[data["condition"] == name]
        np.testing.assert_allclose(rows["rate_first"], (alpha[..., 0] > 0.6).mean(0).ravel())
        np.testing.assert_allclose(rows["rate_behind"], (alpha[..., 1:-2].max(-1) > 0.6).mean(0).ravel())
        np.testing.assert_allclose(rows["alpha_first"], alpha[..., 0].mean(0).ravel(), rtol=1e-6)


def test_a_planted_sink_stands_out_in_a_run_and_its_key_norms_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.models.planted import planted

    model, places = planted("sink", "uniform")
    run = model.run(" ".join(f"w{1 + n % 29}" for n in range(59)), collect=["alpha"])
    view = explorer(run)
    data = view.data().set_index(["layer", "head"])
    assert data.loc[places["sink"], "alpha_first"] > 0.95 and data.loc[places["sink"], "rate_first"] == 1
    np.testing.assert_allclose(data.loc[places["uniform"], "alpha_first"], np.mean(1 / np.arange(1, 60)), rtol=1e-4)
    reply, buffers = Wire(view, monkeypatch).ask(
        op="keys", condition="this text", layer=places["uniform"][0], head=places["uniform"][1], id=1
    )
    _, values, _, even = (np.frombuffer(b, "<f4") for b in buffers)
    np.testing.assert_allclose(values[:40], even[:40], rtol=1e-4)
    assert reply["listed"][0]["token"] == "w1"
    k = run.record(1).k[0].double().norm(dim=-1).numpy()
    np.testing.assert_allclose(
        view.source.ratios["key"][1], np.median(k[:, 0] / np.sort(k[:, 1:], 1)[:, 28]), rtol=1e-5
    )


def test_measurements_with_and_without_bos_stand_beside_each_other() -> None:
    from interp.errors import OptionError
    from interp.results import Result

    view = explorer({"with BOS": sink_report(), "without": sink_report()})
    assert list(view.source.conditions)[::3] == ["with BOS: natural", "without: natural"]
    assert list(view.source.ratios) == [
        f"{a}: {b}" for a in ("with BOS", "without") for b in ("residual", "key", "value")
    ]
    whole = sink_report()
    shallow = Result(
        kind="sinks",
        table=whole.table[whole.table["layer"] < LAYERS - 1],
        manifest={},
        arrays={n: x[:, :-1] if x.ndim == 4 else x[:-1] for n, x in whole.arrays.items()},
    )
    with pytest.raises(OptionError, match="'a': 3 x 5, 'b': 2 x 5"):
        explorer({"a": whole, "b": shallow})


def test_what_cannot_be_shown_is_refused_and_bad_requests_are_answered() -> None:
    import interp
    from interp.errors import OptionError
    from interp.results import Result
    from interp.widgets.views.sink_source import serve

    with pytest.raises(OptionError, match="collect="):
        explorer(interp.tiny("llama").run("one"))
    with pytest.raises(OptionError, match=r"interp\.sinks\.report"):
        explorer(Result(kind="heads.report", table=sink_report().table, manifest={}))
    with pytest.raises(OptionError, match="from 0 to 1"):
        explorer(threshold=1.5)
    for message, said in (
        ({"op": "heads"}, "one of natural, random, repeated"),
        ({"op": "heads", "condition": "natural", "place": "last"}, "one of first, behind"),
        ({"op": "keys", "condition": "natural", "layer": 3, "head": 0}, "from 0 to 2"),
        ({"op": "keys", "condition": "natural", "layer": 1, "head": None}, "head must be a whole number"),
    ):
        assert said in serve(explorer().source, message)[0]["error"]


def test_a_saved_result_opens_without_a_model_and_is_drawn(tmp_path: Path) -> None:
    from PIL import Image

    from interp.results import Result
    from interp.widgets.colours import sequential

    sink_report().save(tmp_path / "sinks")
    view: Any = Result.load(tmp_path / "sinks").view(threshold=0.5)
    assert type(view).__name__ == "SinkExplorer"
    picture = Image.open(view.png(tmp_path / "sinks.png")).convert("RGB")
    found = {colour for _, colour in picture.getcolors(10**6) or []}
    for rate in (alphas()["natural"][..., 0] > 0.5).mean(0).ravel():
        assert tuple(int(v) for v in sequential()[int(np.floor(255 * rate + 0.5))]) in found
