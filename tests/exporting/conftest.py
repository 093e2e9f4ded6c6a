"""A tiny real run: sixty drawings in two classes, a small Keras network fitted to them, and what a training writes."""

from __future__ import annotations

import json
import os
import re
import shutil
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


@pytest.fixture(scope="session")
def bare_run(run_folder: Path) -> Path:
    """The same model as a run that has no images, as a stock classifier has none."""
    folder = run_folder.with_name("bare")
    shutil.copytree(run_folder, folder)
    config = (folder / "config.toml").read_text(encoding="utf-8")
    (folder / "config.toml").write_text(re.sub(r"(?m)^data = .*$", 'data = ""', config), encoding="utf-8")
    (folder / "splits.csv").write_text("path,label,split,sha256\n", encoding="utf-8")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    (folder / "metrics.json").write_text(json.dumps({**metrics, "splits": {}, "images": {}}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def images(run_folder: Path) -> Path:
    """The sixty drawings, thirty in a subfolder for each class."""
    return run_folder.with_name("images")


@pytest.fixture(scope="session")
def unlabelled(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty of them, some in the folder itself and some deeper, one twice, and files that are no pictures of it."""
    folder = tmp_path_factory.mktemp("Fotos")
    (folder / "tief" / "tiefer").mkdir(parents=True)
    for number, file in enumerate(sorted(images.rglob("*.png"))[::2]):
        place = folder if number % 2 else folder / "tief" / "tiefer"
        shutil.copy(file, place / f"{number}.png")
    shutil.copy(folder / "1.png", folder / "tief" / "again.png")
    (folder / ".hidden.png").write_bytes(b"not shown")
    (folder / "note.txt").write_text("not a picture")
    return folder
