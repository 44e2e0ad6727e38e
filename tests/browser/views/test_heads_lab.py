"""NeedleGrid, SuccessorTable and PatternAtlas in a real JupyterLab: drawn from results, clicked, heard by Python on one bus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.medium]
SUPPORT = Path(__file__).parents[2] / "widgets" / "support"
CELLS = (
    f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
    "from heads_cases import embedding, retrieval, successor\nfrom interp.widgets.views import Selection\nbus = Selection()",
    "needles = retrieval().view(link=bus)\nneedles",
    "successor().view(link=bus)",
    "embedding().view(link=bus)",
    "print(needles.cell, bus.layer, bus.head)",
)


def test_views_of_heads_in_jupyterlab(lab: Any) -> None:
    page = lab.page
    lab.open(CELLS)
    for cell in range(4):
        lab.run(cell)
    page.wait_for_selector('.iv[aria-label="atlas of heads"][data-state="ready"]')
    page.locator('.iv-tile[data-head="12"]').click()
    page.wait_for_selector('.iv-succ tr[data-row="12"].iv-lock')
    page.wait_for_function(
        "() => document.querySelector('.iv-needles').getAttribute('aria-label').includes('head 1.5,')"
    )
    page.locator('.iv-trial[data-cell="4"]').click()
    page.wait_for_selector('.iv-trial[data-cell="4"].iv-lock')
    lab.hears(4, "(256, 0.25) 1 5")
