"""EntropyView in a browser: colours, curves, scrubber, the line of collapse, profiles, a training that goes on; expected values worked out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sink_cases import HEADS, LAYERS, entropy_arrays, entropy_report, spread_out

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

STEPS = (0, 7, 14, 21, 35)
NASTY = "<img src=x onerror=alert(1)>"


def report(**options: Any) -> Any:
    from interp.widgets.views.entropy_view import EntropyView

    return EntropyView(entropy_report(), **options)


def values(steps: int = len(STEPS)) -> np.ndarray:
    return spread_out(21, len(STEPS), LAYERS, HEADS)[:steps]


def training(steps: int = len(STEPS)) -> Any:
    """A source of two trainings with losses, an alarm and a line of collapse."""
    from interp.widgets.views.entropy_source import EntropyQuantity, EntropySource, EntropyTrack

    at = np.array(STEPS[:steps])
    track = EntropyTrack(
        steps=at,
        values={"entropy_q50": values(steps), "rho_q99": 100 * values(steps)},
        loss=(np.arange(at[-1] + 1.0), np.linspace(3, 1, at[-1] + 1)),
        alarms=((14, f"step 14: {NASTY}"),),
    )
    other = EntropyTrack(steps=at, values={"rho_q99": 7 * values(steps)})
    return EntropySource(
        layers=(2, 3, 5),
        heads=HEADS,
        quantities=(
            EntropyQuantity(name="entropy_q50", title="median", span=(0.0, 1.0), limit=(0.05, "collapsed below 0.05")),
            EntropyQuantity(name="rho_q99", title="logit norm"),
        ),
        tracks={"plain": lambda: track, NASTY: lambda: other},
        profiles={},
        exact="Exact.",
    )


def of_training(steps: int = len(STEPS)) -> Any:
    from interp.widgets.views.entropy_view import EntropyView

    return EntropyView(training(steps), title="a training")


def expected_colours(values: np.ndarray) -> list[str]:
    from interp.widgets.colours import sequential

    rgb = sequential()[np.floor(255 * values.astype(np.float64).ravel() + 0.5).astype(int)]
    return [f"rgb({r}, {g}, {b})" for r, g, b in rgb]


def of_logarithm(x: np.ndarray) -> np.ndarray:
    """Places on a logarithmic range: that of a quantity without ends of its own whose largest value is over 20 times its smallest."""
    y = np.log(x.astype(np.float64))
    return (y - y.min()) / (y.max() - y.min())


def colours(page: Page) -> list[str]:
    return page.evaluate(
        """n => [...Array(n).keys()].map(i => getComputedStyle(document.querySelector(`.iv-cell[data-head="${i}"]`)).backgroundColor)""",
        LAYERS * HEADS,
    )


def heights(page: Page, title: str, curve: str) -> np.ndarray:
    """Heights of a drawn curve's points, 0 (bottom) to 1 (top) of the plotting area."""
    path = (
        page.locator(".iv-chart", has=page.locator("h4", has_text=title))
        .locator(f'path.iv-curve[data-curve="{curve}"]')
        .get_attribute("d")
    )
    ys = [float(part.split()[1]) for part in path.replace("L", "M").split("M") if part]
    return (156 - np.array(ys)) / 146


def seek(page: Page, index: int) -> None:
    page.get_by_label("training step").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", index
    )


def test_a_report_is_painted_and_drawn(mount: Callable[..., Any]) -> None:
    a = entropy_arrays()
    shown = mount(report())
    page = shown.page
    assert colours(page) == expected_colours(a["score"])
    np.testing.assert_allclose(heights(page, "by layer", "random tokens"), a["control"].mean(1), atol=0.01)
    np.testing.assert_allclose(
        heights(page, "by position, mean of all heads", "whole row"), a["by_position"].mean((0, 1)), atol=0.01
    )
    page.locator(f'.iv-cell[data-head="{HEADS + 4}"]').click()
    page.wait_for_function("() => document.body.textContent.includes('by length, layer 1, head 4')")
    shown.settled()
    np.testing.assert_allclose(
        heights(page, "by position, layer 1, head 4", "without first token"), a["rest_by_position"][1, 4], atol=0.01
    )
    assert shown.view.selected == (1, 4)
    control = float(f"{a['control'][1, 4]:.3g}")
    assert f"random tokens {control:g}" in page.locator(".iv-readout").inner_text()
    assert page.get_by_label("training step").is_hidden()


def test_the_scrubber_moves_through_the_steps_and_asks_nothing(mount: Callable[..., Any]) -> None:
    shown = mount(of_training())
    page = shown.page
    assert colours(page) == expected_colours(values()[-1]), "it opens on the last step"
    asked = len(shown.asked)
    for index in (0, 2):
        seek(page, index)
        assert colours(page) == expected_colours(values()[index])
        assert f"step {STEPS[index]}" in page.locator("h4").first.inner_text()
    assert len(shown.asked) == asked
    np.testing.assert_allclose(heights(page, "over steps", "layer 5"), values()[:, 2].mean(1), atol=0.01)
    line = (
        page.locator(".iv-chart", has=page.locator("h4", has_text="over steps"))
        .locator(".iv-limit")
        .get_attribute("y1")
    )
    assert (156 - float(line)) / 146 == pytest.approx(0.05, abs=0.01)
    assert page.locator(".iv-event title").first.text_content() == f"step 14: {NASTY}"
    page.locator('.iv-cell[data-head="6"]').hover()
    page.wait_for_function("() => document.querySelector('[data-curve=\"layer 3, head 1\"]')")
    np.testing.assert_allclose(heights(page, "over steps", "layer 3, head 1"), values()[:, 1, 1], atol=0.01)


def test_keys_alone_move_the_cursor_and_take_a_step(mount: Callable[..., Any]) -> None:
    shown = mount(of_training())
    page = shown.page
    chart = page.locator(".iv-chart", has=page.locator("h4", has_text="over steps")).locator("svg")
    chart.focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    said = page.locator(".iv-readout").inner_text()
    assert said.startswith("step 14; layer 2 ") and said.endswith(f"step 14: {NASTY}")
    page.keyboard.press("Enter")
    assert colours(page) == expected_colours(values()[2])
    assert page.locator(".iv img").count() == 0
    snapshot = page.locator(".iv").aria_snapshot()
    assert 'grid "median, by head (rows) and layer (columns)"' in snapshot and 'slider "training step"' in snapshot


def test_another_training_without_the_quantity_shows_what_it_has(mount: Callable[..., Any]) -> None:
    shown = mount(of_training())
    page = shown.page
    page.get_by_label("training", exact=True).select_option(NASTY)
    page.wait_for_function("() => document.querySelector('h4').textContent.startsWith('logit norm')")
    shown.settled()
    assert colours(page) == expected_colours(of_logarithm(7 * values())[-1])
    assert page.locator("option[value=entropy_q50]").is_disabled()


def test_a_training_that_goes_on_is_followed_unless_another_step_is_on_show(mount: Callable[..., Any]) -> None:
    from interp.widgets.views.entropy_view import _payload

    shown = mount(of_training(3))
    page = shown.page

    def grow(steps: int) -> None:
        source = training(steps)
        shown.view.show(source, title="a training", payload=_payload(source, "entropy_q50"))
        shown.push("payload", "rev")
        page.wait_for_function(f"() => document.querySelector('[aria-label=\"training step\"]').max === '{steps - 1}'")
        shown.settled()

    grow(4)
    assert colours(page) == expected_colours(values()[3]), "the newest step was on show, so it follows"
    seek(page, 1)
    grow(5)
    assert colours(page) == expected_colours(values()[1])


def test_a_saved_page_does_the_same(page: Page, tmp_path: Path) -> None:
    page.goto(of_training().html(tmp_path / "entropy.html").as_uri())
    page.wait_for_selector('.iv[data-state="ready"]')
    seek(page, 3)
    assert colours(page) == expected_colours(values()[3])
    page.get_by_label("quantity").select_option("rho_q99")
    page.wait_for_function("() => document.querySelector('h4').textContent.startsWith('logit norm')")
    page.wait_for_selector('.iv[data-state="ready"]')
    assert colours(page) == expected_colours(of_logarithm(100 * values())[3])
    assert page.locator("img").count() == 0
