"""Views in a real JupyterLab: drawn, clicked, heard by Python, answered while a cell runs, polite after a restart, dark, nothing from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.medium]
SUPPORT = Path(__file__).parents[2] / "widgets" / "support"
CELLS = (
    f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
    "from view_cases import frame\nfrom map_cases import random_map\n"
    "from interp.widgets.views import AttentionMapView, HeadGrid, Selection\nbus = Selection()",
    "grid = HeadGrid(frame(), link=bus)\ngrid",
    "print(bus.layer, bus.head)",
    "amap, dense = random_map(521, 521)\nshown = AttentionMapView(amap)\nshown",
    "import time\nend = time.time() + 20\nwhile time.time() < end: sum(range(1000))\nprint(time.time())",
    "print(shown.selection['q'], shown.selection['k'])",
)


def test_views_in_jupyterlab(lab: Any) -> None:
    page = lab.page
    lab.open(CELLS)
    lab.run(0)
    lab.run(1)
    page.wait_for_selector('.iv[data-state="ready"] .iv-grid')
    page.locator('.iv-cell[data-head="8"]').click()
    page.wait_for_selector('.iv-cell[data-head="8"].iv-lock')
    lab.hears(2, "3 2")
    lab.run(3)
    page.wait_for_selector('.iv[aria-label="attention map"][data-state="ready"]')
    page.locator(".iv-map-ground").focus()
    page.keyboard.press("m")  # a letter that JupyterLab would take for a command
    assert page.get_by_role("button", name="peak").get_attribute("aria-pressed") == "true"

    lab.run(4, wait=False)
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'"
    )
    page.get_by_label("query to jump to").fill("300")
    page.get_by_label("key to jump to").fill("200")
    page.get_by_role("button", name="jump").click()
    page.wait_for_function(
        "() => document.querySelectorAll('.iv-readout')[1].textContent.includes('(200): weight')", timeout=19000
    )
    answered = page.evaluate("() => Date.now() / 1000")
    lab.run(5)
    # Not by the kernel's status: it reads idle after each message that a subshell has answered.
    assert answered < float(lab.printed(4)), "the exact weight came while the cell ran"
    assert lab.printed(5).strip() == "300 200"

    saved = lab.save()
    bundles = [o["data"] for o in saved["cells"][1]["outputs"] if "data" in o]
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= bundles[0].keys()

    lab.restart()
    page.locator(".iv-map-ground").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('.iv[data-kernel="gone"]', timeout=30000)
    assert "run the cell again" in page.locator('.iv[data-kernel="gone"] .iv-notice').first.inner_text()
    assert page.locator(".iv-map-cells").is_visible(), "what was drawn stays"


def test_views_take_the_dark_theme(lab: Any) -> None:
    lab.open(CELLS[:2], theme="JupyterLab Dark")
    lab.run(0)
    lab.run(1)
    lab.page.wait_for_selector('.iv[data-state="ready"] .iv-grid')
    ink = lab.page.locator(".iv-title").evaluate("node => getComputedStyle(node).color")
    lightness = (
        [int(x) for x in ink.removeprefix("rgb(").removesuffix(")").split(",")[:3]] if ink.startswith("rgb(") else [255]
    )
    assert min(lightness) > 150, f"text on a dark page must be light, got {ink}"
