"""The page of features in a browser: no error, no request; the index opens a feature, its contexts show what the record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The page of two features, the second with markup for tokens, and their records."""
    from sae_cases import NASTY, source

    from interp.saes.dashboard import feature_record
    from interp.widgets.feature_page import feature_page

    made = source()
    records = [feature_record(made, 5), feature_record(made, 0)]
    for group in records[1]["groups"]:
        for example in group["examples"]:
            example["tokens"] = [NASTY] * len(example["tokens"])
    path = tmp_path_factory.mktemp("features") / "index.html"
    path.write_text(feature_page(made, records), encoding="utf-8")
    return path, json.loads(json.dumps(records))


@pytest.fixture
def opened(page: Page, written: tuple[Path, list[dict[str, Any]]]) -> Page:
    page.goto(written[0].as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def test_the_first_feature_is_open_and_its_contexts_are_the_records(opened: Page, written: Any) -> None:
    record = written[1][0]
    assert opened.locator("article.feature h2").inner_text() == "Feature 5"
    groups = opened.locator(".group")
    assert groups.count() == len(record["groups"])
    first = groups.first.locator(".context").first
    example = record["groups"][0]["examples"][0]
    assert groups.first.locator(".context").count() == len(record["groups"][0]["examples"])
    assert f"at token {example['position']} of text {example['context']}" in first.locator(".said").inner_text()
    assert first.locator(".act.here").get_attribute("title").startswith(f"{example['position']}: value")
    source = example["dfa"].index(max(example["dfa"]))
    assert first.locator(".dfa.here").get_attribute("title").startswith(f"{source}: adds")
    first.get_by_role("button", name="whole text").click()
    assert first.locator(".act").count() == len(example["tokens"])


def test_the_first_token_can_be_left_out(opened: Page, written: Any) -> None:
    record = written[1][0]
    examples = [e for g in record["groups"] for e in g["examples"]]
    opened.get_by_role("button", name="left out").click()
    contexts = opened.locator(".context")
    assert contexts.count() == len(examples)
    for n, example in enumerate(examples):
        rest = [0.0, *example["dfa"][1:]]
        title = contexts.nth(n).locator(".dfa.here").get_attribute("title")
        assert title.startswith(f"{rest.index(max(rest))}: adds")


def test_the_index_opens_and_sorts(opened: Page) -> None:
    from sae_cases import NASTY

    rows = opened.locator(".index tbody tr")
    assert rows.evaluate_all("rows => rows.map((r) => r.dataset.feature)") == ["5", "0"]
    opened.locator('.index th[data-key="feature"] button').click()
    opened.locator('.index th[data-key="feature"] button').click()
    assert rows.evaluate_all("rows => rows.map((r) => r.dataset.feature)") == ["0", "5"]
    opened.locator('tr[data-feature="0"] button').click()
    assert opened.locator("article.feature h2").inner_text() == "Feature 0"
    assert opened.evaluate("location.hash") == "#0"
    # markup is text: seen as it is, and never an element
    assert opened.locator(".act").first.text_content() == NASTY.replace(" ", "·")
    assert opened.locator("img").count() == 0
