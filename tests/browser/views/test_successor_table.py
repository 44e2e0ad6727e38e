"""SuccessorTable in a browser: order, locks, keys, pairs of the shown head, the copied table, a saved page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from heads_cases import HEADS, LAYERS, NASTY, successor

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def table(**options: Any) -> Any:
    from interp.widgets.views.successor_table import SuccessorTable

    return SuccessorTable(successor(), **{"title": f"planted {NASTY}", **options})


def names(page: Page) -> list[str]:
    return page.locator(".iv-succ tbody th").all_inner_texts()


def by(column: str, *, down: bool = True) -> list[str]:
    """Heads in the order of a column, ties to the lowest layer and head."""
    x = successor().table[column].to_numpy()
    order = sorted(range(LAYERS * HEADS), key=lambda i: (-x[i] if down else x[i], i))
    return [f"{i // HEADS}.{i % HEADS}" for i in order]


def row(page: Page, layer: int, head: int) -> Any:
    return page.locator(f'.iv-succ tr[data-row="{layer * HEADS + head}"]')


def pairs_of(page: Page, name: str) -> Any:
    return page.locator(f'.iv-succ-pairs[aria-label="pairs of head {name}"]')


def test_heads_stand_by_score_and_a_column_sorts_both_ways(mount: Callable[..., Any]) -> None:
    page = mount(table()).page
    assert names(page) == by("score")
    assert page.locator("th[aria-sort]").all_inner_texts() == ["score ▾"]
    page.get_by_role("button", name="days").click()
    assert names(page) == by("days")
    page.get_by_role("button", name="days").click()
    assert names(page) == by("days", down=False)
    assert page.locator("th[aria-sort=ascending]").all_inner_texts() == ["days ▴"]


def test_cells_are_the_numbers_of_the_table(mount: Callable[..., Any]) -> None:
    page = mount(table()).page
    assert row(page, 1, 5).locator("td").all_inner_texts() == ["1", "0.0625", "0.125", "0", "2", "1", "1"]
    days = successor().table.query("layer == 0 and head == 4")["days"].item()
    assert row(page, 0, 4).locator("td").nth(5).inner_text() == f"{days:.3g}"


def test_hover_previews_pairs_click_locks_and_escape_clears(mount: Callable[..., Any]) -> None:
    shown = mount(table())
    page, view = shown.page, shown.view
    pairs_of(page, by("score")[0]).wait_for()
    row(page, 0, 2).hover()
    pairs_of(page, "0.2").wait_for()
    assert pairs_of(page, "0.2").locator("h4 span").all_inner_texts() == ["0 of 7", "0 of 3"]
    assert view.hover["head"] == 2
    row(page, 1, 5).click()
    pairs_of(page, "1.5").wait_for()
    assert view.selected == (1, 5)
    assert pairs_of(page, "1.5").locator("li").first.inner_text() == "Monday → Tuesday  ✓"
    row(page, 0, 4).hover()
    assert pairs_of(page, "1.5").count() == 1, "a hover never overrides a lock"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('.iv-lock')")
    assert view.selected is None


def test_keys_alone_move_and_lock(mount: Callable[..., Any]) -> None:
    shown = mount(table())
    page = shown.page
    page.locator(".iv-succ tr[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert f"{shown.view.selected[0]}.{shown.view.selected[1]}" == by("score")[1]


def test_pairs_are_those_of_the_head(mount: Callable[..., Any]) -> None:
    shown = mount(table())
    shown.view.selection = {"layer": 1, "head": 0, "q": None, "k": None}
    shown.push("selection")
    pairs_of(shown.page, "1.0").wait_for()
    correct = successor().arrays["correct"][:, 1, 0]
    items = pairs_of(shown.page, "1.0").locator("li").all_inner_texts()
    assert [text.endswith("✓") for text in items] == [bool(x) for x in correct[:7]]
    assert pairs_of(shown.page, "1.0").locator("h4 span").all_inner_texts() == [
        f"{correct[:7].sum()} of 7",
        f"{correct[7:].sum()} of 3",
    ]


def test_what_is_copied_is_what_python_writes(mount: Callable[..., Any]) -> None:
    shown = mount(table())
    shown.page.get_by_role("button", name="days").click()
    assert shown.page.locator(".iv-copy-text").text_content() == shown.view.markdown(by="days")


def test_it_is_a_table_of_heads_to_a_screen_reader_and_text_stays_text(mount: Callable[..., Any]) -> None:
    page = mount(table()).page
    snapshot = page.get_by_role("grid", name="successor scores of heads").aria_snapshot()
    assert snapshot.count("rowheader") == LAYERS * HEADS
    assert 'rowheader "1.5"' in snapshot
    assert 'button "tasks > 0.5"' in snapshot
    assert page.locator(".iv-title").inner_text() == f"planted {NASTY}"
    assert page.locator(".iv img").count() == 0


def test_ranks_and_tokens_of_a_model_are_shown(mount: Callable[..., Any]) -> None:
    from dataclasses import replace

    import numpy as np

    from interp.widgets.views.successor_table_source import WordList

    view = table()
    lists = (
        WordList(task="days", case="plain", count=7, pairs=((" a", NASTY),) * 7),
        WordList(task="numbers", case="plain", count=3),
    )
    source = replace(view.source, lists=lists, ranks=lambda layer, head: np.arange(1, 11) + layer)
    view.show(source, title="x", payload=view.payload | {"ranked": True})
    shown = mount(view)
    shown.view.selection = {"layer": 1, "head": 0, "q": None, "k": None}
    shown.push("selection")
    pairs_of(shown.page, "1.0").wait_for()
    assert pairs_of(shown.page, "1.0").locator("li").nth(1).inner_text() == f"·a → {NASTY.replace(' ', '·')}  rank 3"
    assert shown.page.locator(".iv img").count() == 0


def test_a_saved_page_opens_from_its_file_and_does_the_same(page: Page, tmp_path: Path) -> None:
    page.goto(table().html(tmp_path / "x.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    assert names(page) == by("score")
    row(page, 0, 2).click()
    pairs_of(page, "0.2").wait_for()
    assert row(page, 0, 2).get_attribute("aria-selected") == "true"
