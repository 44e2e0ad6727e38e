"""The walk of docs/views.md on the real model: the tour opened in JupyterLab, an induction head found, its map read, the head ablated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.medium]
TOUR = Path(__file__).parents[3] / "notebooks" / "00_tour.ipynb"
ASKED = """
import torch
layer, head = map(int, "{head}".split("."))
values = run.frame.query("statistic == 'induction_mass'").set_index(["layer", "head"])["value"]
weights, ids = run.attention[layer, head][:, :].double(), run.ids.tolist()
# The largest weight on what followed an earlier copy of the row's token.
pairs = [(float(weights[q, j + 1]), q, j + 1) for q in range(len(ids)) for j in range(q - 1) if ids[j] == ids[q]]
print(*values.idxmax(), *max(pairs)[1:], max(pairs)[0])
"""
EFFECT = """
effect = view.source.bench.outcome.effect
row = effect.table.set_index("metric").loc["cross-entropy"]
print(effect.manifest["edits"], row["edited"] - row["base"], row["score"], row["control"], row["spread"])
"""


def test_a_newcomer_finds_and_ablates_an_induction_head(lab: Any) -> None:
    page = lab.page
    first, explore = [c.source for c in nbformat.read(TOUR, as_version=4).cells if c.cell_type == "code"][:2]
    assert explore.startswith("interp.explore(run, model=model")
    lab.open([first, f"view = {explore}\nview", "", ""])
    lab.run(0)
    lab.run(1)
    page.wait_for_selector('.iv-explore[data-state="ready"]')

    # 2. The brightest head by induction mass.
    grid = page.locator(".iv-explore-grid")
    grid.get_by_label("statistic", exact=True).select_option(label="induction mass")
    grid.locator("[role=grid][aria-label^='induction mass']").wait_for()
    grid.get_by_role("button", name="by value").click()
    grid.locator(".iv-cell").first.click()
    page.wait_for_function("() => document.querySelector('.iv-explore').dataset.head")
    page.wait_for_selector('.iv-explore-map .iv[data-state="ready"]')
    locked = page.locator(".iv-explore-page .iv-title").inner_text()
    layer, head = (int(word) for word in locked.replace(",", "").split() if word.isdigit())

    # 3. A bright cell of its map, where a row looks at what followed the last copy of its token.
    lab.paste(2, ASKED.format(head=f"{layer}.{head}"))
    lab.run(2)
    best_layer, best_head, q, k, weight = lab.printed(2).split()
    assert (int(best_layer), int(best_head)) == (layer, head), "the brightest cell is the head with the most induction"
    assert float(weight) > 0.1
    board = page.locator(".iv-explore-map")
    board.get_by_label("query to jump to").fill(str(int(q) - 1))
    board.get_by_label("key to jump to").fill(str(int(k) - 1))
    board.get_by_role("button", name="jump").click()
    page.wait_for_selector('.iv-explore-map .iv[data-state="ready"][data-level="0"]')
    seen = json.loads(board.locator(".iv").get_attribute("data-view") or "")
    x, y = ((int(at) + 0.5 - seen[axis]) * seen["s"] for at, axis in ((k, "x"), (q, "y")))
    board.locator(".iv-map-ground").click(position={"x": x, "y": y})
    page.wait_for_function(
        "at => document.querySelector('.iv-explore-map .iv-readout').textContent.includes(at)",
        arg=f"({k}): weight {float(weight):.4g}"[:-1],
    )
    tokens = page.locator(".iv-explore-tokens")
    tokens.locator(f'.iv-locked[data-token="{q}"]').wait_for()
    tokens.locator(f'[data-strong="{k}"]').wait_for()
    tokens.get_by_label("find").fill(f"#{k}")  # the text scrolls there
    page.keyboard.press("Enter")
    tokens.locator(f'.iv-pair[data-token="{k}"]').wait_for()

    # 4. The head is taken out, beside random heads of its layer.
    bench = page.locator(".iv-explore-bench")
    bench.get_by_label("edit", exact=True).select_option(label="ablate")
    bench.get_by_role("button", name="run").click()
    page.wait_for_selector('.iv-explore-bench .iv[data-job="done"]', timeout=180_000)
    page.get_by_role("table", name="metrics before and after").wait_for()
    bench.get_by_text("Python", exact=True).click()
    code = bench.locator(".iv-copy-text").last.inner_text()
    assert f"({layer}, {head})" in code and "AblateHeads" in code
    lab.paste(3, EFFECT)
    lab.run(3)
    said, *numbers = lab.printed(3).rsplit(maxsplit=4)
    change, score, control, spread = map(float, numbers)
    assert f"{layer}.{head}" in said
    assert score == pytest.approx(change, abs=1e-6) and abs(score) > 0
    assert spread > 0 and control != score, "random heads of the layer stand beside it"
