"""SAEFeature in a browser: index, sorting, search, opening, contexts shaded by value and by source, the bus, hostile tokens, saved pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from feature_cases import NASTY, RAISES, index, record

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def view(**options: Any) -> Any:
    from interp.widgets.views.sae_feature import SAEFeature
    from interp.widgets.views.sae_source import FeatureTable

    return SAEFeature(FeatureTable(index=index(), record=record, made="97 tokens"), **options)


def listed(page: Page) -> list[int]:
    return page.locator("tr[data-feature]").evaluate_all("rows => rows.map(r => Number(r.dataset.feature))")


def title(page: Page) -> str:
    return page.locator(".iv-sae-page .iv-title").inner_text()


def test_the_index_opens_features_one_by_one(mount: Callable[..., Any]) -> None:
    shown = mount(view())
    page = shown.page
    assert (listed(page), title(page)) == ([7, 3, 11], "feature 7")
    assert [m.get("feature") for m in shown.asked if m["op"] == "feature"] == [7]
    page.locator("tr[data-feature='11']").click()
    page.wait_for_function("() => document.querySelector('.iv-sae-page .iv-title').textContent === 'feature 11'")
    assert shown.view.feature == 11
    assert page.locator("tr[data-feature='11']").get_attribute("aria-selected") == "true"


def test_sorting_searching_and_keys(mount: Callable[..., Any]) -> None:
    page = mount(view()).page
    page.get_by_role("button", name="density").click()
    assert listed(page) == [3, 7, 11]
    page.get_by_role("button", name="density").click()
    assert listed(page) == [11, 7, 3]
    page.locator("tr[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('.iv-sae-page .iv-title').textContent === 'feature 3'")
    page.get_by_label("search").fill("11")
    assert listed(page) == [11]


def test_contexts_are_shaded_by_value_and_by_source(mount: Callable[..., Any]) -> None:
    page = mount(view()).page
    first = page.locator(".iv-sae-context").first.locator(".iv-sae-token")
    # 60 % of the accent at the largest value, by the square root below it.
    assert [t.evaluate("t => t.style.getPropertyValue('--share')") for t in first.all()] == [
        "0%",
        "30%",
        "42%",
        "52%",
        "60%",
    ]
    assert "iv-sae-at" in first.nth(4).get_attribute("class")
    assert "iv-sae-source" in first.nth(0).get_attribute("class")
    page.get_by_role("button", name="DFA by source").click()
    second = page.locator(".iv-sae-context").nth(1).locator(".iv-sae-token")
    assert [t.evaluate("t => t.style.getPropertyValue('--share')") for t in second.all()] == [
        "60%",
        "42%",
        "30%",
        "0%",
        "0%",
    ]
    assert "iv-sae-less" in second.nth(1).get_attribute("class")
    second.nth(1).hover()
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('DFA −0.5')")


def test_heads_lock_and_a_locked_head_leaves_its_own_features(mount: Callable[..., Any]) -> None:
    shown = mount(view())
    page = shown.page
    page.get_by_role("button", name="head 5.2: 0.75").click()
    assert shown.view.selected == (5, 2)
    assert listed(page) == [7, 11]
    assert "mostly of head 5.2" in page.locator(".iv-sae .iv-small").first.inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelectorAll('tr[data-feature]').length === 3")
    assert shown.view.selected is None


def test_tokens_are_text_and_the_page_can_be_read_aloud(mount: Callable[..., Any]) -> None:
    page = mount(view()).page
    assert page.locator(".iv img, .iv b").count() == 0
    assert page.locator(".iv-sae-token").first.inner_text() == NASTY[0].replace(" ", "·")
    assert page.get_by_role("table", name="raises").locator("tbody th").inner_text() == RAISES[0]
    snapshot = page.locator(".iv").aria_snapshot()
    assert 'grid "features"' in snapshot
    assert 'region "feature"' in snapshot


def test_a_saved_page_holds_its_first_features(page: Page, tmp_path: Path) -> None:
    page.goto(view().html(tmp_path / "features.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    page.locator("tr[data-feature='3']").click()
    page.wait_for_function("() => document.querySelector('.iv-sae-page .iv-title').textContent === 'feature 3'")
    assert page.locator("img").count() == 0
