"""CompareView, SAEFeature, explore and the intervention panel in a real JupyterLab: from a run to an ablated induction head, by clicks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.medium]
SUPPORT = Path(__file__).parents[2] / "widgets" / "support"
CELLS = (
    "import interp\nfrom interp.models.planted import planted\nmodel, places = planted()\n"
    "run = model.run(' '.join([f'w{1 + (i * 7) % 96}' for i in range(40)] * 2))\nview = interp.explore(run, model=model, statistic='entropy')\nview",
    "print(places['retrieval'], view.picked, view.source.bench.outcome is not None)",
    f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\nfrom compare_cases import patching\npatching().view()",
    "from feature_cases import index, record\nfrom interp.widgets.views import SAEFeature\nfrom interp.widgets.views.sae_source import FeatureTable\n"
    "features = SAEFeature(FeatureTable(index=index(), record=record))\nfeatures",
    "print(features.feature)",
)


def test_an_induction_head_is_found_and_ablated_by_clicks(lab: Any) -> None:
    page = lab.page
    lab.open(CELLS)
    lab.run(0)
    page.wait_for_selector('.iv-explore[data-state="ready"]')
    edges = (
        "() => ['.iv-map-mini', '.iv-explore-map'].map(x => document.querySelector(x).getBoundingClientRect().right)"
    )
    inner, outer = page.evaluate(edges)
    assert inner <= outer, "the map has found its room, though JupyterLab puts views into the page after they are made"
    picker = page.locator(".iv-explore-grid").get_by_label("statistic", exact=True)
    picker.select_option(label="induction mass")
    page.wait_for_function(
        "() => document.querySelector('.iv-explore-grid [role=grid]').getAttribute('aria-label').startsWith('induction mass')"
    )
    page.locator(".iv-explore-grid").get_by_role("button", name="by value").click()
    best = page.locator(".iv-explore-grid .iv-cell")
    for n in (0, 1):
        best.nth(n).click(modifiers=["Shift"])
    best.nth(0).click()
    page.wait_for_selector('.iv-explore-map .iv[data-state="ready"]')
    page.locator(".iv-explore-bench").get_by_role("button", name="run").click()
    page.wait_for_selector('.iv-explore-bench .iv[data-job="done"]', timeout=90_000)
    page.get_by_role("table", name="metrics before and after").wait_for()
    lab.run(1)
    said = lab.printed(1)
    assert said.strip().endswith("True")
    assert said.count("(1, ") >= 3, "the planted head is among the two that were picked"

    lab.run(2)
    page.wait_for_selector('.iv[aria-label="comparison"][data-state="ready"] [role=grid]')
    lab.run(3)
    page.wait_for_selector('.iv[aria-label="features of an autoencoder"][data-state="ready"]')
    page.locator("tr[data-feature='11']").click()
    page.wait_for_function("() => document.querySelector('.iv-sae-page .iv-title').textContent === 'feature 11'")
    lab.hears(4, "11")
