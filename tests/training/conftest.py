"""A small folder of images whose two classes differ in brightness, so that a few steps learn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("bilder")
    draw = np.random.default_rng(0)
    for label, base in (("dünkel", 0), ("hell", 130)):
        (folder / label).mkdir()
        for index in range(20):
            pixels = (draw.integers(0, 100, (40, 50, 3)) + base).astype(np.uint8)
            cv2.imencode(".png", pixels)[1].tofile(folder / label / f"bild {index}.png")
    (folder / "hell" / "kaputt.png").write_bytes(b"not a png")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECLF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
