"""AttentionMap in a browser: pixels against exact weights, zoom, keys, lock, rectangle, difference, lost buffers, saved pages, hostile tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from map_cases import PLANTED, planted_map, random_map

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
N = 521
SETTLED = "() => document.querySelector('.iv').dataset.state === 'ready'"


def view(n: int = N, **options: Any) -> Any:
    from interp.widgets.views.attention_map import AttentionMapView

    return AttentionMapView(random_map(n, n)[0], **options)


def where(page: Page) -> dict[str, float]:
    """Top left cell and page pixels per cell."""
    return json.loads(page.locator(".iv").get_attribute("data-view") or "{}")


def pixel_of(page: Page, q: int, k: int) -> list[int]:
    """RGBA of the middle of a cell on the canvas."""
    at = where(page)
    x, y = (k + 0.5 - at["x"]) * at["s"], (q + 0.5 - at["y"]) * at["s"]
    return page.locator(".iv-map-cells").evaluate(
        "(c, [x, y]) => [...c.getContext('2d').getImageData(Math.floor(x * devicePixelRatio), Math.floor(y * devicePixelRatio), 1, 1).data]",
        [x, y],
    )


def colour_of(weight: float, low: float) -> list[int]:
    """The colour that a weight should have: 254 steps in the logarithm from 1e-7, then 255 colours from `low`."""
    from interp.widgets.colours import sequential

    code = 1 + np.floor(254 * (1 - np.log(max(weight, 1e-7)) / np.log(1e-7)) + 0.5)
    log = np.log(1e-7) * (1 - (code - 1) / 254)
    return [*sequential()[int(255 * np.clip(1 - log / np.log(low), 0, 1) + 0.5)].tolist(), 255]


def close(seen: list[int], wanted: list[int]) -> bool:
    """Equal but for a step of the scale, which float32 may take at its edge."""
    return bool(np.abs(np.subtract(seen, wanted)).max() <= 4)


def move_to(page: Page, q: int, k: int) -> None:
    at, box = where(page), page.locator(".iv-map-ground").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + (k + 0.5 - at["x"]) * at["s"], box["y"] + (q + 0.5 - at["y"]) * at["s"])


def test_pixels_are_exact_weights_at_level_0_and_hidden_ones_clear(mount: Callable[..., Any]) -> None:
    page, (_, dense) = mount(view()).page, random_map(N, N)
    page.get_by_label("query to jump to").fill("300")
    page.get_by_label("key to jump to").fill("280")
    page.get_by_role("button", name="jump").click()
    page.wait_for_function("() => JSON.parse(document.querySelector('.iv').dataset.view).s >= 12")
    page.wait_for_function(SETTLED)
    assert page.locator(".iv").get_attribute("data-level") == "0"
    for q, k in ((300, 280), (299, 281), (310, 290), (290, 270)):
        assert close(pixel_of(page, q, k), colour_of(dense[q, k], 1e-3)), (q, k)
    assert pixel_of(page, 281, 290)[3] == 0


def test_pixels_of_pools_are_peaks_or_masses(mount: Callable[..., Any]) -> None:
    shown = mount(view(1500))
    page, (_, dense) = shown.page, random_map(1500, 1500)
    level = int(page.locator(".iv").get_attribute("data-level") or 0)
    assert level == 1
    for mode, wanted in (("mass", dense[900:902, 700:702].sum(1).mean()), ("peak", dense[900:902, 700:702].max())):
        page.get_by_role("button", name=mode).click()
        page.wait_for_function(SETTLED)
        at = where(page)
        x, y = (701 - at["x"]) * at["s"], (901 - at["y"]) * at["s"]
        seen = page.locator(".iv-map-cells").evaluate(
            "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]", [x, y]
        )
        neighbours = [dense[900 + i : 902 + i, 700 + j : 702 + j] for i in (-2, 0, 2) for j in (-2, 0, 2)]
        options = [b.sum(1).mean() if mode == "mass" else b.max() for b in neighbours]
        assert any(close(seen, colour_of(x, 1e-4)) for x in (wanted, *options)), mode
        assert f"the {mode} of 2 × 2 exact weights" in page.locator(".iv-small").last.inner_text()


def test_hover_reads_the_exact_weight_click_locks_and_escape_clears(mount: Callable[..., Any]) -> None:
    shown = mount(view(40))
    page, (_, dense) = shown.page, random_map(40, 40)
    readout = page.locator(".iv-readout")
    move_to(page, 30, 12)
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('(30)')")
    text = readout.inner_text()
    assert float(text.split("weight ")[1].split(",")[0].replace("−", "-")) == pytest.approx(dense[30, 12], rel=1e-3)
    assert "<img·src=x·onerror=alert(1)> (30)" in text, "a hostile token stays text"
    assert page.locator(".iv img").count() == 0
    assert shown.view.hover["q"] == 30
    assert shown.view.selection["q"] is None
    page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(50)
    assert (shown.view.selection["q"], shown.view.selection["k"]) == (30, 12)
    move_to(page, 20, 3)
    page.wait_for_timeout(100)
    assert "(30)" in readout.inner_text(), "a hover never overrides a lock"
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.startsWith('Point at')")
    assert shown.view.selection["q"] is None


def test_keys_do_what_the_pointer_does(mount: Callable[..., Any]) -> None:
    shown = mount(view())
    page = shown.page
    page.locator(".iv-map-ground").focus()
    start = where(page)
    for key in ("+", "+", "+", "+"):
        page.keyboard.press(key)
    page.wait_for_function(f"() => JSON.parse(document.querySelector('.iv').dataset.view).s > {8 * start['s']}")
    before = where(page)
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function(f"() => JSON.parse(document.querySelector('.iv').dataset.view).x > {before['x']}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_timeout(50)
    locked = shown.view.selection
    assert locked["q"] is not None
    page.keyboard.press("b")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("b")
    page.wait_for_timeout(50)
    assert shown.view.region == ((locked["q"], locked["q"] + 3), (locked["k"], locked["k"] + 2))
    page.keyboard.press("m")
    assert page.get_by_role("button", name="peak").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Home")
    page.wait_for_function(f"() => JSON.parse(document.querySelector('.iv').dataset.view).s === {start['s']}")
    page.keyboard.press("g")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "query to jump to"


def test_the_wheel_is_the_pages_until_the_map_has_the_focus(mount: Callable[..., Any]) -> None:
    page = mount(view()).page
    start = where(page)
    move_to(page, 260, 130)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(150)
    assert where(page) == start
    page.mouse.wheel(0, 300)
    page.locator(".iv-map-ground").focus()
    move_to(page, 260, 130)
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"() => JSON.parse(document.querySelector('.iv').dataset.view).s > {start['s']}")
    at = where(page)
    fixed = (130.5 - at["x"]) * at["s"]
    assert fixed == pytest.approx((130.5 - start["x"]) * start["s"], abs=2), "the cell under the pointer stays there"


def test_drag_moves_and_shift_drag_marks(mount: Callable[..., Any]) -> None:
    shown = mount(view())
    page = shown.page
    page.get_by_role("button", name="+").click()
    page.get_by_role("button", name="+").click()
    page.wait_for_function(SETTLED)
    before = where(page)
    move_to(page, 260, 250)
    page.mouse.down()
    page.mouse.move(*[x - 60 for x in centre(page)], steps=4)
    page.mouse.up()
    page.wait_for_function(f"() => JSON.parse(document.querySelector('.iv').dataset.view).x !== {before['x']}")
    assert shown.view.selection["q"] is None, "a drag is no click"
    page.keyboard.down("Shift")
    move_to(page, 270, 240)
    page.mouse.down()
    move_to(page, 279, 246)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_timeout(50)
    assert shown.view.region == ((270, 280), (240, 247))
    with page.expect_download() as saved:
        page.get_by_role("button", name="save rectangle").click()
    rows = Path(saved.value.path()).read_text().split("\n")
    table = np.array([row.split("\t") for row in rows[1:]], dtype=float)
    assert rows[0].split("\t") == ["query", *map(str, range(240, 247))]
    np.testing.assert_array_equal(table[:, 0], range(270, 280))
    np.testing.assert_allclose(table[:, 1:], random_map(N, N)[1][270:280, 240:247], rtol=2e-5)


def centre(page: Page) -> tuple[float, float]:
    box = page.locator(".iv-map-ground").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_click_on_the_small_map_goes_there_and_names_stand_beside_close_cells(mount: Callable[..., Any]) -> None:
    page = mount(view()).page
    for _ in range(5):
        page.get_by_role("button", name="+").click()
    page.locator(".iv-map-mini").click(position={"x": 30, "y": 90})
    page.wait_for_function("() => JSON.parse(document.querySelector('.iv').dataset.view).y > 300")
    page.wait_for_function(SETTLED)
    inked = page.locator(".iv-map-left").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(x => x)"
    )
    assert inked


def test_two_heads_are_switched_and_subtracted(mount: Callable[..., Any]) -> None:
    from interp.widgets.diverging import diverging

    other, dense_b = random_map(40, 40, head=2, seed=1)
    shown = mount(view(40, other=other))
    page, dense_a = shown.page, random_map(40, 40)[1]
    page.get_by_role("button", name="head 3.2").click()
    page.wait_for_function(SETTLED)
    assert close(pixel_of(page, 30, 12), colour_of(dense_b[30, 12], 1e-2))
    page.get_by_role("button", name="difference").click()
    page.wait_for_function(SETTLED)
    for q, k in ((30, 12), (35, 3), (20, 20)):
        d = dense_a[q, k] - dense_b[q, k]
        size = np.floor(127 * np.clip(1 - np.log(abs(d)) / np.log(1e-7), 0, 1) + 0.5)
        part = np.clip(1 - np.log(1e-7) * (1 - size / 127) / np.log(1e-2), 0, 1)
        wanted = diverging()[int(127 + np.sign(d) * np.floor(127 * part + 0.5))]
        assert close(pixel_of(page, q, k), [*wanted.tolist(), 255]), (q, k)
    assert "head 3.5 − head 3.2" in page.locator(".iv-legend").inner_text()


def test_it_is_an_application_with_its_keys_told(mount: Callable[..., Any]) -> None:
    page = mount(view(40)).page
    snapshot = page.locator(".iv").aria_snapshot()
    assert 'application "attention map, 40 queries by 40 keys. Arrows move' in snapshot
    assert 'group "what a pixel shows"' in snapshot
    assert page.get_by_role("status").count() == 1


def test_a_host_that_drops_buffers_is_served_text(mount: Callable[..., Any]) -> None:
    shown = mount(view(40), drop_buffers=True)
    assert close(pixel_of(shown.page, 30, 12), colour_of(random_map(40, 40)[1][30, 12], 1e-2))


def test_another_head_keeps_the_place_and_drops_late_tiles(mount: Callable[..., Any]) -> None:
    import interp
    from interp.widgets.views.attention_map import AttentionMapView

    run = interp.tiny("llama").run(" ".join("abcdefgh" * 4))
    shown = mount(AttentionMapView(run.attention[0, 0], maps=run.attention))
    page = shown.page
    page.get_by_role("button", name="+").click()
    page.wait_for_function(SETTLED)
    before = where(page)
    shown.view.selection = {"layer": 1, "head": 2, "q": None, "k": None}
    shown.push("title", "payload", "rev")
    page.wait_for_function("() => document.querySelector('.iv-title').textContent === 'Attention of layer 1, head 2'")
    page.wait_for_function(SETTLED)
    assert where(page) == before
    q, k = (int(before[a] + 3) for a in ("y", "x"))
    q = max(q, k)
    assert close(pixel_of(page, q, k), colour_of(float(run.attention[1, 2][q, k]), 1e-2))


@pytest.mark.medium
def test_a_planted_cell_at_32768_tokens_is_reached_from_afar(mount: Callable[..., Any]) -> None:
    from interp.widgets.views.attention_map import AttentionMapView

    shown = mount(AttentionMapView(planted_map()), settled=False)
    page = shown.page
    page.wait_for_function(SETTLED, timeout=60000)
    assert page.locator(".iv").get_attribute("data-level") == "5"
    (q, k), weight = next(iter(PLANTED.items()))
    page.get_by_role("button", name="peak").click()
    page.wait_for_function(SETTLED, timeout=60000)
    at = where(page)
    x, y = int((k - at["x"]) * at["s"]), int((q - at["y"]) * at["s"])
    around = page.locator(".iv-map-cells").evaluate(
        "(c, [x, y]) => [...c.getContext('2d').getImageData(x - 1, y - 1, 3, 3).data]", [x, y]
    )
    pixels = np.array(around).reshape(9, 4)
    assert any(close(p.tolist(), colour_of(weight, 1e-5)) for p in pixels), "the peak is seen in the overview"
    page.get_by_label("query to jump to").fill(str(q))
    page.get_by_label("key to jump to").fill(str(k))
    page.get_by_role("button", name="jump").click()
    page.wait_for_function("() => document.querySelector('.iv').dataset.level === '0'")
    page.wait_for_function(SETTLED, timeout=60000)
    assert close(pixel_of(page, q, k), colour_of(weight, 1e-5))
    assert close(pixel_of(page, q, k + 1), colour_of((1 - weight) / q, 1e-5))
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('weight 0.75, largest')")


def test_a_saved_page_zooms_and_reads_what_it_holds(page: Page, tmp_path: Path) -> None:
    amap, dense = random_map(1500, 1500)
    shown = amap.view()
    shown.picks = [[900, 1000, 600, 700]]
    page.goto(shown.html(tmp_path / "map.html").as_uri())
    page.wait_for_function(SETTLED)
    page.get_by_label("query to jump to").fill("950")
    page.get_by_label("key to jump to").fill("650")
    page.get_by_role("button", name="jump").click()
    page.wait_for_function("() => document.querySelector('.iv').dataset.level === '0'")
    page.wait_for_function(SETTLED)
    assert close(pixel_of(page, 950, 650), colour_of(dense[950, 650], 1e-4))
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('read from the picture')")
    about = float(page.locator(".iv-readout").inner_text().split("about ")[1].split(",")[0].replace("−", "-"))
    assert about == pytest.approx(dense[950, 650], rel=0.08)
