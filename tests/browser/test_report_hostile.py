"""Strings of models and texts are shown as they are: none becomes an element, runs, or reaches out."""

from __future__ import annotations

import socket
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report_cases import NASTY, frame, manifest, thumbnails

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SIGNS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}
MARKUP = NASTY[0]


def visible(text: str) -> str:
    """A token as the page writes it: signs for spaces, codes for what is invisible or turns the text around."""
    shown = ""
    for c in text:
        hidden = unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Zs"}
        surrogate = unicodedata.category(c) == "Cs"
        shown += SIGNS.get(c) or ("?" if surrogate else f"⟨{ord(c):x}⟩" if hidden else c)
    return shown


@pytest.fixture
def hostile(page: Page, tmp_path: Path) -> Page:
    """A report in which every string that comes from outside is hostile."""
    from interp.widgets.report import report_page

    said = manifest(MARKUP, errors=list(NASTY), finished=NASTY[2], dtype=NASTY[3], backends=list(NASTY[:2]))
    said["plan"]["text"] = {"kind": "file", "name": NASTY[1]}
    said["statistics"]["entropy"] |= {
        key: NASTY[1] for key in ("title", "unit", "formula", "undefined", "cost", "citation", "merge")
    }
    said["statistics"]["induction_mass"]["title"] = NASTY[2]
    path = tmp_path / "report.html"
    path.write_text(report_page(frame(), said, thumbnails(NASTY)), encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def test_every_hostile_string_is_shown_as_it_is(hostile: Page) -> None:
    assert hostile.title() == f"{MARKUP}: attention heads"
    assert hostile.locator("h1").text_content() == MARKUP
    facts = hostile.locator(".facts dd").all_text_contents()
    assert {f"file {NASTY[1]}", NASTY[3], f"{NASTY[0]}, {NASTY[1]}"} <= set(facts)
    for side in ("left", "top"):
        assert hostile.locator(f".tokens.{side} span").all_text_contents() == [visible(token) for token in NASTY]
    assert hostile.locator('.map[data-statistic="entropy"] .title').text_content() == NASTY[1]
    assert NASTY[1] in hostile.locator("#statistic option").all_text_contents()
    said = hostile.locator(".manifest pre").text_content() or ""
    for text in NASTY[:4]:
        assert text.replace('"', '\\"') in said


def test_no_element_came_of_them_and_nothing_ran(hostile: Page) -> None:
    canvas = hostile.locator(".picture.exact canvas")
    canvas.scroll_into_view_if_needed()
    canvas.hover()
    hostile.locator(".map canvas").first.hover()
    hostile.get_by_role("button", name="definition").click()
    for summary in hostile.locator("summary").all():
        summary.click()
    assert hostile.locator("script").count() == 2
    assert hostile.locator("img, iframe, object, embed, link, base, form, b").count() == 0
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on') || n === 'style')"
    assert hostile.evaluate(f"{handlers}.filter(n => n !== 'style')") == []


def test_markup_that_slipped_in_could_not_run_or_load(browser: Browser, report_file: Path) -> None:
    # A page of its own: here errors on the console are what must happen.
    tab = browser.new_page()
    dialogs: list[str] = []
    refused: list[str] = []
    tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    tab.on("console", lambda message: refused.append(message.text))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        tab.goto(report_file.as_uri())
        tab.evaluate(
            """address => {
                const box = document.createElement('div');
                box.innerHTML = `<img src="${address}/x.png" onerror="alert(1)"><a href="#" onclick="alert(2)">x</a>`;
                document.body.append(box);
                box.querySelector('a').click();
                const script = document.createElement('script');
                script.textContent = 'alert(3)';
                document.body.append(script);
                fetch(address).catch(() => {});
            }""",
            f"http://127.0.0.1:{server.getsockname()[1]}",
        )
        with pytest.raises(TimeoutError):
            server.accept()
    tab.close()
    assert dialogs == []
    assert sum("Content Security Policy" in text for text in refused) >= 4
