"""CompareView in a browser: signed colours, locks and keys, what it says, the table, copying, saved pages; expected values worked out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare_cases import HEADS, LAYERS, NASTY, before, change, effects, heads, patching, scans

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
BLUE, GREY, ORANGE = np.array((38, 78, 168)), np.array((213, 213, 213)), np.array((214, 104, 16))


def view(*things: Any, **options: Any) -> Any:
    from interp.widgets.views.compare_view import CompareView

    return CompareView(*things, **options)


def cell(page: Page, layer: int, head: int) -> Any:
    return page.locator(f'.iv-cell[data-head="{LAYERS.index(layer) * HEADS + head}"]')


def expected_colours() -> list[str]:
    """CSS colours in the order layer, head: as far from grey towards blue or orange as the change is from zero, in 127 steps."""
    found = []
    for x in change().ravel() / (11 / 32):
        if np.isnan(x):
            found.append("rgba(0, 0, 0, 0)")
            continue
        step = np.floor(x * 127 + 0.5) / 127
        rgb = np.round(GREY + abs(step) * ((ORANGE if step > 0 else BLUE) - GREY)).astype(int)
        found.append(f"rgb({rgb[0]}, {rgb[1]}, {rgb[2]})")
    return found


def colours(page: Page) -> list[str]:
    return page.locator(".iv-cell").evaluate_all(
        "cells => cells.sort((a, b) => a.dataset.head - b.dataset.head).map(c => getComputedStyle(c).backgroundColor)"
    )


def test_cells_have_the_colours_of_their_changes(mount: Callable[..., Any]) -> None:
    assert colours(mount(view(patching())).page) == expected_colours()


def test_hover_previews_click_locks_and_escape_clears(mount: Callable[..., Any]) -> None:
    shown = mount(view(heads(before()), heads(before() + change())))
    page, made = shown.page, shown.view
    cell(page, 5, 1).hover()
    page.wait_for_function(
        "() => document.querySelector('.iv-readout').textContent.startsWith('layer 5, head 1: entropy +0.219')"
    )
    assert "from 0.234 to 0.453" in page.locator(".iv-readout").inner_text()
    assert "7 of 20 by size" in page.locator(".iv-readout").inner_text()
    assert made.selected is None
    cell(page, 5, 1).click()
    cell(page, 2, 0).hover()
    assert page.locator(".iv-readout").inner_text().startswith("layer 5, head 1")
    assert made.selected == (5, 1)
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('.iv-lock')")
    assert made.selected is None


def test_two_scans_name_their_sides_and_say_each_heads_interval(mount: Callable[..., Any]) -> None:
    page = mount(scans().view()).page
    page.get_by_label("change of", exact=True).select_option(label="entropy")
    page.wait_for_selector('.iv[data-state="ready"]')
    cell(page, 3, 2).hover()
    # 9 - 8 = 1 of 32; its interval reaches 1/64 below and 1/32 above; the means are 9/64 and 9/64 + 1/32.
    page.wait_for_function(
        "() => document.querySelector('.iv-readout').textContent.startsWith('layer 3, head 2: entropy +0.0313; interval 0.0156 to 0.0625')"
    )
    assert "A: small 0.141, B: large 0.172" in page.locator(".iv-readout").inner_text()
    table = page.get_by_role("table", name="metrics A: small and B: large")
    assert table.locator("thead th").all_inner_texts()[:4] == ["metric", "A: small", "B: large", "change"]
    assert "Intervals of single heads (90 %): paired bootstrap over shards." in page.locator(".iv-effects").inner_text()


def test_keys_alone_move_and_lock_and_the_largest_changes_can_be_locked(mount: Callable[..., Any]) -> None:
    shown = mount(view(patching()))
    shown.page.locator(".iv-cell[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        shown.page.keyboard.press(key)
    assert shown.view.selected == (3, 2)
    first = shown.page.get_by_role("list", name="largest changes").get_by_role("button").first
    assert first.inner_text() == "5.5"
    first.click()
    assert shown.view.selected == (5, 5)


def test_metrics_stand_beside_interval_and_control(mount: Callable[..., Any]) -> None:
    page = mount(view(effects())).page
    rows = page.get_by_role("table", name="metrics before and after").locator("tbody tr")
    assert rows.nth(0).locator("td").all_inner_texts()[:5] == ["2", "2.5", "0.5", "0.25 to 0.75", "0.125 ± 0.063"]
    assert rows.nth(1).locator("th").inner_text() == NASTY
    assert page.locator("img").count() == 0
    zero, dot, diamond = (
        page.locator(f".iv-effect-{name}").first.bounding_box() for name in ("zero", "change", "control")
    )
    middle = zero["x"] + zero["width"] / 2
    # The row's scale ends at the interval's end, 0.75, at 48 % of 160 pixels.
    assert dot["x"] + dot["width"] / 2 - middle == pytest.approx(0.5 / 0.75 * 0.48 * 160, abs=1.5)
    assert diamond["x"] + diamond["width"] / 2 - middle == pytest.approx(0.125 / 0.75 * 0.48 * 160, abs=1.5)


def test_the_recipe_can_be_copied(mount: Callable[..., Any]) -> None:
    import json

    page = mount(view(effects())).page
    page.get_by_text("recipe (JSON)", exact=True).click()
    page.get_by_role("button", name="copy recipe (JSON)").click()
    page.wait_for_function("() => /copied|selected/.test(document.querySelector('.iv-readout').textContent)")
    shown = page.locator(".iv-copy-text").inner_text()
    assert json.loads(shown)["edits"] == ["AblateHeads(zero: 1.2)"]


def test_it_is_a_grid_to_a_screen_reader(mount: Callable[..., Any]) -> None:
    page = mount(view(patching())).page
    snapshot = page.locator("[role=grid]").aria_snapshot()
    assert 'grid "change of score, by head (rows) and layer (columns)"' in snapshot
    assert 'gridcell "2.0: −0.25"' in snapshot
    assert 'gridcell "5.6: –"' in snapshot


def test_a_saved_page_opens_from_its_file_and_does_the_same(page: Page, tmp_path: Path) -> None:
    page.goto(view(patching()).html(tmp_path / "changes.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    assert colours(page) == expected_colours()
    cell(page, 3, 4).click()
    assert cell(page, 3, 4).get_attribute("aria-selected") == "true"
