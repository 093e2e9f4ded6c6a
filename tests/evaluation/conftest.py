"""The tiny artifacts of the device's tests, and images for them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

DEVICE_TESTS = Path(__file__).parents[1] / "device" / "conftest.py"


@pytest.fixture(scope="module")
def tiny():
    """The tiny artifacts of the device's tests."""
    spec = importlib.util.spec_from_file_location("device_conftest", DEVICE_TESTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tiny()


@pytest.fixture
def images(tiny, tmp_path, monkeypatch):
    """Twelve images in folders of two of the four classes."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setenv("EDGECLF_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for label in tiny.labels[:2]:
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(6):
            pixels = (draw.integers(0, 256, (1, 1, 3)) + draw.integers(-40, 40, (30, 40, 3))).clip(0, 255)
            cv2.imencode(".png", pixels.astype(np.uint8))[1].tofile(tmp_path / "images" / label / f"{number}.png")
    return tmp_path / "images"
