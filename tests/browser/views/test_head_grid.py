"""HeadGrid in a browser: colours, locks, keys, orders, what it says, hosts that lose buffers or the kernel; expected values worked out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from view_cases import HEADS, KV_HEADS, LAYERS, NASTY, frame, scores

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def grid(**options: Any) -> Any:
    from interp.widgets.views.head_grid import HeadGrid

    return HeadGrid(frame(), **{"kv_heads": KV_HEADS, "title": f"planted {NASTY}", **options})


def cell(page: Page, layer: int, head: int) -> Any:
    return page.locator(f'.iv-cell[data-head="{LAYERS.index(layer) * HEADS + head}"]')


def expected_colours(statistic: str) -> list[str]:
    """CSS colours in the order layer, head: the share of the statistic's own range, through the shared table."""
    from interp.widgets.colours import sequential

    x = scores()[statistic].astype(np.float32).astype(np.float64).ravel()
    x = np.log(x) if statistic == "effective_keys" else x
    part = (x - np.nanmin(x)) / (np.nanmax(x) - np.nanmin(x))
    rgb = sequential()[np.nan_to_num(np.floor(255 * part + 0.5)).astype(int)]
    return ["rgba(0, 0, 0, 0)" if np.isnan(v) else f"rgb({r}, {g}, {b})" for v, (r, g, b) in zip(x, rgb, strict=True)]


def colours(page: Page) -> list[str]:
    return page.evaluate(
        """n => [...Array(n).keys()].map(i => getComputedStyle(document.querySelector(`.iv-cell[data-head="${i}"]`)).backgroundColor)""",
        len(LAYERS) * HEADS,
    )


@pytest.mark.parametrize("statistic", ["entropy", "effective_keys", NASTY])
def test_cells_have_the_colours_of_their_numbers(mount: Callable[..., Any], statistic: str) -> None:
    shown = mount(grid(statistic=statistic))
    assert colours(shown.page) == expected_colours(statistic)


def test_pixels_on_the_screen_are_those_colours(mount: Callable[..., Any]) -> None:
    from io import BytesIO

    from PIL import Image

    shown = mount(grid())
    picture = np.asarray(Image.open(BytesIO(cell(shown.page, 7, 2).screenshot())).convert("RGB"))
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert f"rgb({middle[0]}, {middle[1]}, {middle[2]})" == expected_colours("entropy")[LAYERS.index(7) * HEADS + 2]


def test_hover_previews_click_locks_and_escape_clears(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page, view = shown.page, shown.view
    cell(page, 5, 1).hover()
    page.wait_for_function(
        "() => document.querySelector('.iv-readout').textContent.startsWith('layer 5, head 1: entropy')"
    )
    assert view.hover == {"layer": 5, "head": 1, "q": None, "k": None}
    assert view.selected is None
    cell(page, 5, 1).click()
    assert view.selected == (5, 1)
    cell(page, 11, 3).hover()
    assert page.locator(".iv-readout").inner_text().startswith("layer 5, head 1"), "a hover never overrides a lock"
    assert cell(page, 5, 1).get_attribute("aria-selected") == "true"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('.iv-lock')")
    assert view.selected is None
    cell(page, 5, 1).click()
    cell(page, 5, 1).click()
    assert view.selected is None, "a second click lets go"


def test_keys_alone_move_lock_pick_and_change_the_statistic(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page, view = shown.page, shown.view
    page.locator(".iv-cell[tabindex='0']").focus()
    for key in (
        "ArrowRight",
        "ArrowRight",
        "ArrowDown",
        "ArrowLeft",
        "Enter",
        "ArrowDown",
        "x",
        "ArrowDown",
        "x",
        "ArrowUp",
        "x",
    ):
        page.keyboard.press(key)
    assert view.selected == (3, 1)
    assert view.picked == [(3, 3)]
    page.keyboard.press("PageDown")
    page.wait_for_function(
        "() => document.querySelector('.iv-grid').getAttribute('aria-label').startsWith('effective keys')"
    )
    assert page.locator(".iv-cell[tabindex='0']").count() == 1
    assert colours(page) == expected_colours("effective_keys")


def test_it_is_a_grid_to_a_screen_reader(mount: Callable[..., Any]) -> None:
    page = mount(grid()).page
    snapshot = page.locator("[role=grid]").aria_snapshot()
    assert 'grid "entropy, by head (rows) and layer (columns)"' in snapshot
    assert 'gridcell "7.4: – nats"' in snapshot
    assert snapshot.count("gridcell") == len(LAYERS) * HEADS
    assert page.get_by_role("combobox", name="statistic").count() == 1
    assert page.get_by_role("group", name="order of the heads").get_by_role("button").count() == 3


def test_orders_put_the_best_first_and_alike_side_by_side(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page = shown.page
    page.get_by_role("button", name="by value").click()
    order = page.locator(".iv-cell").evaluate_all("cells => cells.map(c => Number(c.dataset.head))")
    values = scores()["entropy"].astype(np.float32).ravel()
    expected = sorted(range(len(values)), key=lambda i: (np.isnan(values[i]), -values[i], i))
    assert order == expected
    page.get_by_role("button", name="by likeness").click()
    page.wait_for_function("first => Number(document.querySelector('.iv-cell').dataset.head) !== first", arg=order[0])
    order = page.locator(".iv-cell").evaluate_all("cells => cells.map(c => Number(c.dataset.head))")
    assert order == shown.view.source.cluster_order().tolist()
    assert sorted(order) == list(range(len(values)))


def test_heads_that_share_keys_are_bracketed(mount: Callable[..., Any]) -> None:
    page = mount(grid()).page
    assert page.locator(".iv-first").count() == KV_HEADS
    assert "3 heads that share keys" in page.locator(".iv-axis-name").inner_text()


def test_text_stays_text(mount: Callable[..., Any]) -> None:
    page = mount(grid(statistic=NASTY)).page
    assert page.locator(".iv img").count() == 0
    assert page.locator(".iv-title").inner_text() == f"planted {NASTY}"


def test_a_host_that_drops_buffers_is_served_text(mount: Callable[..., Any]) -> None:
    shown = mount(grid(), drop_buffers=True)
    assert colours(shown.page) == expected_colours("entropy")
    assert [m.get("b64") for m in shown.asked] == [None, True]


def test_a_busy_kernel_and_one_that_is_gone_are_said(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page = shown.page
    shown.silent = True
    page.get_by_label("statistic", exact=True).select_option("1")
    page.wait_for_selector('.iv[data-kernel="busy"]')
    assert "busy" in page.locator(".iv-notice").inner_text()
    before = colours(page)
    page.evaluate("() => { window.host.dead = true; }")
    page.wait_for_selector('.iv[data-kernel="gone"]')
    assert "run the cell again" in page.locator(".iv-notice").inner_text()
    assert colours(page) == before


def test_another_table_is_drawn_and_late_answers_of_the_old_one_are_dropped(mount: Callable[..., Any]) -> None:
    from interp.widgets.views.head_table import head_table

    shown = mount(grid())
    small = head_table(frame()[lambda f: f["layer"] < 5])
    shown.view.show(
        small,
        title="two layers",
        payload={
            "layers": [2, 3],
            "heads": HEADS,
            "group": 1,
            "statistics": [{"name": "entropy", "title": "entropy", "unit": "", "formula": ""}],
            "first": 0,
        },
    )
    shown.push("title", "payload", "rev")
    shown.page.wait_for_function(f"() => document.querySelectorAll('.iv-cell').length === {2 * HEADS}")
    shown.settled()
    assert shown.page.locator(".iv-title").inner_text() == "two layers"


def test_a_linked_selection_from_python_is_drawn(mount: Callable[..., Any]) -> None:
    from interp.widgets.views.selection import Selection

    bus = Selection()
    shown = mount(grid(link=bus))
    bus.lock(layer=11, head=5)
    shown.push("selection")
    assert cell(shown.page, 11, 5).get_attribute("class") == "iv-cell iv-lock"
    cell(shown.page, 2, 0).click()
    shown.page.wait_for_function("() => document.querySelectorAll('.iv-lock').length === 1")
    assert (bus.layer, bus.head) == (2, 0)


def test_a_saved_page_opens_from_its_file_and_does_the_same(page: Page, tmp_path: Path) -> None:
    path = grid().html(tmp_path / "grid.html")
    page.goto(path.as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    assert colours(page) == expected_colours("entropy")
    page.get_by_label("statistic", exact=True).select_option("1")
    page.wait_for_function(
        "() => document.querySelector('.iv-grid').getAttribute('aria-label').startsWith('effective keys')"
    )
    page.wait_for_selector('.iv[data-state="ready"]')
    assert colours(page) == expected_colours("effective_keys")
    cell(page, 5, 1).click()
    assert cell(page, 5, 1).get_attribute("aria-selected") == "true"
    assert page.locator("img").count() == 0
