"""AttentionMap without a browser: every tile, mode and level against dense float64, planted cells at 32,768 tokens, the protocol, saved pages."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from map_cases import PLANTED, WORDS, planted_map, random_map
from view_cases import Wire

from interp.errors import OptionError, ShapeError

QUERIES, KEYS = 521, 1049


def pooled(dense: np.ndarray, level: int, mode: str) -> np.ndarray:
    """The whole level by its definition: maxima, or means over rows of sums over keys, of blocks of 2^level cells a side."""
    side = 1 << level
    down, across = (range(0, n, side) for n in dense.shape)
    blocks = [[dense[i : i + side, j : j + side] for j in across] for i in down]
    return np.array([[b.max() if mode == "peak" else b.sum(1).mean() for b in row] for row in blocks])


@pytest.mark.parametrize("mode", ["peak", "mass"])
def test_every_tile_of_every_level_is_the_dense_map_pooled(mode: Any) -> None:
    from interp.widgets.views.map_source import TILE, MapTiles

    amap, dense = random_map(QUERIES, KEYS)
    tiles = MapTiles(amap)
    assert tiles.levels == 3
    for level in range(tiles.levels + 1):
        expected = pooled(dense, level, mode)
        for y, x in itertools.product(*(range(-(-n // TILE)) for n in expected.shape)):
            wanted = expected[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
            np.testing.assert_allclose(tiles.tile(level, y, x, mode), wanted, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("mode", ["peak", "mass"])
def test_levels_read_from_the_sweep_are_the_dense_map_pooled_too(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.widgets.views import map_source

    monkeypatch.setattr(map_source, "TILE", 8)  # a small map then has levels up to 7, and 4 to 7 come from the sweep
    amap, dense = random_map(307, 613)
    tiles = map_source.MapTiles(amap)
    assert tiles.levels == 7
    for level in range(4, 8):
        expected = pooled(dense, level, mode)
        for y, x in itertools.product(*(range(-(-n // 8)) for n in expected.shape)):
            wanted = expected[y * 8 : (y + 1) * 8, x * 8 : (x + 1) * 8]
            np.testing.assert_allclose(tiles.tile(level, y, x, mode), wanted, rtol=2e-5, atol=1e-9)


def test_codes_are_even_in_the_logarithm_and_keep_hidden_apart() -> None:
    from interp.widgets.views.map_source import FLOOR, TILE, encode, encode_difference

    weights = np.array([[1.0, 0.1, 1e-4, 1e-7, 1e-12, 0.0]], np.float32)
    codes = np.frombuffer(encode(weights), np.uint8).reshape(TILE, TILE)
    assert codes[0, :6].tolist() == [255, 219, 110, 1, 1, 0]
    assert not codes[1:].any()
    assert not codes[:, 6:].any()
    back = np.exp(np.log(FLOOR) * (1 - (codes[0, :4] - 1.0) / 254))
    np.testing.assert_allclose(back, weights[0, :4], rtol=0.04)
    a, b = np.array([[1.0, 0.3, 0.0, 0.3, 0.0]], np.float32), np.array([[0.0, 0.3, 1.0, 0.2, 0.0]], np.float32)
    found = np.frombuffer(encode_difference(a, b), np.uint8).reshape(TILE, TILE)[0, :5]
    assert found.tolist() == [255, 128, 1, 237, 0]
    assert encode(np.zeros((3, 3), np.float32)) == encode_difference(b * 0, b * 0) == b""


@pytest.fixture(scope="module")
def planted() -> Any:
    from interp.widgets.views.attention_map import AttentionMapView

    return AttentionMapView(planted_map())


@pytest.mark.medium
def test_planted_cells_at_32768_tokens_are_found_on_every_level(planted: Any) -> None:
    from interp.widgets.views.map_source import TILE

    tiles = planted.source.a
    assert (tiles.shape, tiles.levels) == ((32768, 32768), 7)
    for ((q, k), weight), level in itertools.product(PLANTED.items(), range(8)):
        side = TILE << level
        peaks, masses = (tiles.tile(level, q // side, k // side, mode) for mode in ("peak", "mass"))
        at = (q % side >> level, k % side >> level)
        # Row i is uniform but for its planted key, which leaves (1 - w) / i for every other key.
        rows = np.arange(q >> level << level, ((q >> level) + 1) << level)
        cols = np.arange(k >> level << level, ((k >> level) + 1) << level)
        block = np.where(cols[None] <= rows[:, None], 1.0 / (rows[:, None] + 1), 0.0)
        for (i, j), w in PLANTED.items():
            if rows[0] <= i <= rows[-1]:
                block[i - rows[0]] = np.where(cols <= i, (1 - w) / i, 0.0)
                if cols[0] <= j <= cols[-1]:
                    block[i - rows[0], j - cols[0]] = w
        np.testing.assert_allclose(peaks[at], block.max(), rtol=1e-4)
        np.testing.assert_allclose(masses[at], block.sum(1).mean(), rtol=1e-4)
        if q != 257:  # the first rows of a causal map have large weights of their own
            assert block.max() == weight
    answer, _ = planted.serve(planted.source, {"op": "value", "id": 1, "q": 20011, "k": 3001})
    assert answer["weight"] == pytest.approx(0.75, rel=1e-5)
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25 / 20011))
    assert answer["entropy"] == pytest.approx(expected, rel=1e-4)
    assert (answer["rank"], answer["top"]) == (1, 3001)


@pytest.mark.medium
def test_the_masses_of_a_pixel_row_sum_to_one_at_32768_tokens(planted: Any) -> None:
    overview = planted.source.a.tile(7, 0, 0, "mass")
    np.testing.assert_allclose(overview.sum(1), 1.0, rtol=1e-4)
    _, (peaks, received) = planted.serve(planted.source, {"op": "marginals"})
    assert np.frombuffer(received, "<f4").sum() == pytest.approx(32768, rel=1e-4)
    assert np.frombuffer(peaks, "<f4")[20011 // 16] == pytest.approx(0.75, rel=1e-5)


def view(**options: Any) -> Any:
    from interp.widgets.views.attention_map import AttentionMapView

    return AttentionMapView(random_map(QUERIES, KEYS)[0], **options)


def test_requests_come_back_through_the_comm_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.widgets.views.map_source import encode

    shown = view()
    wire = Wire(shown, monkeypatch)
    wanted = [[2, 0, 1], [0, 1, 1], [3, 0, 0]]
    buffers: list[bytes] = []
    while len(buffers) < len(wanted):  # a batch may stop early on a loaded machine
        buffers += wire.ask(op="tiles", id=1, t=wanted[len(buffers) :], mode="peak", which="a")[1]
    assert buffers == [encode(shown.source.a.tile(*t, "peak")) for t in wanted]
    reply, _ = wire.ask(op="tokens", id=2, axis="k", start=1024)
    assert reply["tokens"] == ["?" if (w := WORDS[i % len(WORDS)]) == "\ud800" else w for i in range(1024, KEYS)]
    json.dumps(reply, ensure_ascii=False).encode("utf-8")


def test_a_value_and_a_rectangle_are_exact() -> None:
    shown, (_, dense) = view(), random_map(QUERIES, KEYS)
    answer, _ = shown.serve(shown.source, {"op": "value", "q": 500, "k": 40})
    assert answer["weight"] == pytest.approx(dense[500, 40], rel=1e-5)
    assert answer["rank"] == (dense[500] > dense[500, 40]).sum() + 1
    row = dense[500][dense[500] > 0]
    assert answer["entropy"] == pytest.approx(-(row * np.log(row)).sum(), rel=1e-5)
    _, (cells,) = shown.serve(shown.source, {"op": "cells", "q0": 3, "q1": 10, "k0": 500, "k1": 540})
    np.testing.assert_allclose(np.frombuffer(cells, "<f4").reshape(7, 40), dense[3:10, 500:540], rtol=2e-5)
    shown.picks = [[3, 10, 500, 540]]
    np.testing.assert_allclose(shown.cells(), dense[3:10, 500:540], rtol=2e-5)
    frame = shown.data()
    assert len(frame) == (dense[3:10, 500:540] > 0).sum()
    assert frame.iloc[0].to_dict() == {
        "q": 3,
        "k": 500,
        "weight": pytest.approx(dense[3, 500], rel=1e-5),
        "q_token": WORDS[3],
        "k_token": WORDS[500 % 7],
    }
    shown.picks = []
    np.testing.assert_allclose(shown.data()["received"], dense.sum(0), rtol=1e-4)
    with pytest.raises(OptionError, match="no rectangle is marked"):
        shown.cells()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"op": "tiles", "t": [[9, 0, 0]], "mode": "peak", "which": "a"}, "levels are 0 to 3"),
        ({"op": "tiles", "t": [[0, 3, 0]], "mode": "peak", "which": "a"}, "outside a map of 521 x 1049"),
        ({"op": "tiles", "t": [[0, -1, 0]], "mode": "peak", "which": "a"}, "no tile"),
        ({"op": "tiles", "t": [[0, 0, 0.5]], "mode": "peak", "which": "a"}, "three whole numbers"),
        ({"op": "tiles", "t": [[0, 0, 0]] * 33, "mode": "peak", "which": "a"}, "1 to 32 tiles"),
        ({"op": "tiles", "t": [[0, 0, 0]], "mode": "sum", "which": "a"}, "one of peak, mass"),
        ({"op": "tiles", "t": [[0, 0, 0]], "mode": "mass", "which": "b"}, "one of a"),
        ({"op": "value", "q": QUERIES, "k": 0}, "from 0 to 520"),
        ({"op": "value", "q": True, "k": 0}, "q must be"),
        ({"op": "tokens", "axis": "x", "start": 0}, "one of q, k"),
        ({"op": "cells", "q0": 5, "q1": 5, "k0": 0, "k1": 1}, "q1 must be"),
        ({"op": "cells", "q0": 0, "q1": QUERIES, "k0": 0, "k1": KEYS}, "too large for the page"),
    ],
)
def test_bad_requests_are_answered_with_words(message: dict[str, Any], said: str) -> None:
    shown = view()
    reply, buffers = shown.serve(shown.source, message)
    assert said in reply["error"]
    assert buffers == []


def test_the_difference_of_two_heads(tmp_path: Path) -> None:
    from interp.widgets.views.attention_map import AttentionMapView
    from interp.widgets.views.map_source import TILE

    (a, dense_a), (b, dense_b) = random_map(QUERIES, KEYS), random_map(QUERIES, KEYS, head=2, seed=1)
    shown = AttentionMapView(a, other=b)
    _, (codes,) = shown.serve(shown.source, {"op": "tiles", "t": [[0, 1, 2]], "mode": "mass", "which": "difference"})
    difference = (dense_a - dense_b)[256:512, 512:768]
    part = np.clip(1 - np.log(np.abs(difference) + 1e-300) / np.log(1e-7), 0, 1)
    wanted = np.where(dense_a[256:512, 512:768] > 0, 128 + np.sign(difference) * np.floor(127 * part + 0.5), 0)
    found = np.frombuffer(codes, np.uint8).reshape(TILE, TILE)
    assert np.abs(found - wanted).max() <= 1, "float32 rounds a code at its edge now and then"
    assert (found != wanted).mean() < 1e-3
    answer, _ = shown.serve(shown.source, {"op": "value", "q": 400, "k": 30})
    assert answer["other"] == pytest.approx(dense_b[400, 30], rel=1e-5)
    with pytest.raises(OptionError, match="one shape"):
        AttentionMapView(a, other=random_map(7, 11)[0])


def test_it_follows_a_selection_from_head_to_head() -> None:
    import interp
    from interp.widgets.views.attention_map import AttentionMapView
    from interp.widgets.views.selection import Selection

    run, bus = interp.tiny("llama").run("a b c d e f g"), Selection()
    shown = AttentionMapView(run.attention[0, 0], maps=run.attention, link=bus)
    bus.lock(layer=1, head=2)
    assert (shown.rev, shown.payload["layer"], shown.payload["head"]) == (1, 1, 2)
    assert shown.title == "Attention of layer 1, head 2"
    np.testing.assert_allclose(shown.source.a.tile(0, 0, 0, "peak"), run.attention[1, 2].dense().numpy(), rtol=1e-6)
    bus.lock(layer=77, head=0)
    assert shown.payload["layer"] == 1, "a head that was not kept leaves the old map"


def test_a_map_opens_its_view_and_says_its_kind() -> None:
    amap, _ = random_map(13, 17)
    shown = amap.view(title="mine")
    assert (shown.name, shown.title) == ("AttentionMap", "mine")
    assert shown.source.a.levels == 0


def test_a_saved_page_holds_whole_levels_and_the_cells_of_a_rectangle() -> None:
    from interp.widgets.views.attention_map import kept_tiles
    from interp.widgets.views.map_source import MapTiles

    amap, _ = random_map(31, 37)
    tiles = MapTiles(amap)
    assert list(kept_tiles(tiles, None)) == [(0, 0, 0)]
    tiles.shape, tiles.levels = (32768, 32768), 7
    kept = list(kept_tiles(tiles, None))
    assert {level for level, _, _ in kept} == {4, 5, 6, 7}
    assert len(kept) == 64 + 16 + 4 + 1
    kept = list(kept_tiles(tiles, ((20000, 20512), (3600, 4112))))
    assert {level for level, _, _ in kept} == set(range(8))
    assert [t for t in kept if t[0] == 0] == [(0, y, x) for y in (78, 79, 80) for x in (14, 15, 16)]


def test_a_wrong_tile_is_an_error_of_its_own() -> None:
    from interp.widgets.views.map_source import MapTiles

    with pytest.raises(ShapeError, match="levels are 0 to 0"):
        MapTiles(random_map(13, 17)[0]).tile(1, 0, 0, "peak")


def test_the_picture_shows_every_cell_of_a_small_map(tmp_path: Path) -> None:
    from PIL import Image

    from interp.widgets.colours import sequential

    amap, dense = random_map(13, 13)
    picture = np.asarray(Image.open(amap.view().png(tmp_path / "map.png")))
    low = 1e-2
    step, left, top = 840 / 13, 58 * 2, 56 * 2
    for q, k in itertools.product(range(13), range(13)):
        pixel = picture[int(top + (q + 0.5) * step), int(left + (k + 0.5) * step)]
        if k > q:
            assert pixel.tolist() in ([252, 251, 248], [201, 197, 186]), "paper or hatching"
        else:
            part = np.clip(1 - np.log(dense[q, k]) / np.log(low), 0, 1)
            assert np.abs(pixel.astype(int) - sequential()[int(255 * part + 0.5)]).max() <= 3
