"""PatternAtlas without a browser: places and names by rule worked out by hand, small maps against pooled dense maps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads_cases import HEADS, LAYERS, NASTY, embedding, heads_table, shuffled
from view_cases import Wire

from interp.errors import CaptureError, OptionError
from interp.results import Result

N = LAYERS * HEADS


def atlas(given: Any = None, **options: Any) -> Any:
    from interp.widgets.views.pattern_atlas import PatternAtlas

    return PatternAtlas(embedding() if given is None else given, **options)


def run(**options: Any) -> Any:
    import interp

    return interp.tiny("llama").run("the cat sat on the mat and the dog sat on the log", **options)


def test_every_head_comes_back_in_its_place_whatever_the_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = embedding()
    for given in (expected, shuffled(expected)):
        wire = Wire(atlas(given), monkeypatch)
        reply, buffers = wire.ask(op="places", id=1)
        layer, head, cluster, silhouette, *places = (np.frombuffer(b, "<f4") for b in buffers)
        np.testing.assert_array_equal(layer, expected.table["layer"])
        np.testing.assert_array_equal(head, expected.table["head"])
        np.testing.assert_array_equal(cluster, expected.table["cluster"])
        np.testing.assert_array_equal(silhouette, expected.table["score"].to_numpy(np.float32))
        assert reply["views"] == ["tsne", "pca"]
        for view, xy in zip(reply["views"], places, strict=True):
            np.testing.assert_array_equal(
                xy.reshape(2, N), expected.table[[f"{view}_1", f"{view}_2"]].to_numpy(np.float32).T
            )
        assert reply["labels"] == expected.table["labels"].tolist()
        _, profile = wire.ask(op="profile", id=2)
        np.testing.assert_array_equal(np.frombuffer(profile[0], "<f4").reshape(N, 3), expected.arrays["z"])


def test_clusters_are_named_by_the_features_farthest_from_the_mean() -> None:
    names = [c["name"] for c in atlas().payload["clusters"]]
    assert names == ["near the mean of all heads", "high induction", f"high {NASTY}, low entropy"]
    assert [c["size"] for c in atlas().payload["clusters"]] == [4, 6, 4]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"op": "x"}, "there are: places, profile, maps"),
        ({"op": "maps", "layer": 0}, "open the atlas with run="),
        (7, "no operation"),
    ],
)
def test_a_bad_request_is_answered_with_words(message: object, said: str) -> None:
    from interp.widgets.views.pattern_atlas_source import serve

    assert said in serve(atlas().source, message)[0]["error"]


def test_small_maps_are_logarithms_of_pooled_exact_cells() -> None:
    from interp.widgets.views.pattern_atlas_source import FAINT, SIDE, small_maps

    measured = run()
    maps = small_maps(measured)
    n = len(measured.tokens)
    assert (maps.tokens, maps.of) == (n, n)
    assert n > SIDE
    edges = [n * i // SIDE for i in range(SIDE + 1)]
    for layer, head in ((0, 0), (2, 5)):
        dense = measured.attention[layer, head].dense().double().numpy()
        pooled = np.array([[dense[a:b, c:d].mean() for c, d in pairwise(edges)] for a, b in pairwise(edges)])
        code = maps.codes[layer * measured.heads + head]
        np.testing.assert_array_equal(code == 0, pooled == 0)
        share = np.log(np.clip(pooled, FAINT, 1) / FAINT) / np.log(1 / FAINT)
        np.testing.assert_allclose(code[pooled > 0], 1 + 254 * share[pooled > 0], atol=0.51)


def test_a_short_text_is_drawn_larger() -> None:
    import interp
    from interp.widgets.views.pattern_atlas_source import SIDE, small_maps

    measured = interp.tiny("llama").run([5, 6, 7])
    codes = small_maps(measured).codes
    assert codes.shape == (len(measured.layers) * measured.heads, SIDE, SIDE)
    assert (codes[0, :8, :8] == 255).all(), "the first token sees itself alone"
    assert (codes[:, :8, 8:] == 0).all()


def test_a_run_is_embedded_by_its_small_maps_and_named_by_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = run()
    view = atlas(measured)
    heads = len(measured.layers) * measured.heads
    source = view.source
    assert source.embedded.startswith("the small maps")
    assert "normalised_entropy" in source.features
    mean = np.array(
        [
            [np.nanmean(measured.stats["entropy"][n, h].numpy()) for h in range(measured.heads)]
            for n in range(len(measured.layers))
        ]
    ).ravel()
    np.testing.assert_allclose(
        source.profile[:, source.features.index("entropy")], (mean - mean.mean()) / mean.std(), atol=1e-4
    )
    _, buffers = Wire(view, monkeypatch).ask(op="maps", layer=1, id=1)
    got = np.frombuffer(buffers[0], np.uint8).reshape(measured.heads, 24, 24)
    np.testing.assert_array_equal(got, source.maps.codes[measured.heads : 2 * measured.heads])
    assert len(list(view.requests())) == 2 + len(measured.layers)
    assert len(view.data()) == heads
    with pytest.raises(CaptureError, match="keep="):
        atlas(run(keep="none"))


def test_a_run_of_another_model_is_refused() -> None:
    with pytest.raises(OptionError, match=rf"has 18 heads and the result {N}"):
        atlas(run=run())


def test_features_are_embedded_when_they_are_opened() -> None:
    draw = np.random.default_rng(0)
    table = heads_table(np.zeros((LAYERS, HEADS))).assign(
        entropy=draw.random(N), induction=draw.random(N), normalised_entropy=draw.random(N)
    )
    view = atlas(Result(kind="heads.features", table=table, manifest={}))
    assert view.source.features == ("normalised_entropy", "induction")
    assert view.source.embedded == "2 features of each head"


def test_data_and_the_picture_show_every_head(tmp_path: Path) -> None:
    from PIL import Image

    from interp.widgets.colours import sequential

    view: Any = Result.load(embedding().save(tmp_path / "r")).view()
    assert type(view).__name__ == "PatternAtlas"
    data = view.data()
    assert data.query("layer == 1 and head == 3")["cluster_name"].item() == "high induction"
    picture = np.asarray(Image.open(view.png(tmp_path / "x.png")))
    found = {tuple(int(v) for v in pixel) for pixel in picture.reshape(-1, 3)}
    assert {tuple(int(v) for v in sequential()[i]) for i in (80, 168, 255)} <= found
    assert len(str(view.payload)) < 4000


def test_every_kind_of_heads_that_can_be_drawn_can_be_opened() -> None:
    from interp.widgets.kinds import PLOTS
    from interp.widgets.views import VIEWS

    assert [kind for kind in PLOTS if kind.startswith("heads") and kind not in VIEWS] == []


def test_scores_are_called_as_in_the_report() -> None:
    table = heads_table(np.zeros((2, 4)), kv_head=np.tile([0, 0, 1, 1], 2), mass=0.5, pattern=NASTY)
    opened: Any = Result(kind="heads.streaming", table=table, manifest={}).view()
    assert list(opened.source.columns) == ["score", "mass"]
    assert opened.source.group == 2
    opened = Result(kind="heads.induction", table=heads_table(np.zeros((2, 4))), manifest={}).view()
    column = opened.source.columns["score"]
    assert (column.title, column.unit, column.formula[:4]) == ("induction", "probability", "mean")
    np.testing.assert_array_equal(column.control, np.full((2, 4), 0.0625, np.float32))
