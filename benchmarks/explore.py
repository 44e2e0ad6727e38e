"""From the end of a long run to a picture of it, and from head to head, in a real JupyterLab.

    python benchmarks/explore.py [--tokens 8192] [--clicks 9] [--out data/results/explore]

One line: the run of all layers of the default model with its queries and keys (`run_s`), then, from starting the cell with
`interp.explore(run, model=model)`: grid of heads on show, map and text of its first head on show, page and panel ready (`settled_s`).
Each click takes another head, of another layer, from the moment it is clicked until its whole map, its text and its page are on show.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recorded
from widgets import LIMIT, SUPPORT

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUN = """
import time, interp
from interp.tasks.corpus import corpus
model = interp.load({model!r})
ids = model.encode(" ".join(d.text for d in corpus(part="topics")))[:{tokens}]
began = time.perf_counter()
run = model.run(ids, logits="none")
print(time.perf_counter() - began, len(run.layers), run.heads)
"""
SHOW = "interp.explore(run, model=model)"
STAGES = {
    "grid_s": "() => document.querySelector('.iv-explore-grid .iv[data-state=\"ready\"]')",
    "map_s": "() => document.querySelector('.iv-explore-map .iv[data-state=\"ready\"]')",
    "tokens_s": "() => document.querySelector('.iv-explore-tokens .iv[data-state=\"ready\"]')",
    "settled_s": "() => document.querySelector('.iv-explore[data-state=\"ready\"]')",
}
SHOWN = """([layer, head]) => {
    const box = document.querySelector('.iv-explore'), part = name => document.querySelector(`.iv-explore-${name} .iv`);
    const ready = [box, part('map'), part('tokens')].every(one => one.dataset.state === 'ready');
    return ready && box.dataset.head === `${layer}.${head}`
        && part('map').querySelector('.iv-title').textContent === `Layer ${layer}, head ${head}`
        && part('tokens').querySelector('.iv-readout').textContent.startsWith(`layer ${layer}, head ${head}:`);
}"""


def measure(page: Page, folder: Path, model: str, tokens: int, clicks: int) -> dict[str, Any]:
    """One run, in a server of its own."""
    from lab import jupyterlab

    (folder / "root").mkdir(parents=True)
    row: dict[str, Any] = {"model": model, "tokens": tokens}
    with jupyterlab(page, folder / "root", folder / "home") as lab:
        lab.open([RUN.format(model=model, tokens=tokens), SHOW])
        page.set_default_timeout(LIMIT)
        lab.run(0)
        seconds, layers, heads = lab.printed(0).split()[-3:]
        row["run_s"] = float(seconds)
        begin = time.perf_counter()
        lab.run(1, wait=False)
        for stage, seen in STAGES.items():
            page.wait_for_function(seen)
            row[stage] = time.perf_counter() - begin
        lab.idle()
        every = int(layers) * int(heads)
        taken = [every * (2 * n + 1) // (2 * clicks) for n in range(clicks)]
        times = []
        for cell in taken:
            begin = time.perf_counter()
            page.locator(f'.iv-explore-grid .iv-cell[data-head="{cell}"]').click()
            page.wait_for_function(SHOWN, arg=list(divmod(cell, int(heads))))
            times.append(time.perf_counter() - begin)
        row |= {"clicks": clicks, "click_p50_s": statistics.median(times), "click_max_s": max(times)}
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--clicks", type=int, default=9)
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    options = parser.parse_args()
    sys.path[:0] = [str(path) for path in SUPPORT]
    from playwright.sync_api import sync_playwright

    since = recorded.started()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1400, "height": 1800})
        row = measure(page, Path(folder), options.model, options.tokens, options.clicks)
        chromium.close()
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if options.out:
        recorded.write(options.out, [row], since)


if __name__ == "__main__":
    main()
