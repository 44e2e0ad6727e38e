"""Intervene in a browser: heads written by hand, fields of each edit, progress and cancelling, the outcome, errors as words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import interp

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
TEXTS = [[11, 29, 7, 3, 5, 13, 17, 19], [23, 2, 31, 37, 41, 43]]


@pytest.fixture(scope="module")
def model() -> Any:
    return interp.tiny("llama")


def view(model: Any, **options: Any) -> Any:
    from interp.widgets.views.intervene import Intervene

    return Intervene(model, TEXTS, **{"draws": 2, **options})


def job(page: Page, state: str) -> None:
    page.wait_for_selector(f'.iv[data-job="{state}"]', timeout=60_000)


def test_heads_an_edit_and_run(model: Any, mount: Callable[..., Any]) -> None:
    shown = mount(view(model))
    page = shown.page
    page.get_by_label("edit", exact=True).select_option(label="temperature")
    page.get_by_label("factor on the logits").fill("0.25")
    page.get_by_label("heads", exact=True).fill("0.1, 2.3")
    page.keyboard.press("Enter")
    job(page, "done")
    rows = page.get_by_role("table", name="metrics before and after").locator("tbody tr")
    rows.first.wait_for()
    assert rows.count() == len(shown.view.result.table)
    assert shown.view.result.manifest["edits"] == ["Temperature(0.25: 0.1, 2.3)"]
    page.get_by_text("Python", exact=True).click()
    assert page.locator(".iv-copy-text").last.inner_text().strip() == shown.view.code.strip()


def test_picks_and_locked_heads_fill_the_field(model: Any, mount: Callable[..., Any]) -> None:
    shown = mount(view(model))
    shown.view.selection = {"layer": 2, "head": 1, "q": None, "k": None}
    shown.push("selection")
    field = shown.page.get_by_label("heads", exact=True)
    assert field.input_value() == "2.1"
    shown.view.picks = [[0, 3], [1, 5]]
    shown.push("picks")
    assert field.input_value() == "0.3, 1.5"


def test_it_says_how_far_it_is_and_can_be_cancelled(model: Any, mount: Callable[..., Any]) -> None:
    shown = mount(view(model, draws=2000))
    page = shown.page
    page.get_by_label("heads", exact=True).fill("1.1")
    page.get_by_role("button", name="run").click()
    job(page, "running")
    page.get_by_role("button", name="cancel").click()
    job(page, "stopped")
    assert "cancelled" in page.locator(".iv-notice").inner_text()
    assert page.get_by_role("button", name="run").is_visible()


BAD = [("nine", "Write heads as layer.head"), ("", "Write heads as layer.head"), ("7.0", "heads 7.0 do not exist")]


@pytest.mark.parametrize(("written", "said"), BAD)
def test_what_cannot_be_done_is_said_in_words(model: Any, mount: Callable[..., Any], written: str, said: str) -> None:
    page = mount(view(model)).page
    page.get_by_label("heads", exact=True).fill(written)
    page.get_by_role("button", name="run").click()
    page.wait_for_function("said => document.querySelector('.iv-notice').textContent.includes(said)", arg=said)


def test_a_task_shows_what_a_head_is_for(mount: Callable[..., Any]) -> None:
    """The answers of a planted model need its one copying head, and no random head beside it."""
    from interp.models.planted import planted
    from interp.widgets.views.intervene import Intervene

    model, places = planted("retrieval")
    layer, head = places["retrieval"]
    shown = mount(Intervene(model, TEXTS, draws=2, prompts=4))
    page = shown.page
    page.get_by_label("heads", exact=True).fill(f"{layer}.{head}")
    page.get_by_label("on", exact=True).select_option(label="4 prompts, task repeated: what followed before")
    page.get_by_role("button", name="run").click()
    job(page, "done")
    page.get_by_role("table", name="metrics before and after").wait_for()
    assert "done on 4 prompts of repeated" in page.locator(".iv-readout").last.inner_text()
    row = page.get_by_role("row", name=re.compile("^accuracy")).inner_text().split("\t")
    assert (row[0], row[1], row[3]) == ("accuracy", "1", "−1"), "all answers are lost"
    assert row[5].startswith("0"), "and none under random heads"
    page.get_by_text("Python", exact=True).click()
    assert (
        "prompts_of(model.tokenizer, Repetition(length=12, repeats=2), samples=4, seed=0)"
        in page.locator(".iv-copy-text").last.inner_text()
    )


def test_a_saved_page_shows_the_outcome_and_runs_nothing(model: Any, page: Page, tmp_path: Path) -> None:
    from interp.widgets.views.edit_choices import Chosen

    panel = view(model)
    panel.source.start(Chosen(edit="ablate", heads=((1, 2),), values={"kind": "zero"}))
    panel.wait(60)
    page.goto(panel.html(tmp_path / "panel.html").as_uri())
    page.get_by_role("table", name="metrics before and after").wait_for()
    assert page.get_by_role("button", name="run").is_disabled()
