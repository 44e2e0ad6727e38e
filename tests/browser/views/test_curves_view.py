"""CurvesView in a browser: places of lines and points, intervals, the read-out, tables, heads by button and by bus, a saved page, its ARIA tree."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from curves_cases import BUCKETS, MODELS, NASTY, POLICIES, evaluation, models, perplexity, sae_log, streaming, value

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
LEFT, RIGHT, TOP, BOTTOM = 46.0, 410.0, 10.0, 156.0
"""The plot inside its 420 x 190 box."""


def height(y: float, ends: tuple[float, float], *, log: bool) -> float:
    f = math.log if log else float
    return BOTTOM - (BOTTOM - TOP) * (f(y) - f(ends[0])) / (f(ends[1]) - f(ends[0]))


def chart(page: Page, title: str) -> Any:
    return page.locator(".iv-chart").filter(has=page.get_by_role("heading", name=title, exact=True))


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) (-?[\d.]+)", path)]


def test_lines_stand_where_their_values_are(mount: Callable[..., Any]) -> None:
    shown = mount(models().view())
    ends = shown.view.source.panels["entropy"][0].range
    line = chart(shown.page, "entropy").locator('.iv-curve[data-curve="17.2"]')
    found = points(line.get_attribute("d") or "")
    assert len(found) == len(MODELS)
    for m, (x, y) in enumerate(found):
        assert x == pytest.approx(LEFT + (RIGHT - LEFT) * m / 4, abs=0.06)
        assert y == pytest.approx(height(value(17, 2, m), ends, log=False), abs=0.06)


def test_points_have_intervals_and_stand_side_by_side(mount: Callable[..., Any]) -> None:
    shown = mount(streaming().view())
    ends = shown.view.source.panels["streaming"][0].range
    box = chart(shown.page, "perplexity")
    assert box.locator(".iv-curve").count() == 0, "nothing joins buckets"
    circles = box.locator(".iv-point").evaluate_all(
        "nodes => nodes.map(n => [n.dataset.curve, Number(n.getAttribute('cx')), Number(n.getAttribute('cy'))])"
    )
    band = (RIGHT - LEFT) / len(BUCKETS)
    expected = [
        [name, LEFT + band * (b + 0.5 + 0.7 * ((p + 0.5) / 3 - 0.5)), height(perplexity(p, b), ends, log=True)]
        for p, name in enumerate(POLICIES)
        for b in range(len(BUCKETS))
    ]
    assert [c[0] for c in circles] == [e[0] for e in expected]
    for (_, x, y), (_, at, level) in zip(circles, expected, strict=True):
        assert (x, y) == (pytest.approx(at, abs=0.01), pytest.approx(level, abs=0.01))
    whiskers = box.locator(".iv-whisker").evaluate_all(
        "ns => ns.map(n => [n.getAttribute('y1'), n.getAttribute('y2')].map(Number))"
    )
    assert len(whiskers) == 15
    first = perplexity(0, 0)
    assert whiskers[0] == pytest.approx(
        [height(first / 2, ends, log=True), height(first * 2, ends, log=True)], abs=0.01
    )


def test_the_read_out_follows_the_pointer_and_the_keys_and_a_click_holds_it(mount: Callable[..., Any]) -> None:
    page = mount(streaming().view()).page
    said, plot = page.locator(".iv-readout"), chart(page, "perplexity").locator("svg")
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] * (LEFT + 1.5 * (RIGHT - LEFT) / 5) / 420, "y": 40})
    assert said.inner_text() == f"perplexity, 7-13: full 4 (2 to 8); window 16 (8 to 32); {NASTY} 64 (32 to 128)"
    page.mouse.move(2, 2)
    assert said.inner_text().startswith("Point at a chart")
    plot.focus()
    page.keyboard.press("Home")
    assert said.inner_text().startswith("perplexity, 0-6:")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert said.inner_text().startswith("perplexity, beyond:")
    chart(page, "times that of full").locator("svg").hover(position={"x": 60, "y": 40})
    assert said.inner_text().startswith("times that of full, 0-6: window 1 (0.5 to 2)")
    page.mouse.move(2, 2)
    assert said.inner_text().startswith("perplexity, beyond:"), "what was clicked stays"
    page.keyboard.press("Escape")
    assert said.inner_text().startswith("Point at a chart")


def test_a_head_is_locked_by_its_button_and_drawn_when_it_is_chosen_elsewhere(mount: Callable[..., Any]) -> None:
    shown = mount(models().view())
    page = shown.page
    page.get_by_text("numbers of entropy").click()
    button = page.get_by_role("table", name="entropy").get_by_role("button", name="17.1")
    button.click()
    assert shown.view.selected == (17, 1)
    box = chart(page, "entropy")
    assert box.locator('.iv-curve[data-curve="17.1"]').evaluate("n => n.style.stroke") == "var(--lock)"
    button.click()
    assert shown.view.selected is None
    # 2.1 moves least but one: it has no line of its own until somebody chooses it.
    assert box.locator('.iv-curve[data-curve="2.1"]').count() == 0
    shown.view.hover = {"layer": 2, "head": 1, "q": None, "k": None}
    shown.push("hover")
    assert len(points(box.locator('.iv-curve[data-curve="2.1"]').get_attribute("d"))) == len(MODELS)
    shown.view.selection = {"layer": 17, "head": 2, "q": None, "k": None}
    shown.push("selection")
    assert box.locator('.iv-curve[data-curve="2.1"]').count() == 0, "a hover never overrides a lock"
    page.keyboard.press("Escape")


def test_a_panel_is_chosen_and_kept_text_stays_text(mount: Callable[..., Any]) -> None:
    shown = mount(models().view())
    page = shown.page
    page.get_by_label("statistic").select_option(label=NASTY)
    chart(page, NASTY).wait_for()
    assert shown.asked[-1]["panel"] == NASTY
    assert page.locator(".iv img").count() == 0
    named = page.locator(".iv-key").inner_text()
    assert "mean of all heads" in named and "17.2" not in named


def test_tables_hold_the_numbers(mount: Callable[..., Any]) -> None:
    page = mount(evaluation().view()).page
    whole = page.get_by_role("table", name="every metric")
    assert whole.is_visible(), "a table without a chart is open"
    assert whole.locator("tbody tr").first.inner_text().split() == ["ev", "0.9", "0.775"]
    page.get_by_text("numbers of cross-entropy with z replaced").click()
    losses = page.get_by_role("table", name="cross-entropy with z replaced")
    assert losses.locator("tbody tr").nth(1).inner_text().split() == ["autoencoder", "2.25", "2.13"]


def test_a_long_training_says_how_much_its_table_leaves_out(mount: Callable[..., Any], tmp_path: Path) -> None:
    from interp.display import view

    page = mount(view("saes.training", sae_log(tmp_path / "run"))).page
    page.get_by_text("numbers of loss: 24 of 1,301 places").click()
    rows = page.get_by_role("table", name="loss").locator("tbody tr")
    assert rows.count() == 24
    assert rows.last.inner_text().split()[0] == "26,020"


def test_a_saved_page_has_all_panels(page: Page, tmp_path: Path) -> None:
    page.goto(models().view().html(tmp_path / "x.html").as_uri())
    page.get_by_label("statistic").select_option(label=NASTY)
    chart(page, NASTY).wait_for()


def test_it_is_told_to_those_who_do_not_see_it(mount: Callable[..., Any]) -> None:
    page = mount(streaming().view()).page
    tree = page.locator(".iv").aria_snapshot()
    assert 'region "curves"' in tree
    assert f'img "perplexity; perplexity, logarithmic over rows, full, window, {NASTY}"' in tree
    assert 'heading "times that of full" [level=4]' in tree
    assert "status" in tree
