"""SinkExplorer in a browser: colours of the rates, slider, places, keys of a head, lists, saved page; expected values worked out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sink_cases import HEADS, LAYERS, alphas, sink_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def explorer(**options: Any) -> Any:
    from interp.widgets.views.sink_explorer import SinkExplorer

    return SinkExplorer(sink_report(), **{"title": "planted", **options})


def expected_colours(values: np.ndarray) -> list[str]:
    from interp.widgets.colours import sequential

    rgb = sequential()[np.floor(255 * values.ravel() + 0.5).astype(int)]
    return [f"rgb({r}, {g}, {b})" for r, g, b in rgb]


def colours(page: Page) -> list[str]:
    return page.evaluate(
        """n => [...Array(n).keys()].map(i => getComputedStyle(document.querySelector(`.iv-cell[data-head="${i}"]`)).backgroundColor)""",
        LAYERS * HEADS,
    )


def rates(threshold: float, name: str = "natural", behind: bool = False) -> np.ndarray:
    alpha = alphas()[name]
    chosen = alpha[..., 1:-2].max(-1) if behind else alpha[..., 0]
    return (chosen > np.float64(threshold)).mean(0)


def slide(page: Page, value: float) -> None:
    page.get_by_label("threshold").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def test_the_slider_repaints_every_head_and_asks_nothing(mount: Callable[..., Any]) -> None:
    shown = mount(explorer(threshold=0.3))
    page = shown.page
    assert colours(page) == expected_colours(rates(0.3))
    asked = len(shown.asked)
    slide(page, 0.71)
    assert colours(page) == expected_colours(rates(0.71))
    assert len(shown.asked) == asked
    page.get_by_role("button", name="behind it").click()
    page.wait_for_function(
        "() => document.querySelector('h4').textContent.includes('strongest key behind it passes 0.71')"
    )
    shown.settled()
    assert colours(page) == expected_colours(rates(0.71, behind=True))
    page.get_by_label("text").select_option("random")
    shown.settled()
    assert colours(page) == expected_colours(rates(0.71, "random", behind=True))


def test_a_head_shows_its_keys_and_a_lock_holds(mount: Callable[..., Any]) -> None:
    shown = mount(explorer())
    page = shown.page
    cell = page.locator(f'.iv-cell[data-head="{2 * HEADS + 3}"]')
    cell.click()
    page.wait_for_function("() => document.querySelector('.iv-list h4').textContent.includes('layer 2, head 3')")
    assert shown.view.selected == (2, 3)
    alpha = alphas()["natural"].astype(np.float64)[:, 2, 3, :-2].mean(0)
    order = np.argsort(-alpha)
    listed = page.get_by_role("region", name="strongest keys").locator("tbody tr").all_inner_texts()
    assert [int(row.split()[0]) for row in listed] == order.tolist()
    np.testing.assert_allclose([float(row.split()[1]) for row in listed], alpha[order], atol=6e-4)
    bars = page.locator("rect.iv-bar").evaluate_all("bars => bars.map(b => Number(b.getAttribute('height')))")
    np.testing.assert_allclose(np.array(bars) / max(bars), alpha / alpha.max(), atol=0.01)
    passed = int((alphas()["natural"][:, 2, 3, 0] > 0.3).sum())
    assert f"passes 0.3 in {passed} of 7" in page.locator(".iv-readout").inner_text()
    page.locator('.iv-cell[data-head="0"]').hover()
    assert "layer 2, head 3" in page.locator(".iv-readout").inner_text(), "a hover never overrides a lock"
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)
    page.wait_for_function("() => document.querySelector('.iv-list h4').textContent.includes('mean of all heads')")
    assert shown.view.selected is None


def test_curves_are_read_out_by_keys(mount: Callable[..., Any]) -> None:
    page = mount(explorer()).page
    chart = page.locator(".iv-chart svg").first
    assert (
        chart.get_attribute("aria-label")
        == "mean over heads, by layer; share over 0.3 over layer, natural, random, repeated"
    )
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    said = "; ".join(f"{name} {float(f'{rates(0.3, name)[1].mean():.3g}'):g}" for name in alphas())
    assert page.locator(".iv-readout").inner_text() == f"layer 1: {said}"


def test_it_is_a_grid_to_a_screen_reader_and_tokens_stay_text(mount: Callable[..., Any]) -> None:
    page = mount(explorer()).page
    snapshot = page.locator(".iv").aria_snapshot()
    assert (
        'grid "share of 7 sequences in which the first token passes 0.3, by head (rows) and layer (columns)"'
        in snapshot
    )
    assert 'slider "threshold"' in snapshot and snapshot.count("gridcell") == LAYERS * HEADS
    assert page.locator(".iv img").count() == 0
    assert "<img·src=x·onerror=alert(1)>" in page.get_by_role("region", name="strongest sinks behind").inner_text()


def test_a_saved_page_does_the_same(page: Page, tmp_path: Path) -> None:
    page.goto(explorer().html(tmp_path / "sinks.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    slide(page, 0.55)
    assert colours(page) == expected_colours(rates(0.55))
    page.locator('.iv-cell[data-head="7"]').click()
    page.wait_for_function("() => document.querySelector('.iv-list h4').textContent.includes('layer 1, head 2')")
    page.get_by_role("button", name="behind it").click()
    page.wait_for_selector('.iv[data-state="ready"]')
    assert colours(page) == expected_colours(rates(0.55, behind=True))
