"""TokenView in a browser: shades, locks, both directions, keys, search, long texts, untrusted tokens; expected weights worked out here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from report_cases import NASTY
from token_cases import FACTOR, HEAVY, LAYER, planted_capture, weights_of_row, words

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

LIGHT = ":root { --iv-accent: #1f4e8c; --iv-paper: #ffffff; --iv-ink: #000000; }"
N = 101


def view(tokens: list[str] | None = None, **options: Any) -> Any:
    from interp.widgets.views.token_view import TokenView

    return TokenView(planted_capture(words(N) if tokens is None else tokens), **options)


def token(page: Page, i: int) -> Any:
    return page.locator(f'.iv-token[data-token="{i}"]')


def strengths(page: Page) -> dict[int, float]:
    """How strongly the tokens in sight are shaded, 0 to 1, those that are."""
    found = page.evaluate(
        "() => [...document.querySelectorAll('.iv-token')].map(t => [Number(t.dataset.token), getComputedStyle(t).backgroundColor])"
    )
    read = {i: re.fullmatch(r"color\(srgb ([\d.]+) ([\d.]+) ([\d.]+)(?: / ([\d.]+))?\)", colour) for i, colour in found}
    shaded = {i: m for i, m in read.items() if m}
    for match in shaded.values():
        np.testing.assert_allclose([float(x) * 255 for x in match.groups()[:3]], [0x1F, 0x4E, 0x8C], atol=0.6)
    return {i: float(match[4] or 1) for i, match in shaded.items()}


def readout(page: Page) -> str:
    return page.locator(".iv-readout").inner_text()


def test_shades_are_the_roots_of_the_weights(mount: Callable[..., Any]) -> None:
    shown = mount(view(), style=LIGHT)
    row = weights_of_row(N - 1)
    named = [HEAVY, *(i for i in range(24) if i != HEAVY)]
    found = strengths(shown.page)
    assert sorted(found) == sorted(named)
    for i, strength in found.items():
        assert strength == pytest.approx(round(100 * row[i] ** 0.5) / 100, abs=1e-6)
    assert readout(shown.page).startswith(
        f"layer {LAYER}, head 0: token 100 “·w100” looks at 24 tokens with 0.45 of 1; 77 others share 0.55"
    )
    first = shown.page.locator(".iv-strongest li").first.inner_text().split()
    assert first == [str(HEAVY), f"·w{HEAVY}", "0.286"] == [str(HEAVY), f"·w{HEAVY}", f"{FACTOR / (100 + FACTOR):.3g}"]


def test_hover_previews_click_locks_and_escape_clears(mount: Callable[..., Any]) -> None:
    shown = mount(view(), style=LIGHT)
    page = shown.page
    token(page, 9).hover()
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('token 9 ')")
    assert shown.view.hover == {"layer": LAYER, "head": 0, "q": 9, "k": None}
    assert shown.view.selection["q"] is None
    token(page, 9).click()
    assert shown.view.selection["q"] == 9
    token(page, 30).hover()
    shown.settled()
    assert "token 9 " in readout(page), "a hover never overrides a lock"
    assert token(page, 9).get_attribute("aria-selected") == "true"
    token(page, 9).click()
    assert shown.view.selection["q"] is None, "a second click lets go"
    token(page, 30).click()
    page.keyboard.press("Escape")
    assert shown.view.selection["q"] is None
    page.wait_for_function("() => !document.querySelector('.iv-locked')")


def test_the_other_direction_shows_the_readers(mount: Callable[..., Any]) -> None:
    shown = mount(view(), style=LIGHT)
    page = shown.page
    token(page, HEAVY).click()
    page.get_by_role("button", name="is looked at by").click()
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('receives')")
    shown.settled()
    assert shown.view.selection == {"layer": None, "head": None, "q": None, "k": HEAVY}, "the locked token stays"
    found = strengths(page)
    assert sorted(found) == list(range(HEAVY, HEAVY + 24))
    for i, strength in found.items():
        assert strength == pytest.approx(round(100 * (FACTOR / (i + FACTOR)) ** 0.5) / 100, abs=1e-6)
    total = sum(FACTOR / (i + FACTOR) for i in range(HEAVY, N))
    assert f"receives {total:.3g} rows’ worth of 101" in readout(page)


def test_a_named_token_locks_the_pair(mount: Callable[..., Any]) -> None:
    from interp.widgets.views.selection import Selection

    bus = Selection()
    shown = mount(view(link=bus))
    shown.page.locator(".iv-strongest button").first.click()
    assert (bus.q, bus.k) == (N - 1, HEAVY)
    shown.page.wait_for_selector(f'.iv-pair[data-token="{HEAVY}"]')
    bus.lock(layer=LAYER, head=1, q=3)
    shown.push("selection")
    shown.page.wait_for_function(
        "() => document.querySelector('.iv-readout').textContent.startsWith('layer 3, head 1: token 3')"
    )
    assert shown.page.get_by_label("head", exact=True).input_value() == "1"
    shown.page.get_by_label("head", exact=True).select_option("0")
    assert (bus.layer, bus.head, bus.q) == (LAYER, 0, 3)


def test_one_side_locked_elsewhere_is_shown_from_that_side(mount: Callable[..., Any]) -> None:
    from interp.widgets.views.selection import Selection

    bus = Selection()
    shown = mount(view(link=bus))
    pressed = shown.page.locator('[aria-pressed="true"], [aria-checked="true"]')
    for place, direction in (({"k": 3}, "is looked at by"), ({"q": 5, "k": None}, "looks at")):
        bus.lock(**place)
        shown.push("selection")
        shown.settled()
        assert direction in pressed.all_inner_texts(), place
    assert (bus.q, bus.k) == (5, None), "what another view locked is left as it is"


def test_keys_alone_move_lock_turn_and_find(mount: Callable[..., Any]) -> None:
    shown = mount(view())
    page = shown.page
    text = page.get_by_role("listbox")
    text.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert shown.view.selection["q"] == 2
    assert text.get_attribute("aria-activedescendant").endswith("-2")
    page.keyboard.press("d")
    assert shown.view.selection == {"layer": None, "head": None, "q": None, "k": 2}
    page.keyboard.press("End")
    assert text.get_attribute("aria-activedescendant").endswith(f"-{N - 1}")
    page.keyboard.press("/")
    page.keyboard.type("w5 w6 ")
    assert page.get_by_label("find").evaluate("input => input === document.activeElement")
    assert page.locator(".iv-found").evaluate_all("found => found.map(f => Number(f.dataset.token))") == [5], (
        "across tokens"
    )
    assert "1 found" in page.locator(".iv-tools").inner_text()
    page.get_by_label("find").fill("w1")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert "2 of 12" in page.locator(".iv-tools").inner_text(), "w1, w10 to w19 and w100"
    assert shown.view.hover["k"] == 10


def test_it_is_a_list_to_a_screen_reader(mount: Callable[..., Any]) -> None:
    page = mount(view(words(13))).page
    snapshot = page.locator(".iv").aria_snapshot()
    assert 'listbox "tokens of the text, 13"' in snapshot
    assert 'option "0: ·w0"' in snapshot and snapshot.count('option "') == 13 + 1 + 2, "tokens, one layer, two heads"
    assert 'list "strongest tokens"' in snapshot
    assert token(page, 3).get_attribute("aria-posinset") == "4"


def test_a_text_of_32768_tokens_keeps_few_in_the_page(mount: Callable[..., Any]) -> None:
    n = 32768
    shown = mount(view(words(n)))
    page = shown.page
    assert 100 < page.locator(".iv-token").count() < 1500
    assert f"{n - 24:,} others share" in readout(page)
    page.get_by_label("find").fill("#20011")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('token 20011 ')")
    shown.settled()
    assert token(page, 20011).is_visible()
    assert page.locator(".iv-token").count() < 1500
    row = weights_of_row(20011)
    assert page.locator(".iv-strongest b").first.inner_text() == f"{row[HEAVY]:.3g}"
    assert len([m for m in shown.asked if m["op"] == "tokens"]) == 1


def test_text_stays_text_and_every_token_can_be_seen(mount: Callable[..., Any]) -> None:
    tokens = [*NASTY, "", "a\nb", "日本語", "end\n", "next", "x", "y", "z"]
    page = mount(view(tokens)).page
    assert page.locator(".iv img, .iv script").count() == 0
    shown = page.locator(".iv-token").evaluate_all("found => found.map(f => f.textContent)")
    assert shown[0] == "<script>alert(1)</script>" and shown[len(NASTY)] == "∅" and "↵" in shown[len(NASTY) + 1]
    assert shown[6].startswith("⟨2028⟩⟨2029⟩⟨202e⟩txt⟨0⟩"), "what would hide or turn text is a code"
    lines = page.locator(".iv-line").evaluate_all(
        "lines => lines.map(l => [...l.children].map(c => Number(c.dataset.token)))"
    )
    assert [len(NASTY) + 3 + 1] in [line[:1] for line in lines], "a line ends where its text ends"


def test_a_host_that_drops_buffers_is_served_text(mount: Callable[..., Any]) -> None:
    shown = mount(view(), style=LIGHT, drop_buffers=True)
    assert len(strengths(shown.page)) == 24
    assert [m.get("b64") for m in shown.asked] == [None, True, True]


def test_a_saved_page_answers_from_its_file(page: Page, tmp_path: Path) -> None:
    saved = view(list(NASTY) + words(31), title="saved")
    page.goto(saved.html(tmp_path / "tokens.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    assert "token 40 " in readout(page)
    token(page, 20).click()
    page.wait_for_function("() => document.querySelector('.iv-readout').textContent.includes('token 20 ')")
    assert page.locator(".iv-strongest b").first.inner_text() == f"{FACTOR / (20 + FACTOR):.3g}"
    page.get_by_label("head", exact=True).select_option("1")
    page.wait_for_function(
        "() => document.querySelector('.iv-notice').textContent.includes('open the view in a notebook')"
    )
    page.get_by_label("head", exact=True).select_option("0")
    page.wait_for_function("() => document.querySelector('.iv-notice').textContent === ''")
    assert page.locator("img").count() == 0
