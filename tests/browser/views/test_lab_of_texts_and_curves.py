"""TokenView, SinkExplorer, EntropyView and CurvesView in a real JupyterLab: drawn, clicked, heard by Python, their keys kept from the app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.medium]
SUPPORT = Path(__file__).parents[2] / "widgets" / "support"
CELLS = (
    f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
    "from token_cases import planted_capture, words\nfrom sink_cases import entropy_report, sink_report\n"
    "from interp.widgets.views import Selection, TokenView\nbus = Selection()\n"
    # JupyterLab sends a change when the one before it is through, so a lock may come after the cell has begun.
    "import time\ndef wait_for(name):\n"
    "    end = time.time() + 20\n"
    "    while getattr(bus, name) is None and time.time() < end: time.sleep(0.05)",
    "tokens = TokenView(planted_capture(words(101)), link=bus)\ntokens",
    "wait_for('q'); print(bus.q, bus.k)",
    "sinks = sink_report().view(link=bus)\nsinks",
    "entropies = entropy_report().view(link=bus)\nentropies",
    "wait_for('layer'); print(bus.layer, bus.head, sinks.selected, entropies.selected)",
    "from curves_cases import models\nbus = Selection()\nseries = models().view(link=bus)\nseries",
    "wait_for('layer'); print(series.selected)",
)


def test_texts_and_curves_in_jupyterlab(lab: Any) -> None:
    page = lab.page
    lab.open(CELLS)
    lab.run(0)
    lab.run(1)
    page.wait_for_selector('.iv[aria-label="tokens of a text"][data-state="ready"]')
    page.locator('.iv-token[data-token="9"]').click()
    page.wait_for_selector('.iv-locked[data-token="9"]')
    lab.hears(2, "9 None")
    page.get_by_role("listbox", name="tokens of the text").focus()
    page.keyboard.press("d")  # twice, JupyterLab would delete the cell
    page.keyboard.press("d")
    assert page.locator('.iv[aria-label="tokens of a text"]').count() == 1

    lab.run(3)
    lab.run(4)
    page.wait_for_selector('.iv[aria-label="attention sinks"][data-state="ready"]')
    curves = page.locator('.iv[aria-label="entropy of attention heads"]')
    page.wait_for_selector('.iv[aria-label="entropy of attention heads"][data-state="ready"]')
    curves.locator('.iv-cell[data-head="7"]').click()
    page.wait_for_selector('.iv[aria-label="attention sinks"] .iv-cell[data-head="7"].iv-lock')
    lab.hears(5, "1 2 (1, 2) (1, 2)")

    lab.run(6)
    page.wait_for_selector('.iv[aria-label="curves"][data-state="ready"]')
    page.get_by_text("numbers of entropy", exact=True).click()
    page.get_by_role("table", name="entropy", exact=True).get_by_role("button", name="17.1").click()
    lab.hears(7, "(17, 1)")
