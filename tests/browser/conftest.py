"""What the browser tests share: a page that also fails on console errors, and the report of known numbers, opened from its file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "widgets" / "support"))


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """A page that fails its test on errors on the console too, which breaches of the page's policy are."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield page
    assert not errors, errors


@pytest.fixture(scope="session")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose numbers are those of report_cases."""
    from report_cases import frame, manifest, thumbnails

    from interp.widgets.report import report_page

    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page(frame(), manifest(), thumbnails()), encoding="utf-8")
    return path


@pytest.fixture
def report(page: Page, report_file: Path) -> Page:
    """That report, opened."""
    page.goto(report_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page
