"""The attention map in a real JupyterLab: first paint, click to another head's map, tile round trips, bytes on the wire and in the notebook.

    python benchmarks/widgets.py [--tokens 256,1024,32768] [--out data/results/widgets]
    python benchmarks/widgets.py --model smollm2-135m --layer 5 --tokens 32768   # a real run; the forward pass itself is timed apart

Without --model the maps are planted (rows uniform but for four cells), so that no model is needed. One line for each length. "first paint" is
from running the cell to every tile of the overview being drawn, the sweep over the map included; "click" is from a click in a linked grid of
heads to the other head's whole overview; round trips go browser -> server -> kernel -> browser, one tile or 8 tiles a message, exact cells.
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

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = [ROOT / "tests" / "browser" / "support", ROOT / "tests" / "widgets" / "support"]
LIMIT = 1000 * 3600
"""Milliseconds that a cell may take: a real run of 32,768 tokens on a processor is a matter of many minutes."""
SHOWN = """
import sys; sys.path[:0] = {support!r}
import pandas as pd
from interp.widgets.views import AttentionMapView, HeadGrid, Selection
class Measured(AttentionMapView):
    NAME = "AttentionMap"
    @property
    def _esm(self): return super()._esm.replace("host = widgetModel(model);", "host = window.measured = widgetModel(model);")
bus = Selection()
"""
PLANTED = """
from map_cases import planted_map
maps = {{(0, head): planted_map({tokens}) for head in range(2)}}
maps[0, 1].head = 1
"""
REAL = """
import time, interp
from interp.tasks.corpus import corpus
model = interp.load({model!r})
ids = model.encode(" ".join(d.text for d in corpus(part="topics")))
began = time.perf_counter()
run = model.run((ids * (1 + {tokens} // len(ids)))[:{tokens}], layers=[{layer}], logits="none", collect=["entropy"])
print(time.perf_counter() - began)
maps = run.attention
"""
GRID = "HeadGrid(pd.DataFrame(dict(layer={layer}, head=[0, 1], score=[1.0, 2.0])), link=bus)"
MAP = "Measured(maps[{layer}, 0], maps=maps, link=bus)"
READY = """title => { const box = [...document.querySelectorAll('.iv')].find(b => b.getAttribute('aria-label') === 'attention map');
    return box && box.dataset.state === 'ready' && box.querySelector('.iv-title').textContent.includes(title); }"""
TRIPS = """async ([batch, under_way, count, across]) => {
    const times = [], sizes = [];
    let next = 0;
    const one = async () => {
        while (next < count) {
            const n = next++, cell = i => { const m = (n * batch + i) % (across * across); return [Math.floor(m / across), m % across]; };
            const t = [...Array(batch).keys()].map(i => cell(i)).map(([y, x]) => [0, Math.max(y, x), Math.min(y, x)]);
            const begin = performance.now();
            const answer = await window.measured.request({ op: 'tiles', t, mode: n % 2 ? 'peak' : 'mass', which: 'a' });
            times.push(performance.now() - begin);
            sizes.push(answer.buffers.length);
        }
    };
    const begin = performance.now();
    await Promise.all([...Array(under_way).keys()].map(one));
    return { times, tiles: sizes.reduce((a, b) => a + b, 0), seconds: (performance.now() - begin) / 1000 };
}"""


def measure(page: Page, folder: Path, tokens: int, model: str | None, layer: int) -> dict[str, Any]:
    """One length, in a server of its own."""
    from lab import jupyterlab

    (folder / "root").mkdir(parents=True)
    setup = SHOWN.format(support=[str(path) for path in SUPPORT])
    source = REAL if model else PLANTED
    setup += source.format(tokens=tokens, model=model, layer=layer)
    received = [0]
    page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda frame: received.__setitem__(0, received[0] + len(frame))),
    )
    row: dict[str, Any] = {"tokens": tokens, "model": model or "planted", "layer": layer}
    with jupyterlab(page, folder / "root", folder / "home") as lab:
        lab.open([setup, GRID.format(layer=layer), MAP.format(layer=layer)])
        page.set_default_timeout(LIMIT)
        lab.run(0)
        row["run_s"] = float(lab.printed(0).split()[-1]) if model else None
        lab.run(1)
        page.wait_for_selector('.iv[data-state="ready"] .iv-grid')
        before, begin = received[0], time.perf_counter()
        lab.run(2, wait=False)
        page.wait_for_function(READY, arg="head 0")
        row["first_paint_s"], row["first_paint_bytes"] = time.perf_counter() - begin, received[0] - before
        begin = time.perf_counter()
        page.locator('.iv-cell[data-head="1"]').click()
        page.wait_for_function(READY, arg="head 1")
        row["click_s"] = time.perf_counter() - begin
        across = max(1, tokens // 256)
        for name, batch, under_way, count in (("tile", 1, 1, 100), ("batch", 8, 1, 60), ("two_batches", 8, 2, 60)):
            done = page.evaluate(TRIPS, [batch, under_way, count, across])
            times = sorted(done["times"])
            row |= {f"{name}_p50_ms": statistics.median(times), f"{name}_p95_ms": times[int(0.95 * (len(times) - 1))]}
            row[f"{name}_per_s"] = done["tiles"] / done["seconds"]
        lab.idle()
        lab.save()
        row["notebook_bytes"] = (lab.root / "test.ipynb").stat().st_size
    return row


def main() -> None:
    """Measure each length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="256,1024,32768")
    parser.add_argument("--model", help="a real model in place of planted maps")
    parser.add_argument("--layer", type=int, default=0, help="the layer that a real run keeps")
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    options = parser.parse_args()
    sys.path[:0] = [str(path) for path in SUPPORT]
    from playwright.sync_api import sync_playwright

    since, rows = recorded.started(), []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for tokens in map(int, options.tokens.split(",")):
            page = chromium.new_page(viewport={"width": 1280, "height": 1000})
            rows.append(measure(page, Path(folder) / str(tokens), tokens, options.model, options.layer))
            page.close()
            print(
                "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()),
                flush=True,
            )
        chromium.close()
    if options.out:
        recorded.write(options.out, rows, since)


if __name__ == "__main__":
    main()
