"""The atlas and the page of a head in a browser: no error, no request; a click locks a head, its labels and scores appear, its page opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def atlas_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from atlas_cases import confirmed, placed, wide

    from interp.widgets.atlas import atlas_page

    path = tmp_path_factory.mktemp("atlas") / "atlas.html"
    path.write_text(atlas_page(wide(), {}, pages=[(2, 4)], confirmed=confirmed(), placed=placed()), encoding="utf-8")
    return path


@pytest.fixture
def atlas(page: Page, atlas_file: Path) -> Page:
    page.goto(atlas_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def test_a_click_shows_the_head_and_its_control(atlas: Page) -> None:
    assert atlas.locator(".cell").count() == 15
    atlas.locator('.cell[data-head="14"]').click()
    assert atlas.locator(".inspector h2").inner_text() == "Layer 2, head 4"
    assert atlas.locator(".inspector .label").all_inner_texts() == ["induction"]
    cells = atlas.locator('.inspector tr[data-statistic="induction"] td').all_inner_texts()
    # 0.05 * 14, its seventh, its third, the highest of all
    assert [c.strip() for c in cells] == ["0.7", "0.1", "0.233", "1"]
    assert atlas.locator('.inspector tr[data-statistic="retrieval"] td').nth(2).inner_text() == "–"
    assert atlas.locator(".inspector a").get_attribute("href") == "heads/2.4.html"
    atlas.keyboard.press("Escape")
    assert atlas.locator(".inspector h2").inner_text() == "All 15 heads"


def test_labels_ablations_and_places(atlas: Page) -> None:
    row = atlas.locator('tr[data-label="induction"]')
    assert row.locator("td").all_inner_texts()[:2] == ["2", "1"]
    row.locator("button.head").nth(1).click()
    assert atlas.locator(".inspector h2").inner_text() == "Layer 2, head 3"
    assert atlas.locator("i.point").count() == 15
    assert atlas.locator("i.point.on").get_attribute("data-head") == "13"
    atlas.locator(".places .choice button").nth(1).click()
    assert atlas.locator(".places .choice button").nth(1).get_attribute("aria-pressed") == "true"
    assert "onerror" in atlas.get_by_role("heading", level=1).inner_text()  # shown, not run


def test_the_page_of_a_head(page: Page, tmp_path: Path) -> None:
    from interp.heads.report import report
    from interp.models.planted import planted
    from interp.widgets.head_page import write_head_pages

    model, places = planted("retrieval", seed=3)
    report(model, folder=tmp_path, tokens=128, samples=2, parts=("random tokens",))
    (path,) = write_head_pages(model, tmp_path, [places["retrieval"]])
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    layer, head = places["retrieval"]
    assert page.get_by_role("heading", level=1).inner_text() == f"Layer {layer}, head {head}"
    tabs = page.get_by_role("tab")
    assert tabs.count() == 2
    tabs.nth(1).click()
    assert page.locator(".card:visible .pairs tbody tr").count() == 12
    assert page.locator(".card:visible canvas").count() >= 2
    assert page.locator(".bars i").count() == 240  # singular values of OV and QK, 120 each
