"""explore in a browser: one click moves map, tokens and page to another head; picks reach the panel; a planted head is found and ablated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import interp

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
WORDS = [f"w{1 + (i * 7) % 96}" for i in range(23)]
TEXT = " ".join(WORDS * 2)


@pytest.fixture(scope="module")
def planted() -> Any:
    from interp.models.planted import planted

    return planted()


def head(page: Page, layer: int, number: int, heads: int = 5) -> Any:
    return page.locator(f'.iv-explore-grid .iv-cell[data-head="{layer * heads + number}"]')


def shows(page: Page, layer: int, number: int) -> None:
    """Wait until the page and the map of a head are there."""
    page.wait_for_selector(f'.iv-explore[data-head="{layer}.{number}"][data-state="ready"]')
    page.wait_for_selector('.iv-explore-map .iv[data-state="ready"]')
    assert page.locator(".iv-explore-map .iv-title").first.inner_text() == f"Layer {layer}, head {number}"
    assert page.locator(".iv-explore-page > .iv-title").inner_text() == f"Layer {layer}, head {number}"


def test_it_opens_on_the_induction_head_and_a_click_opens_another(planted: Any, mount: Callable[..., Any]) -> None:
    model, places = planted
    shown = mount(interp.explore(model.run(TEXT)))
    page = shown.page
    shows(page, *shown.view.shown)
    assert shown.view.shown in (places["induction"], places["retrieval"])
    layer, number = places["sink"]
    head(page, layer, number).click()
    shows(page, layer, number)
    assert shown.view.selected == (layer, number)
    assert page.get_by_role("list", name="sinks").get_by_role("button").first.inner_text() == "0"
    assert page.locator(".iv-explore-tokens").get_by_label("head", exact=True).input_value() == str(number)
    page.keyboard.press("Escape")
    shows(page, *shown.view.source.first)


def test_what_is_locked_in_a_part_is_locked_in_all(planted: Any, mount: Callable[..., Any]) -> None:
    model, places = planted
    shown = mount(interp.explore(model.run(TEXT), head=places["sink"]))
    page = shown.page
    shows(page, *places["sink"])
    page.get_by_role("list", name="sinks").get_by_role("button").first.click()
    tokens = page.locator(".iv-explore-tokens .iv-readout")
    page.wait_for_function("() => /45/.test(document.querySelector('.iv-explore-tokens .iv-readout').textContent)")
    assert f"head {places['sink'][1]}" in tokens.inner_text()
    assert shown.view.selection == {"layer": places["sink"][0], "head": places["sink"][1], "q": 45, "k": 0}
    page.wait_for_function(
        "() => document.querySelector('.iv-explore-map .iv-readout').textContent.includes('weight 1')"
    )


def test_an_induction_head_is_found_picked_and_ablated(planted: Any, mount: Callable[..., Any]) -> None:
    model, places = planted
    shown = mount(interp.explore(model.run(TEXT), model=model, statistic="induction_mass"))
    page = shown.page
    layer, number = places["retrieval"]
    head(page, layer, number).click(modifiers=["Shift"])
    panel = page.locator(".iv-explore-bench")
    assert panel.get_by_label("heads", exact=True).input_value() == f"{layer}.{number}"
    panel.get_by_role("button", name="run").click()
    page.wait_for_selector('.iv-explore-bench .iv[data-job="done"]', timeout=60_000)
    rows = panel.get_by_role("table", name="metrics before and after").locator("tbody tr")
    rows.first.wait_for()
    assert rows.nth(0).locator("th").inner_text() == "cross-entropy"
    effect = shown.view.source.bench.outcome.effect.table.iloc[0]
    assert effect["score"] > 1.0, "without the head that copies, the repeated text cannot be continued"
    assert effect["score"] > 5 * abs(effect["control"])
    assert "AblateHeads" in panel.locator(".iv-copy-text").last.text_content()


def test_tokens_of_the_text_stay_text(mount: Callable[..., Any]) -> None:
    model = interp.tiny("llama")
    page = mount(interp.explore(model.run("<img src=x onerror=alert(1)></script> the"))).page
    assert page.locator(".iv img").count() == 0


def test_a_screen_reader_finds_the_parts(planted: Any, mount: Callable[..., Any]) -> None:
    page = mount(interp.explore(planted[0].run(TEXT))).page
    snapshot = page.locator(".iv-explore").aria_snapshot()
    for part in (
        'region "heads"',
        'region "the head\'s page"',
        'region "attention map"',
        'region "tokens"',
        'table "scores of the head"',
    ):
        assert part in snapshot


def test_a_saved_page_opens_from_its_file(planted: Any, page: Page, tmp_path: Path) -> None:
    model, places = planted
    view = interp.explore(model.run(TEXT), model=model, head=places["previous"])
    page.goto(view.html(tmp_path / "explore.html").as_uri())
    shows(page, *places["previous"])
    assert page.get_by_role("button", name="run").is_disabled()
    layer, number = places["sink"]
    head(page, layer, number).click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.iv-explore > .iv-notice')].some(n => n.textContent.includes('does not hold that'))"
    )
