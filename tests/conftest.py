"""What every test shares: no network, fixed seeds, a browser where there is one, and slow tests that can be resumed.

Nothing of interp is imported here at module level: the jaxtyping hook (`--jaxtyping-packages` in pyproject.toml) checks only what is
imported after it, and conftest files come before it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import sys
from collections.abc import Generator, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("interp", "kernels", "tests", "data", "pyproject.toml", "constraints.txt")
LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None}
PASSED = "interp/passed"

# Read by huggingface_hub when it is first imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

hypothesis.settings.register_profile("interp", deadline=None, derandomize=True, max_examples=50, database=None)
hypothesis.settings.load_profile("interp")


def chromium_path() -> str | None:
    """The Chromium that browser tests drive, or None."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


def sources_hash() -> str:
    """One hash of every file that can change a test's outcome."""
    digest = hashlib.sha256()
    for top in SOURCES:
        path = ROOT / top
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        for file in files:
            if "__pycache__" not in file.parts and ".ipynb_checkpoints" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make test-slow`."""
    parser.addoption("--skip-passed", action="store_true", help="skip tests that passed before on the same sources")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run and (with --skip-passed) what has passed already."""
    if chromium_path() is None:
        skip(items, "browser", "no chromium on PATH; `make test` installs it where apt-get works as root")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            skip(items, "gpu", "no CUDA or ROCm device")
    if config.getoption("--skip-passed"):
        sources = sources_hash()
        config.stash[SOURCES_KEY] = sources
        for item in items:
            last = passed(config).get(item.nodeid)
            if last and last["sources"] == sources:
                item.add_marker(pytest.mark.skip(reason=f"passed on {last['on']} on the same sources"))


SOURCES_KEY = pytest.StashKey[str]()


def skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    """Skip the items that carry a marker."""
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def passed(config: pytest.Config) -> dict[str, dict[str, str]]:
    """Which tests have passed under --skip-passed: {test id: {"sources": hash, "on": day}}."""
    assert config.cache is not None, "--skip-passed needs pytest's cache: do not combine it with -p no:cacheprovider"
    return config.cache.get(PASSED, {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note each pass at once, so that a run that is killed loses one test at most."""
    report = yield
    if report.when == "call" and report.passed and SOURCES_KEY in item.config.stash:
        assert item.config.cache is not None
        now = {"sources": item.config.stash[SOURCES_KEY], "on": date.today().isoformat()}
        item.config.cache.set(PASSED, {**passed(item.config), item.nodeid: now})
    return report


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Fail every look-up of and connection to another machine, as if the cable were out."""
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def local_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOCAL:
            raise OSError(f"tests have no network: connection to {address}")
        connect(self, address)

    def local_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOCAL:
            raise socket.gaierror(socket.EAI_AGAIN, f"tests have no network: look-up of {name!r}")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_connect)
        patch.setattr(socket, "getaddrinfo", local_getaddrinfo)
        yield


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Start every test from the same random state (of the libraries that are loaded by then)."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="module")  # while it is open an event loop runs in this thread, which notebook tests cannot bear
def browser() -> Iterator[Browser]:
    """A headless Chromium for tests marked `browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails its test on a script error and on any request that leaves this machine."""
    complaints: list[str] = []
    tab = browser.new_page(viewport={"width": 1280, "height": 900})

    def check(url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost")):
            complaints.append(f"request to {url}")

    tab.on("request", lambda request: check(request.url))
    tab.on("pageerror", lambda error: complaints.append(f"script error: {error}"))
    yield tab
    tab.close()
    assert not complaints, complaints
