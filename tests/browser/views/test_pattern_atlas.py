"""PatternAtlas in a browser: places, clusters, small maps pixel by pixel, locks in field and tiles, keys, a saved page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from heads_cases import HEADS, LAYERS, NASTY, embedding

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
N = LAYERS * HEADS


def codes() -> np.ndarray:
    """Small maps: no code above the diagonal, another one in every pixel below."""
    draw = np.random.default_rng(5).integers(1, 256, (N, 24, 24), dtype=np.uint8)
    return np.tril(draw).astype(np.uint8)


def atlas(*, maps: bool = True, **options: Any) -> Any:
    from interp.widgets.views.pattern_atlas import PatternAtlas
    from interp.widgets.views.pattern_atlas_source import SmallMaps, patterns_of

    source = patterns_of(embedding())
    if maps:
        source = replace(source, maps=SmallMaps(codes=codes(), tokens=96, of=1009))
    return PatternAtlas(source, **{"title": f"planted {NASTY}", **options})


def tile(page: Page, layer: int, head: int) -> Any:
    return page.locator(f'.iv-tile[data-head="{layer * HEADS + head}"]')


def dot(page: Page, layer: int, head: int) -> Any:
    return page.locator(f'.iv-dot[data-head="{layer * HEADS + head}"]')


def pixels(page: Page, layer: int, head: int) -> np.ndarray:
    """What the tile's canvas holds: uint8 [row, column, rgba]."""
    values = (
        tile(page, layer, head)
        .locator("canvas")
        .evaluate(
            "c => ({ w: c.width, h: c.height, d: [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] })"
        )
    )
    return np.array(values["d"], np.uint8).reshape(values["h"], values["w"], 4)


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 5)])
def test_small_maps_have_the_colours_of_their_codes(mount: Callable[..., Any], layer: int, head: int) -> None:
    from interp.widgets.colours import sequential

    got = pixels(mount(atlas()).page, layer, head)
    expected = codes()[layer * HEADS + head]
    np.testing.assert_array_equal(got[..., 3] == 0, expected == 0)
    np.testing.assert_array_equal(got[expected > 0][:, :3], sequential()[expected[expected > 0]])


def test_heads_stand_where_they_were_placed(mount: Callable[..., Any]) -> None:
    page = mount(atlas()).page

    def places() -> np.ndarray:
        boxes = [dot(page, n // HEADS, n % HEADS).bounding_box() for n in range(N)]
        return np.array([[b["x"] + b["width"] / 2, b["y"] + b["height"] / 2] for b in boxes if b is not None])

    table = embedding().table
    for view, name in (("tsne", "t-SNE"), ("pca", "PCA")):
        page.get_by_role("button", name=name).click()
        got = places()
        for axis, sign in ((0, 1), (1, -1)):
            x = sign * table[f"{view}_{axis + 1}"].to_numpy(float)
            share = (x - x.min()) / (x.max() - x.min())
            span = got[:, axis].max() - got[:, axis].min()
            np.testing.assert_allclose((got[:, axis] - got[:, axis].min()) / span, share, atol=0.01)


def test_clusters_have_names_shapes_and_fade_the_others(mount: Callable[..., Any]) -> None:
    page = mount(atlas()).page
    group = page.get_by_role("group", name="clusters")
    assert group.get_by_role("button").all_inner_texts() == [
        "0: near the mean of all heads\n4",
        "1: high induction\n6",
        f"2: high {NASTY}, low entropy\n4",
    ]
    shapes = {dot(page, 0, h).get_attribute("class") for h in (0, 2, 5)}
    assert len(shapes) == 3
    group.get_by_role("button").nth(1).click()
    faded = [h for h in range(HEADS) if "iv-faded" in (tile(page, 1, h).get_attribute("class") or "")]
    assert faded == [0, 1, 5, 6]
    page.keyboard.press("Escape")
    assert page.locator(".iv-faded").count() == 0


def test_hover_and_lock_work_in_field_and_tiles(mount: Callable[..., Any]) -> None:
    shown = mount(atlas())
    page, view = shown.page, shown.view
    dot(page, 1, 6).hover()
    page.wait_for_function(
        "() => document.querySelector('.iv-readout').textContent.startsWith('layer 1, head 6: cluster 2')"
    )
    assert "iv-hover" in tile(page, 1, 6).get_attribute("class")
    tile(page, 0, 3).click()
    assert view.selected == (0, 3)
    said = page.locator(".iv-readout").inner_text()
    assert said.startswith("layer 0, head 3: cluster 1 (high induction)")
    assert f"labels induction {NASTY}" in said
    assert "induction +3 sd" in said
    dot(page, 1, 6).hover()
    assert page.locator(".iv-readout").inner_text() == said, "a hover never overrides a lock"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('.iv-tile.iv-lock')")
    assert view.selected is None
    assert page.locator(".iv img").count() == 0


def test_keys_alone_move_over_the_tiles_and_lock(mount: Callable[..., Any]) -> None:
    shown = mount(atlas())
    page = shown.page
    page.locator(".iv-tile[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert shown.view.selected == (1, 1)
    page.get_by_role("button", name="by cluster").click()
    rows = page.locator(".iv-tile-row")
    assert [rows.nth(n).locator(".iv-tile").count() for n in range(3)] == [4, 6, 4]


def test_profiles_stand_above_and_below_the_mean(mount: Callable[..., Any]) -> None:
    page = mount(atlas(maps=False)).page
    assert page.get_by_role("group", name="what the tiles show").count() == 0
    drawn = pixels(page, 0, 5)[..., 3] > 0
    assert drawn.shape == (24, 3)
    # entropy -2, induction 0, the third +2.5 standard deviations; 12 pixels are 3 of them
    z = embedding().arrays["z"][5]
    up, down = drawn[:12].sum(0), drawn[12:].sum(0)
    np.testing.assert_allclose(down[0], 12 * abs(z[0]) / 3, atol=0.51)
    np.testing.assert_allclose(up[2], 12 * z[2] / 3, atol=0.51)
    assert (up[0], down[2]) == (0, 0)


def test_it_is_a_grid_to_a_screen_reader(mount: Callable[..., Any]) -> None:
    page = mount(atlas()).page
    snapshot = page.locator("[role=grid]").aria_snapshot()
    assert snapshot.count("gridcell") == N
    assert 'gridcell "0.0: near the mean of all heads"' in snapshot
    assert page.get_by_role("img", name="every head, placed by how it attends").count() == 1
    assert "first 96 of 1,009 tokens" in page.locator(".iv > .iv-small").inner_text()


def test_a_saved_page_opens_from_its_file_and_does_the_same(page: Page, tmp_path: Path) -> None:
    page.goto(atlas().html(tmp_path / "x.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    np.testing.assert_array_equal(pixels(page, 1, 6)[..., 3] == 0, codes()[13] == 0)
    tile(page, 1, 2).click()
    assert tile(page, 1, 2).get_attribute("aria-selected") == "true"
