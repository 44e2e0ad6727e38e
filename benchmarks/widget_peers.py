"""One attention map as a page: BertViz, CircuitsVis and attnview at 256 and 1,024 tokens, AttentionMapView there and at 32,768, in one run.

    pip install --no-deps --target FOLDER bertviz circuitsvis attnview "importlib_metadata<9" zipp
    python benchmarks/widget_peers.py --peers FOLDER [--rounds 9] [--out data/results/widget_peers]

Only a process of its own sees FOLDER. Every tool writes the same planted head into a file, as its own documentation says; a browser without
network opens it. "open" is from the address to the first picture (a canvas, a drawing or a table in sight) with the page idle; "making" is the
time in Python, the library's import not counted. All pages are opened in turn in every round, so that what slows the machine down slows all of them;
those that take more than 5 s in the first 2 rounds only, and one that shows nothing once. The peers put every weight into the page; ours puts an
overview and one region of exact cells there, and gets the rest on demand from Python: see "bytes".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import recorded

Case = tuple[str, int]
"""Tool and tokens."""
ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "tests" / "widgets" / "support"
PEERS = ("bertviz", "circuitsvis", "attnview")
SIZES = (256, 1024)
OURS = (256, 1024, 32768)
LIMIT = 60.0
"""Seconds after which a page counts as not opened."""
SLOW, SLOW_ROUNDS = 5.0, 2
"""A page that takes more seconds is opened in the first rounds only."""
SEEN = "() => [...document.querySelectorAll('canvas, svg, table')].some(x => x.getBoundingClientRect().height > 20)"
IDLE = "() => new Promise(done => requestAnimationFrame(() => requestIdleCallback(() => done(true))))"


def bertviz(weights: object, tokens: list[str]) -> str:
    """The head view."""
    import torch
    from bertviz import head_view

    return head_view([torch.as_tensor(weights)[None, None]], tokens, html_action="return").data


def circuitsvis(weights: object, tokens: list[str]) -> str:
    """The attention heads, with its bundle in the page: the other copy would need a network."""
    import torch
    from circuitsvis.attention import attention_heads

    return attention_heads(torch.as_tensor(weights)[None], tokens).local_src


def attnview(weights: object, tokens: list[str]) -> str:
    """Its page."""
    import numpy as np
    from attnview import render_html

    return render_html(np.asarray(weights)[None], tokens=tokens)


MAKERS: Mapping[str, Callable[[object, list[str]], str]] = {
    "bertviz": bertviz,
    "circuitsvis": circuitsvis,
    "attnview": attnview,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder in which the peers are installed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="also write OUT.csv and OUT.manifest.json")
    parser.add_argument("--make", nargs=3, metavar=("TOOL", "TOKENS", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        tool, tokens, file = options.make
        print(json.dumps({"seconds": make(tool, int(tokens), Path(file))}))
        return
    since = recorded.started()
    with tempfile.TemporaryDirectory() as folder:
        rows, pages = make_all(Path(folder), options.peers)
        opened = open_all(pages, options.rounds)
    for row in rows:
        seconds = opened.get((row["tool"], row["tokens"]), [])
        if seconds:
            row |= {"open_s": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}
            row["rounds"] = len(seconds)
        else:
            row.setdefault("said", f"no picture within {LIMIT:.0f} s, without a network")
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    if options.out:
        recorded.write(options.out, rows, since)


def make_all(folder: Path, peers: Path | None) -> tuple[list[dict[str, Any]], dict[Case, Path]]:
    """A row for every tool and size, and the pages of those that made one."""
    rows: list[dict[str, Any]] = []
    pages: dict[Case, Path] = {}
    for tool, tokens in [("interp", n) for n in OURS] + ([(tool, n) for n in SIZES for tool in PEERS] if peers else []):
        page = folder / f"{tool}{tokens}.html"
        made = in_own_process(tool, tokens, page, peers)
        if isinstance(made, str):
            rows.append({"tool": tool, "tokens": tokens, "said": made})
        else:
            rows.append({"tool": tool, "tokens": tokens, "making_s": made, "bytes": page.stat().st_size})
            pages[tool, tokens] = page
    return rows, pages


def open_all(pages: Mapping[Case, Path], rounds: int) -> dict[Case, list[float]]:
    """Seconds of each round until each page is there; none for a page that shows nothing."""
    seconds: dict[Case, list[float]] = {case: [] for case in pages}
    left = dict(pages)
    for done in range(1, rounds + 1):
        for case, page in list(left.items()):
            took = open_page(page)
            if took is not None:
                seconds[case].append(took)
            if took is None or (took > SLOW and done >= SLOW_ROUNDS):
                del left[case]
    return seconds


def make(tool: str, tokens: int, file: Path) -> float:
    """Write the page of the planted head; the seconds it took."""
    sys.path.insert(0, str(SUPPORT))
    from map_cases import planted_map

    amap = planted_map(tokens)
    if tool == "interp":
        from interp.widgets.views import AttentionMapView

        begin = time.perf_counter()
        AttentionMapView(amap).html(file)
        return time.perf_counter() - begin
    weights, words = amap.dense(), [f"w{i}" for i in range(tokens)]
    MAKERS[tool](weights[:4, :4], words[:4])  # imports
    begin = time.perf_counter()
    text = MAKERS[tool](weights, words)
    file.write_text(f'<!doctype html><meta charset="utf-8">{text}', encoding="utf-8")
    return time.perf_counter() - begin


def in_own_process(tool: str, tokens: int, file: Path, peers: Path | None) -> float | str:
    """Seconds of making, or what went wrong."""
    paths = {} if tool == "interp" else {"PYTHONPATH": str(peers)}
    command = [sys.executable, __file__, "--make", tool, str(tokens), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **paths}, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no words"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"]


def open_page(file: Path) -> float | None:
    """Seconds until a fresh browser shows it; None if it does not."""
    from playwright.sync_api import TimeoutError as Late
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
        page.set_default_timeout(1000 * LIMIT)
        page.set_default_navigation_timeout(1000 * LIMIT)
        begin = time.perf_counter()
        try:
            page.goto(file.as_uri(), wait_until="commit")
            page.wait_for_function(SEEN)
            page.evaluate(IDLE)
            return time.perf_counter() - begin
        except Late:
            return None
        finally:
            browser.close()


if __name__ == "__main__":
    main()
