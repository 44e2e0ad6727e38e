"""Views in a real marimo: drawn by its own host, linked through Python, heard by cells, dark with it, nothing from outside."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.medium]
SUPPORT = Path(__file__).parents[2] / "widgets" / "support"
START = f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\nimport marimo as mo"
DARK = '# /// script\n# [tool.marimo.display]\n# theme = "dark"\n# ///\n'
WORDS = 101
LINKED = (
    START,
    "from token_cases import planted_capture, words\nfrom view_cases import frame\n"
    "from interp.widgets.views import AttentionMapView, HeadGrid, Selection, TokenView\n"
    f"bus, run = Selection(), planted_capture(words({WORDS}))",
    "grid = mo.ui.anywidget(HeadGrid(frame(), link=bus))\ngrid",
    "AttentionMapView(run.attention[3, 0], maps=run.attention, link=bus)",
    "TokenView(run, link=bus)",
    'mo.md(f"The grid says {grid.selected}, hovered: {tuple(grid.hover.values())[1]}.")',
    'place, set_place = mo.state(bus.locked)\nbus.observe(lambda _: set_place(bus.locked), ["layer", "head", "q", "k"])',
    'mo.md(f"The bus says {list(place().values())}.")',
    'work = mo.ui.run_button(label="work")\nwork',
    "import time\nend = time.time() + 4 * work.value\nwhile time.time() < end: sum(range(1000))",
)
OTHERS = (
    START,
    "from compare_cases import patching\nfrom curves_cases import evaluation\nfrom feature_cases import index, record\n"
    "from heads_cases import embedding, retrieval, successor\nfrom sink_cases import entropy_report, sink_report\n"
    "from interp.widgets.views import SAEFeature, Selection\nfrom interp.widgets.views.sae_source import FeatureTable\n"
    "bus, curves = Selection(), Selection()",
    "sink_report().view(link=curves)",
    "entropy_report().view(link=curves)",
    "retrieval().view(link=bus)",
    "successor().view(link=bus)",
    "embedding().view(link=bus)",
    "patching().view()",
    "evaluation().view()",
    "SAEFeature(FeatureTable(index=index(), record=record))",
)
EXPLORE = (
    START,
    "import interp\nfrom interp.models.planted import planted\nmodel, places = planted()\n"
    "text = ' '.join([f'w{1 + (i * 7) % 96}' for i in range(40)] * 2)",
    "view = mo.ui.anywidget(interp.explore(model.run(text), model=model, statistic='entropy'))\nview",
    "mo.md(f\"Picked {view.picked}, planted: {[head in (places['induction'], places['retrieval']) for head in view.picked]}.\")",
)
NOTEBOOKS = {
    "linked.py": LINKED,
    "others.py": OTHERS,
    "explored.py": EXPLORE,
    "dark.py": (START, "from map_cases import random_map", "random_map(40, 40)[0].view()"),
}


def notebook(cells: Sequence[str]) -> str:
    """A notebook as marimo keeps it: Python with a function for each cell."""
    bodies = [f"@app.cell\ndef _():\n{textwrap.indent(cell, '    ')}\n    return\n" for cell in cells]
    return "\n\n".join(
        ["import marimo\n\napp = marimo.App()\n", *bodies, 'if __name__ == "__main__":\n    app.run()\n']
    )


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a notebook, to which the name of its file is added."""
    from marimo_app import marimo_apps

    folder = tmp_path_factory.mktemp("notebooks")
    for name, cells in NOTEBOOKS.items():
        (folder / name).write_text((DARK if name == "dark.py" else "") + notebook(cells), encoding="utf-8")
    with marimo_apps(folder, tmp_path_factory.mktemp("home")) as url:
        yield url


def view(kind: str) -> str:
    """Selector of a view that shows everything it asked for."""
    return f'.iv[aria-label="{kind}"][data-state="ready"]'


def open_app(page: Page, url: str) -> list[dict[str, Any]]:
    """Open a notebook; gives the list in which everything that its views say to Python is kept."""
    said: list[dict[str, Any]] = []

    def keep(request: Any) -> None:
        if request.method == "POST" and (request.post_data_json or {}).get("modelId"):
            said.append(request.post_data_json["message"])

    page.on("request", keep)
    page.goto(url, timeout=60_000)
    page.locator(".iv").first.wait_for(timeout=60_000)
    return said


def pixel(page: Page, q: int, k: int) -> list[int]:
    """RGBA of the middle of a map's cell."""
    shown = page.locator('.iv[aria-label="attention map"]')
    at = json.loads(shown.get_attribute("data-view") or "")
    x, y = (k + 0.5 - at["x"]) * at["s"], (q + 0.5 - at["y"]) * at["s"]
    return shown.locator(".iv-map-cells").evaluate(
        "(c, at) => [...c.getContext('2d').getImageData(...at.map((x) => Math.floor(x * devicePixelRatio)), 1, 1).data]",
        [x, y],
    )


def test_linked_views_move_together_and_cells_hear_of_it(apps: str, page: Page) -> None:
    said = open_app(page, f"{apps}linked.py")
    for kind in ("grid of heads", "attention map", "tokens of a text"):
        page.wait_for_selector(view(kind))
    page.get_by_text("The grid says None, hovered: None.").wait_for()
    heavy, light = pixel(page, 90, 7), pixel(page, 90, 30)
    assert heavy != light, "head 0 gives key 7 forty times as much as any other"
    assert pixel(page, 30, 90)[3] == 0, "a key after its query"

    page.locator('.iv-cell[data-head="7"]').click()
    page.get_by_text("Attention of layer 3, head 1").wait_for()
    page.wait_for_selector(view("attention map"))
    assert pixel(page, 90, 7) == pixel(page, 90, 30), "head 1 gives all keys alike"
    page.get_by_text("The grid says (3, 1), hovered: 1.").wait_for()
    page.get_by_label("query to jump to").fill("50")
    page.get_by_label("key to jump to").fill("7")
    page.get_by_role("button", name="jump").click()
    page.get_by_text("weight 0.0196").wait_for()  # 1 of 51
    page.get_by_text("The bus says [3, 1, 50, 7].").wait_for()
    page.get_by_text("layer 3, head 1: token 50").wait_for()
    asked = [m["content"] for m in said if m["method"] == "custom"]
    assert {"tiles", "value", "looks"} <= {m["op"] for m in asked}
    assert not any(m.get("b64") for m in asked), "binary buffers arrive"

    page.locator('.iv-cell[data-head="7"]').focus()
    page.keyboard.press("Escape")
    page.get_by_text("The bus says [None, None, 50, 7].").wait_for()
    before = len(said)
    page.keyboard.press("Escape")
    assert said[before:] == [], "what did not change is not sent again"

    page.get_by_role("button", name="work").click()
    page.locator('.iv-token[data-token="20"]').click()
    page.wait_for_selector('.iv[data-kernel="busy"]')
    page.wait_for_selector('.iv[aria-label="tokens of a text"][data-kernel="ok"][data-state="ready"]')


def test_every_other_view_draws_and_listens(apps: str, page: Page) -> None:
    open_app(page, f"{apps}others.py")
    kinds = ("attention sinks", "entropy of attention heads", "grid of needles", "table of successor heads")
    for kind in (*kinds, "atlas of heads", "comparison", "curves", "features of an autoencoder"):
        page.wait_for_selector(view(kind))
    page.locator('.iv-tile[data-head="12"]').click()
    page.wait_for_selector('.iv-succ tr[data-row="12"].iv-lock')
    page.wait_for_selector('.iv-needles[aria-label*="head 1.5,"]')
    page.locator(f'{view("entropy of attention heads")} .iv-cell[data-head="7"]').click()
    page.wait_for_selector('.iv[aria-label="attention sinks"] .iv-cell[data-head="7"].iv-lock')
    page.locator("tr[data-feature][tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.locator(".iv-sae-page .iv-title", has_text="feature 11").wait_for()


def test_a_planted_head_is_found_and_ablated_in_explore(apps: str, page: Page) -> None:
    open_app(page, f"{apps}explored.py")
    page.wait_for_selector('.iv-explore[data-state="ready"]', timeout=60_000)
    page.locator(".iv-explore-grid").get_by_label("statistic", exact=True).select_option(label="induction mass")
    page.wait_for_selector('.iv-explore-grid [role=grid][aria-label^="induction mass"]')
    page.locator(".iv-explore-grid").get_by_role("button", name="by value").click()
    best = page.locator(".iv-explore-grid .iv-cell").first
    best.click(modifiers=["Shift"])
    best.click()
    page.get_by_text(re.compile(r"Picked \[\(\d, \d\)\], planted: \[True\]")).wait_for()
    page.wait_for_selector('.iv-explore[data-head^="1."][data-state="ready"]')
    title = page.locator(".iv-explore-page > .iv-title").inner_text()
    page.wait_for_selector('.iv-explore-map .iv[data-state="ready"]')
    assert page.locator(".iv-explore-map .iv-title").inner_text() == title
    page.locator(".iv-explore-bench").get_by_role("button", name="run").click()
    page.wait_for_selector('.iv-explore-bench .iv[data-job="done"]', timeout=90_000)
    assert page.get_by_role("table", name="metrics before and after").locator("tbody tr").count() > 0


def test_views_take_the_dark_theme(apps: str, page: Page) -> None:
    open_app(page, f"{apps}dark.py")
    page.wait_for_selector(view("attention map"))
    ink = page.locator(".iv-title").evaluate("node => getComputedStyle(node).color")
    assert ink.startswith("rgb("), ink
    assert min(int(x) for x in ink[4:-1].split(",")) > 150, f"text on a dark page must be light, got {ink}"
