"""The report in a browser: colours, linked marks, the lock, keys, tables, maps; expected values are worked out here from the numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from report_cases import HEADS, LAYERS, ROWS, STATISTICS, frame, manifest, thumbnails, values

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

FIRST = "entropy"  # the report opens on normalised entropy, or on the first statistic where there is none
TITLES = {"entropy": "entropy", "effective_keys": "effective keys", "first_token_mass": "first token mass"}
TITLES |= {"induction_mass": "induction mass", "sink_rate_0.3": "sink rate at 0.3"}


def expected_colours(statistic: str) -> np.ndarray:
    """RGBA [layer, head] of a statistic's map: the share of its own range, through the shared table; clear where undefined."""
    from interp.widgets.colours import sequential

    x = values(statistic).astype(np.float32).astype(np.float64)
    if statistic == "effective_keys":
        x = np.log(x)
    part = (x - np.nanmin(x)) / (np.nanmax(x) - np.nanmin(x))
    rgb = sequential()[np.nan_to_num(np.floor(255 * part + 0.5)).astype(int)]
    alpha = np.where(np.isnan(x), 0, 255)[..., None]
    return np.concatenate([rgb * (alpha > 0), alpha], axis=-1)


def three_digits(x: float) -> str:
    """A number as the page writes it."""
    if np.isnan(x):
        return "–"
    return f"{x:,.0f}" if x >= 999.5 else f"{float(f'{x:.3g}'):g}"


def small_map(page: Page, statistic: str) -> str:
    return f'.map[data-statistic="{statistic}"]'


def point_at(page: Page, statistic: str, layer: int, head: int) -> None:
    """Put the pointer on a head in a small map."""
    canvas = page.locator(f"{small_map(page, statistic)} canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    x = box["x"] + (LAYERS.index(layer) + 0.5) * box["width"] / len(LAYERS)
    page.mouse.move(x, box["y"] + (head + 0.5) * box["height"] / HEADS)


def panel_row(page: Page, statistic: str) -> list[str]:
    """The cells of a statistic's row in the panel beside the maps."""
    return page.locator(f'.inspector tr[data-statistic="{statistic}"] td').all_text_contents()


def test_it_opens_and_says_what_was_measured(report: Page) -> None:
    assert report.title() == "planted: attention heads"
    assert report.locator("h1").text_content() == "planted"
    facts = dict(
        zip(
            report.locator(".facts dt").all_text_contents(),
            report.locator(".facts dd").all_text_contents(),
            strict=True,
        )
    )
    assert facts["tokens"] == "1,234"
    assert facts["layers × heads"] == "7 of 19 × 5"
    assert "Attention weight is not causal effect" in report.locator("header").inner_text()
    assert report.locator(".map .title").all_text_contents() == list(TITLES.values())


@pytest.mark.parametrize("statistic", STATISTICS)
def test_small_maps_have_the_colours_of_their_numbers(report: Page, statistic: str) -> None:
    pixels = report.locator(f"{small_map(report, statistic)} canvas").evaluate(
        "c => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    assert pixels[:2] == [len(LAYERS), HEADS]
    drawn = np.array(pixels[2]).reshape(HEADS, len(LAYERS), 4).transpose(1, 0, 2)
    np.testing.assert_array_equal(drawn, expected_colours(statistic))


@pytest.mark.parametrize("statistic", ["entropy", "effective_keys"])
def test_the_large_map_has_the_same_colours_and_says_its_values(report: Page, statistic: str) -> None:
    report.get_by_label("statistic", exact=True).select_option(label=TITLES[statistic])
    cells = report.locator(".grid .cell").evaluate_all(
        "cells => cells.map(c => [Number(c.dataset.head), getComputedStyle(c).backgroundColor, c.getAttribute('aria-label')])"
    )
    assert len(cells) == len(LAYERS) * HEADS
    expected, means = expected_colours(statistic), values(statistic)
    unit = {"entropy": "nats", "effective_keys": "tokens"}[statistic]
    for number, background, label in cells:
        layer, head = divmod(number, HEADS)
        r, g, b, a = expected[layer, head]
        assert background == (f"rgb({r}, {g}, {b})" if a else "rgba(0, 0, 0, 0)")
        assert label == f"{LAYERS[layer]}.{head}: {three_digits(means[layer, head])} {unit}"
    lowest, highest = (three_digits(f(means)) for f in (np.nanmin, np.nanmax))
    ticks = report.locator(".legend .ticks span").all_text_contents()
    assert (ticks[0], ticks[2]) == (lowest, highest)
    said = report.locator(".legend .unit").text_content() or ""
    assert said.startswith(unit)
    assert ("logarithmic" in said) == (statistic == "effective_keys")


def test_a_head_under_the_pointer_is_marked_in_every_map_and_told_in_numbers(report: Page) -> None:
    layer, head = 11, 2
    point_at(report, "induction_mass", layer, head)
    at = LAYERS.index(layer)
    marks = report.locator(".map").evaluate_all(
        """maps => maps.map(m => {
            const c = m.querySelector('canvas').getBoundingClientRect(), i = m.querySelector('.mark.hover').getBoundingClientRect();
            return [(i.left - c.left) / c.width, (i.top - c.top) / c.height, i.width / c.width, i.height / c.height];
        })"""
    )
    expected = [at / len(LAYERS), head / HEADS, 1 / len(LAYERS), 1 / HEADS]
    np.testing.assert_allclose(marks, [expected] * len(STATISTICS), atol=0.005)
    assert report.locator(".map .value").all_text_contents() == [three_digits(values(s)[at, head]) for s in STATISTICS]
    assert report.locator(".grid .cell.hover").get_attribute("data-head") == str(at * HEADS + head)
    assert report.locator(".who").text_content() == "Layer 11, head 2"
    for statistic in STATISTICS:
        mean = values(statistic)[at, head]
        told = panel_row(report, statistic)
        assert told[:2] == [three_digits(mean), three_digits(np.nanmean(values(statistic)[at]))]
        low, high = (f"{float(f'{x:.2g}'):g}" if x < 999.5 else f"{x:,.0f}" for x in (mean / 4, mean * 1.5))
        assert told[3:] == [f"{low} – {high}", f"{ROWS:,}"]
    report.mouse.move(2, 2)
    assert report.locator(".who").text_content() == "All 35 heads"
    assert report.locator(".mark.hover").first.is_hidden()


def test_a_layer_with_an_undefined_head_takes_the_mean_of_the_others(report: Page) -> None:
    point_at(report, "entropy", 7, 4)
    at = LAYERS.index(7)
    assert np.isnan(values("entropy")[at, 4])
    assert panel_row(report, "entropy")[:2] == ["–", three_digits(values("entropy")[at, :4].mean())]


def test_a_click_locks_a_hover_cannot_override_and_escape_clears(report: Page) -> None:
    point_at(report, "entropy", 3, 1)
    report.mouse.down()
    report.mouse.up()
    assert report.locator(".tag").is_visible()
    point_at(report, "first_token_mass", 13, 4)
    assert report.locator(".who").text_content() == "Layer 3, head 1"
    assert report.locator(".mark.lock").evaluate_all("marks => marks.every(m => m.offsetWidth > 0)")
    assert report.locator(".grid .cell.lock").get_attribute("aria-selected") == "true"
    assert f"13.4, {three_digits(values(FIRST)[LAYERS.index(13), 4])}" in (
        report.locator(".status").text_content() or ""
    )
    report.keyboard.press("Escape")
    assert report.locator(".tag").is_hidden()
    assert report.locator(".grid .cell[aria-selected=true]").count() == 0
    point_at(report, "entropy", 3, 1)
    for _ in range(2):
        report.mouse.down()
        report.mouse.up()
    assert report.locator(".tag").is_hidden(), "a second click on the locked head lets go of it"


def test_the_large_map_is_driven_by_keys_alone(report: Page) -> None:
    grid = report.get_by_role("grid")
    assert grid.locator("[tabindex='0']").count() == 1
    grid.locator("[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        report.keyboard.press(key)
    assert report.evaluate("document.activeElement.dataset.head") == str(1 * HEADS + 1)
    assert report.locator(".who").text_content() == "Layer 3, head 1"
    report.keyboard.press("Home")
    report.keyboard.press("ArrowLeft")
    assert report.locator(".who").text_content() == "Layer 2, head 1", "the edge holds"
    report.keyboard.press("Enter")
    report.keyboard.press("End")
    assert report.locator(".who").text_content() == "Layer 2, head 1"
    assert report.locator(".tag").is_visible()
    report.keyboard.press("Escape")
    report.keyboard.press("PageDown")
    assert grid.get_attribute("aria-label") == "effective keys by head (rows) and layer (columns)"
    report.keyboard.press("PageUp")
    report.keyboard.press("PageUp")
    assert grid.get_attribute("aria-label") == "sink rate at 0.3 by head (rows) and layer (columns)"
    assert grid.locator("[tabindex='0']").count() == 1
    snapshot = grid.aria_snapshot()
    assert 'gridcell "2.0: ' in snapshot


def test_a_title_enlarges_its_map_and_the_definition_is_there_on_demand(report: Page) -> None:
    report.locator(small_map(report, "induction_mass")).get_by_role("button").click()
    assert report.get_by_label("statistic", exact=True).input_value() == str(STATISTICS.index("induction_mass"))
    meaning = report.locator(".meaning")
    assert meaning.is_hidden()
    report.get_by_role("button", name="definition").click()
    said = meaning.inner_text()
    for words in (
        "sum of p_ij over j <= i",
        "rows whose token did not occur before",
        "Olsson et al. 2022",
        "masked add",
    ):
        assert words in said


def test_the_table_ranks_and_sorts(report: Page) -> None:
    def heads() -> list[str]:
        return report.locator(".ranking tbody th").all_text_contents()

    def expected(statistic: str, sign: int) -> list[str]:
        flat = values(statistic).reshape(-1)
        order = [i for i in np.argsort(sign * flat, kind="stable") if not np.isnan(flat[i])]
        return [f"{LAYERS[i // HEADS]}.{i % HEADS}" for i in order]

    assert heads() == expected(FIRST, -1)[:12]
    report.get_by_role("button", name="show all 34").click()
    assert heads() == expected(FIRST, -1)
    header = report.locator(".ranking th[data-key=mean]")
    assert header.get_attribute("aria-sort") == "descending"
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert heads() == expected(FIRST, 1)
    report.locator(".ranking th[data-key=head] button").click()
    assert heads()[:7] == ["2.0", "2.1", "2.2", "2.3", "2.4", "3.0", "3.1"]
    report.get_by_label("statistic", exact=True).select_option(label="effective keys")
    report.locator(".ranking th[data-key=q95] button").click()
    assert heads() == expected("effective_keys", -1)
    row = report.locator(".ranking tbody tr").first.locator("td").all_text_contents()
    top = np.nanmax(values("effective_keys"))
    assert row == [three_digits(x) for x in (top, top / 4)] + [""] + [
        three_digits(x) for x in (top / 4, top * 0.9, top * 1.5)
    ] + ["1,009"]
    report.locator(".ranking tbody button").first.click()
    assert report.locator(".who").text_content() != "All 35 heads"
    assert report.locator(".tag").is_visible()


def test_weights_are_read_off_the_maps(report: Page) -> None:
    exact = report.locator(".picture.exact")
    canvas = exact.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    cell = box["width"] / 7
    report.mouse.move(box["x"] + 1.5 * cell, box["y"] + 6.5 * cell)
    assert exact.locator(".readout").text_content() == "·mat (46) → ·cat (31): 0.64"
    assert exact.locator(".tokens .on").all_text_contents() == ["·cat", "·mat"]
    report.mouse.move(box["x"] + 5.5 * cell, box["y"] + 2.5 * cell)
    assert exact.locator(".readout").text_content() == "↵ (42) → ·the (35): hidden"
    canvas.focus()
    for _ in range(3):
        report.keyboard.press("ArrowDown")
    assert exact.locator(".readout").text_content() == "·the (45) → ·the (35): 0.01"
    assert "Exact: each cell is one weight. Queries 40 to 46 (rows), keys 30 to 36" in (
        exact.locator("figcaption").text_content() or ""
    )


def test_a_pooled_map_says_so_and_which_cells_a_pixel_covers(report: Page) -> None:
    report.get_by_role("button", name="peak (max)").click()
    pooled = report.locator(".picture.pooled:visible")
    assert "the max of exact weights, about 4.39 × 4.39 cells" in (pooled.locator("figcaption").text_content() or "")
    box = pooled.locator("canvas").bounding_box()
    assert box is not None
    pixel = box["width"] / 23
    report.mouse.move(box["x"] + 3.5 * pixel, box["y"] + 22.5 * pixel)
    weight = thumbnails()[1].weights[22, 3]
    first, stop = 3 * 101 // 23, 4 * 101 // 23
    expected = f"queries {22 * 101 // 23}–100 → keys {first}–{stop - 1}, max: {three_digits(float(weight))}"
    assert pooled.locator(".readout").text_content() == expected


def test_one_pictured_head_is_open_at_a_time(page: Page, tmp_path: Path) -> None:
    from interp.widgets.report import report_page

    sinks = [dataclasses.replace(t, layer=13, head=0, statistic="first_token_mass") for t in thumbnails()]
    path = tmp_path / "report.html"
    path.write_text(report_page(frame(), manifest(), [*sinks, *thumbnails()]), encoding="utf-8")
    page.goto(path.as_uri())
    tabs = page.get_by_role("tab")
    assert [text.strip() for text in tabs.locator("span").all_text_contents()] == ["13.0", "5.1"]
    heading = page.locator(".card:visible h3")
    assert heading.inner_text() == "Layer 5, head 1highest induction mass", "the most telling picture is open first"
    tabs.first.click()
    assert heading.inner_text() == "Layer 13, head 0highest first token mass"
    page.keyboard.press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    assert page.locator(".card:visible").count() == 1
    heading.get_by_role("button").click()
    assert page.locator(".who").text_content() == "Layer 5, head 1"


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_moves_when_a_head_is_shown_or_locked(page: Page, tmp_path: Path, width: int) -> None:
    from interp.widgets.report import report_page

    said = manifest()
    said["statistics"]["entropy"]["title"] = "a statistic of a longer name"
    path = tmp_path / "report.html"
    path.write_text(report_page(frame(), said, thumbnails()), encoding="utf-8")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(path.as_uri())
    where = """() => [...document.querySelectorAll('.columns > *, .map, .map canvas, .ranking tbody tr, .inspector tbody tr')]
        .map(e => { const b = e.getBoundingClientRect(); return [b.left, b.top + scrollY, b.width, b.height]; })"""
    row = page.locator(".ranking tbody tr").nth(4)
    row.scroll_into_view_if_needed()
    page.mouse.move(1, 1)
    before = page.evaluate(where)
    assert len(before) > 20
    row.hover()
    assert page.locator(".who").text_content() != "All 35 heads"
    assert page.evaluate(where) == before
    row.click()
    assert page.locator(".tag").is_visible()
    assert page.evaluate(where) == before


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_nothing_is_wider_than_the_page_and_nothing_too_small_to_read(report: Page, width: int) -> None:
    report.set_viewport_size({"width": width, "height": 900})
    assert report.evaluate("document.documentElement.scrollWidth") <= width
    sizes = report.evaluate(
        """() => [...document.querySelectorAll('#report *')]
            .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
            .map(e => parseFloat(getComputedStyle(e).fontSize))"""
    )
    assert len(sizes) > 100
    assert min(sizes) >= 10


def test_light_and_dark_follow_the_reader(report: Page) -> None:
    def seen(theme: str) -> tuple[float, float, bytes]:
        report.emulate_media(color_scheme=theme)
        style = "getComputedStyle(document.body)"
        paper, ink = (report.evaluate(f"{style}.{p}.match(/\\d+/g).map(Number)") for p in ("backgroundColor", "color"))
        return float(np.mean(paper)), float(np.mean(ink)), report.screenshot()

    light, dark = seen("light"), seen("dark")
    assert light[0] > 230 > 60 > light[1]
    assert dark[0] < 40 < 200 < dark[1]
    assert light[2] != dark[2]
    np.testing.assert_array_equal(expected_colours(FIRST)[0, 0, :3], _first_pixel(report))


def _first_pixel(page: Page) -> list[int]:
    """The colour of the first head in the dark theme: maps keep their colours."""
    canvas = page.locator(f"{small_map(page, FIRST)} canvas")
    return canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, 1, 1).data].slice(0, 3)")


def test_the_table_of_the_report_is_the_frame() -> None:
    # The oracles above read `values`; the page is made of `frame`. They must be the same numbers.
    table = frame().set_index(["statistic", "layer", "head"])["value"]
    for statistic in STATISTICS:
        assert table[statistic, 11, 2] == values(statistic)[LAYERS.index(11), 2]
