"""Makes the pictures of the notebook views in docs/images/views: each view as its own saved page, in a browser, light and dark.

.venv/bin/python tools/view_pictures.py docs/images/views [--only token_view,explore]

Results are those kept in data/results; maps and tokens are of one run of the default model.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from playwright.sync_api import sync_playwright

import interp
from interp.display import view
from interp.interventions import AblateHeads, text_effects
from interp.models.hooked import HookedModel
from interp.results import Result
from interp.tasks.corpus import topics
from interp.widgets.views import AttentionMapView, SAEFeature, SinkExplorer, TokenView
from interp.widgets.views.base import View

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
INDUCTION = (18, 6)
"""The strongest induction head of the default model (data/results/smollm2_heads)."""
WIDTH = 1080
TALLEST = 1400
"""Of a picture, in pixels: contexts of a feature go on below."""


@cache
def model() -> HookedModel:
    """The default model."""
    return interp.load("smollm2-135m")


@cache
def run() -> interp.Run:
    """One page of documentation, read once."""
    text = next(topic.text for topic in topics() if topic.name == "topics/objects")[:2500]
    return model().run(text, logits="none", collect=[*interp.stats.names(), "alpha"])


def kept(name: str) -> Result:
    """A kept result."""
    return Result.load(RESULTS / name)


def compared() -> View:
    """What a text loses with the strongest induction heads."""
    heads = tuple((layer, head) for layer, head, _ in kept("smollm2_heads/results/induction").top(3))
    pieces = [run().ids.tolist()[:256]]
    return text_effects(model(), [AblateHeads(heads=heads, kind="zero")], pieces, draws=3).view()


def features() -> View:
    """A few features of the shipped autoencoder."""
    from interp.saes import feature_source, load

    sae = load(ROOT / "data" / "saes" / "smollm2_layer12")
    ids = run().ids.tolist()
    return SAEFeature(feature_source(sae, model(), 12, [ids[i : i + 128] for i in range(0, len(ids), 128)]))


VIEWS: Mapping[str, Callable[[], View]] = {
    "head_grid": lambda: kept("smollm2_heads/results/induction").view(),
    "attention_map": lambda: AttentionMapView(run().attention[INDUCTION]),
    "token_view": lambda: TokenView(run(), layer=INDUCTION[0], head=INDUCTION[1]),
    "sink_explorer": lambda: SinkExplorer(run()),
    "entropy_view": lambda: view("entropy.training", RESULTS / "entropy_digits"),
    "needle_grid": lambda: kept("smollm2_heads/results/retrieval").view(),
    "successor_table": lambda: kept("smollm2_heads/results/successor").view(),
    "sae_feature": features,
    "pattern_atlas": lambda: kept("smollm2_heads/embedding").view(),
    "compare_view": compared,
    "curves_view": lambda: kept("smollm2_streaming").view(),
    "explore": lambda: interp.explore(run(), head=INDUCTION),
}


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="names, with commas between them")
    given = parser.parse_args()
    browser_path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser_path is None:
        parser.error(f"no browser on PATH; install one of {', '.join(BROWSERS)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    names = given.only.split(",") if given.only else list(VIEWS)
    with tempfile.TemporaryDirectory() as pages, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name in names:
            page_path = VIEWS[name]().html(Path(pages) / f"{name}.html")
            for theme in ("light", "dark"):
                page = browser.new_page(color_scheme=theme, viewport={"width": WIDTH, "height": 600})
                page.goto(page_path.as_uri())
                page.wait_for_selector('[data-state="ready"]')
                page.wait_for_timeout(500)  # charts that are drawn a frame later
                picture = given.folder / f"{name}_{theme}.png"
                foot = page.evaluate("document.querySelector('.iv').getBoundingClientRect().bottom")
                clip = {"x": 0, "y": 0, "width": WIDTH, "height": min(foot + 16, TALLEST)}
                page.screenshot(path=picture, full_page=True, clip=clip)
                page.close()
                print(f"{picture.name}: {picture.stat().st_size / 1024:.0f} KiB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
