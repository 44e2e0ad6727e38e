"""NeedleGrid in a browser: numbers and colours of cells, intervals on hover, locks, keys, the head of a linked view, a saved page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from heads_cases import NASTY, NEEDLES, retrieval, trials

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def grid(given: Any = None, **options: Any) -> Any:
    from interp.widgets.views.needle_grid import NeedleGrid

    return NeedleGrid(retrieval() if given is None else given, **{"title": f"planted {NASTY}", **options})


def cell(page: Page, i: int, j: int) -> Any:
    return page.locator(f'.iv-trial[data-cell="{3 * i + j}"]')


def colours(page: Page) -> list[str]:
    return page.locator(".iv-trial").evaluate_all(
        "cells => cells.sort((a, b) => a.dataset.cell - b.dataset.cell).map(c => getComputedStyle(c).backgroundColor)"
    )


def expected_colours(layer: int, head: int) -> list[str]:
    """CSS colours of a head's scores, on a scale from 0 to 1, in the order length, depth."""
    from interp.widgets.colours import sequential

    x = retrieval().arrays["grid"][:, :, layer, head].astype(np.float32).ravel()
    rgb = [sequential()[int(np.floor(255 * v + 0.5))] if np.isfinite(v) else None for v in x]
    return ["rgba(0, 0, 0, 0)" if c is None else f"rgb({c[0]}, {c[1]}, {c[2]})" for c in rgb]


def shows_head(page: Page, name: str) -> None:
    page.wait_for_function(
        "name => document.querySelector('.iv-needles').getAttribute('aria-label').includes(`head ${name},`)", arg=name
    )


def test_cells_have_the_colours_and_counts_of_the_selected_head(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page = shown.page
    best = ".".join(map(str, shown.view.payload["best"][0]))
    shows_head(page, best)
    assert colours(page) == expected_colours(*shown.view.payload["best"][0])
    shown.view.selection = {"layer": 1, "head": 3, "q": None, "k": None}
    shown.push("selection")
    shows_head(page, "1.3")
    assert colours(page) == expected_colours(1, 3)
    assert cell(page, 0, 0).inner_text().split() == ["1", "5", "of", "5"]
    assert cell(page, 1, 2).inner_text().split() == ["–", "0", "of", "5"]
    assert page.get_by_label("head", exact=True).input_value() == "1.3"


def test_hover_tells_score_count_and_interval(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page = shown.page
    found = int(trials().query("length == 64 and depth == 0.25")["correct"].sum())
    z2 = 1.959963985**2  # Wilson's ends solve (p - k/n)^2 = z^2 p (1 - p) / n
    low, high = sorted(100 * np.roots([NEEDLES + z2, -(2 * found + z2), found**2 / NEEDLES]))
    cell(page, 0, 1).hover()
    page.wait_for_function(
        "() => document.querySelector('.iv-readout').textContent.startsWith('64 tokens, depth 25 %')"
    )
    said = page.locator(".iv-readout").inner_text()
    assert f"found in {found} of {NEEDLES} answers (95 % interval {low:.3g} % to {high:.3g} %)" in said
    layer, head = shown.view.payload["best"][0]
    score = retrieval().arrays["grid"][0, 1, layer, head]
    assert f"head {layer}.{head}: score {score:.3g}" in said


def test_click_locks_the_cell_hover_does_not_override_and_escape_clears(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page, view = shown.page, shown.view
    cell(page, 1, 0).click()
    assert view.cell == (256, 0.0)
    cell(page, 0, 2).hover()
    assert page.locator(".iv-readout").inner_text().startswith("256 tokens, depth 0 %")
    assert cell(page, 1, 0).get_attribute("aria-selected") == "true"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('.iv-lock')")
    assert view.cell is None
    cell(page, 1, 0).click()
    cell(page, 1, 0).click()
    assert view.cell is None


def test_keys_alone_lock_a_cell_and_change_what_is_shown(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page, view = shown.page, shown.view
    page.locator(".iv-trial[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert view.cell == (256, 0.25)
    for kind, words in (
        ("PageDown", "share of accepted answers in which"),
        ("PageDown", "share of answers found"),
        ("PageUp", "share of accepted answers in which"),
    ):
        page.keyboard.press(kind)
        page.wait_for_function(
            "words => document.querySelector('.iv-needles').getAttribute('aria-label').startsWith(words)", arg=words
        )
    page.get_by_role("button", name="found").click()
    found = retrieval().arrays["grid_accepted"]
    assert cell(page, 0, 0).inner_text().split() == ["1", "5", "of", "5"]
    assert cell(page, 1, 0).inner_text().split()[0] == f"{found[1, 0] / NEEDLES:.2g}"


def test_a_head_is_chosen_with_the_picker_or_hovered_in_a_linked_view(mount: Callable[..., Any]) -> None:
    shown = mount(grid())
    page = shown.page
    shown.view.hover = {"layer": 0, "head": 6, "q": None, "k": None}
    shown.push("hover")
    shows_head(page, "0.6")
    assert colours(page) == expected_colours(0, 6)
    page.get_by_label("head", exact=True).select_option("1.2")
    shows_head(page, "1.2")
    assert shown.view.selected == (1, 2)
    shown.view.hover = {"layer": 0, "head": 1, "q": None, "k": None}
    shown.push("hover")
    shown.settled()
    assert colours(page) == expected_colours(1, 2), "a hover never overrides a lock"


def test_it_is_a_grid_to_a_screen_reader_and_text_stays_text(mount: Callable[..., Any]) -> None:
    page = mount(grid(trials())).page
    snapshot = page.locator("[role=grid]").aria_snapshot()
    assert 'grid "share of answers found, the model, by depth (rows) and length (columns)"' in snapshot
    assert 'gridcell "256 tokens, depth 100 %: 0, 0 of 5"' in snapshot
    assert snapshot.count("gridcell") == 6
    assert page.locator(".iv-title").inner_text() == f"planted {NASTY}"
    assert page.locator(".iv img").count() == 0
    assert page.get_by_label("head", exact=True).count() == 0


def test_a_host_that_drops_buffers_is_served_text(mount: Callable[..., Any]) -> None:
    shown = mount(grid(), drop_buffers=True)
    assert colours(shown.page) == expected_colours(*shown.view.payload["best"][0])


def test_a_saved_page_opens_from_its_file_and_does_the_same(page: Page, tmp_path: Path) -> None:
    page.goto(grid().html(tmp_path / "needles.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    page.get_by_label("head", exact=True).select_option("1.3")
    shows_head(page, "1.3")
    assert colours(page) == expected_colours(1, 3)
    cell(page, 0, 0).click()
    assert cell(page, 0, 0).get_attribute("aria-selected") == "true"
