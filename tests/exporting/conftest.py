"""A tiny real run: sixty drawings in two classes, a small Keras network fitted to them, and what a training writes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SIZE = 32


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("tensorflow") is None:
        for item in items:
            if item.get_closest_marker("tensorflow"):
                item.add_marker(pytest.mark.skip(reason="TensorFlow is not installed"))


@pytest.fixture(scope="session", autouse=True)
def _own_pixel_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["EDGECLF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, made in a process of its own so that TensorFlow stays out of the tests' process."""
    folder = tmp_path_factory.mktemp("Läufe")
    script = Path(__file__).with_name("make_run.py")
    subprocess.run([sys.executable, script, folder, str(SIZE)], check=True, capture_output=True, text=True)
    return folder / "run"
