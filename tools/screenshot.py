"""Makes the README's picture of a report: its first screen with one head locked, as PNG.

.venv/bin/python tools/screenshot.py runs/demo/report.html docs/images/report.png
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--statistic", default="induction_mass", help="name of the statistic whose top head is locked")
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    parser.add_argument("--size", default="1280x1010", help="width x height of the window in pixels")
    given = parser.parse_args()
    browser_path = next((path for path in map(shutil.which, NAMES) if path), None)
    if browser_path is None:
        parser.error(f"no browser on PATH; install one of {', '.join(NAMES)}")
    width, height = map(int, given.size.split("x"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=given.theme)
        page.goto(given.report.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        chosen = page.locator(f'.map[data-statistic="{given.statistic}"]')
        picked = page.locator(".picker select").input_value()
        chosen.get_by_role("button").click()
        page.locator(".ranking tbody button").first.click()
        page.locator(".picker select").select_option(picked)
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.mouse.move(1, 1)
        given.folder.mkdir(parents=True, exist_ok=True)
        pictures = [given.folder / "report.png", given.folder / "map.png"]
        page.screenshot(path=pictures[0])
        page.locator(".card:visible .pictures").screenshot(path=pictures[1])
        browser.close()
    for picture in pictures:
        print(f"{picture}: {picture.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
