"""Options and fixtures of every part."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP = {"width": 1280, "height": 900}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refresh-golden", action="store_true", help="write the golden files anew instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need TensorFlow go first: begun last, one of them would keep one process busy and the others idle."""
    long = {item.path for item in items if item.get_closest_marker("tensorflow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def refresh_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew; the change then shows in the version control's diff."""
    return bool(request.config.getoption("--refresh-golden"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("NO FULL DISK TESTED: only root may mount one")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("NO FULL DISK TESTED: a tmpfs can't be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium without a screen."""
    if not CHROMIUM.exists():
        pytest.skip("NO PAGE IS TRIED IN A BROWSER: apt-get install chromium")
    reason = "NO PAGE IS TRIED IN A BROWSER: playwright is not installed"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page in a context of its own; at the end no page may have complained."""
    contexts, complaints = [], []

    def open_page(url, viewport=DESKTOP, *, may_fail=False, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        tab = context.new_page()
        if not may_fail:
            tab.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.on("requestfailed", lambda asked: complaints.append(f"{asked.url}: {asked.failure}"))
            tab.on("response", lambda got: got.status >= 400 and complaints.append(f"{got.url}: {got.status}"))
        tab.goto(url)
        return tab

    yield open_page
    told = list(complaints)
    for context in contexts:
        context.close()
    assert told == []


# How long an example takes says more of what else the machine does than of the code: nothing is timed in a test.
settings.register_profile("edgeclf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeclf")
