"""A small folder of real PNG files with non-ASCII names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

LABELS = ("Gänse", "猫")


def write_image(path: Path, seed: int) -> None:
    import cv2

    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, pixels)[1].tofile(path)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    pytest.importorskip("cv2")
    folder = tmp_path / "bilder"
    for number, label in enumerate(LABELS):
        for index in range(12):
            write_image(folder / label / f"ü{index:02}.png", 100 * number + index)
    return folder


@pytest.fixture
def writer() -> Callable[[Path, int], None]:
    pytest.importorskip("cv2")
    return write_image
