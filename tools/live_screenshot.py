"""Makes the picture of the monitor's live view: notebook 05 in JupyterLab in a browser, while its training goes on, as PNG.

.venv/bin/python tools/live_screenshot.py docs/images/entropy_live.png
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "tests" / "browser" / "support"
NAMES = ("chromium", "chromium-browser", "google-chrome")
SEEN = "step => Number(document.querySelector('.iv-scrub output')?.textContent) >= step"
SETTLED = "() => document.querySelector('.iv').dataset.state === 'ready'"


def cells() -> list[str]:
    """The notebook's code up to the end of its training."""
    book = nbformat.read(ROOT / "notebooks" / "05_entropy_collapse.ipynb", as_version=4)
    sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
    return sources[: next(n for n, source in enumerate(sources) if "monitor.close()" in source) + 1]


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--step", type=int, default=245, help="of the training from which the picture is taken")
    given = parser.parse_args()
    browser_path = next((path for path in map(shutil.which, NAMES) if path), None)
    if browser_path is None:
        parser.error(f"no browser on PATH; install one of {', '.join(NAMES)}")
    sys.path.insert(0, str(SUPPORT))
    from lab import jupyterlab

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder) / "root"
        root.mkdir()
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 1500})
        with jupyterlab(page, root, Path(folder) / "home") as lab:
            (root.parent / "data").symlink_to(ROOT / "data")
            lab.open(cells())
            last = len(cells()) - 1
            for cell in range(last):
                lab.run(cell)
            lab.run(last, wait=False)
            page.wait_for_function(SEEN, arg=given.step, timeout=300_000)
            page.wait_for_function(SETTLED)
            given.picture.parent.mkdir(parents=True, exist_ok=True)
            page.locator(".iv").first.screenshot(path=given.picture)
        browser.close()
    print(f"{given.picture}: {given.picture.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
