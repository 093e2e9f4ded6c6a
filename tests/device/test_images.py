from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from edgeclf_device import DataError, DependencyError, load

cv2 = pytest.importorskip("cv2")

RGB = np.zeros((8, 16, 3), np.uint8)
RGB[:, :8] = (250, 120, 10)
RGB[:, 8:] = (10, 60, 200)


def encoded(suffix, image):
    good, data = cv2.imencode(suffix, image)
    assert good
    return data.tobytes()


def bgr(image):
    return np.ascontiguousarray(image[..., ::-1])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
def test_every_format_gives_rgb(tmp_path, suffix):
    path = tmp_path / f"ä ひ{suffix}"
    path.write_bytes(encoded(suffix, bgr(RGB)))
    image = load(path)
    assert image.dtype == np.uint8
    assert image.shape == RGB.shape
    assert np.abs(image[:, :6].astype(int) - RGB[:, :6]).max() <= (0 if suffix in {".png", ".bmp", ".tiff"} else 12)


def test_16_bit_samples_keep_their_upper_8_bits(tmp_path):
    deep = bgr(RGB).astype(np.uint16) * 256 + 255
    (tmp_path / "deep.png").write_bytes(encoded(".png", deep))
    assert np.array_equal(load(tmp_path / "deep.png"), RGB)


def test_grey_becomes_rgb_of_equal_channels(tmp_path):
    (tmp_path / "grey.png").write_bytes(encoded(".png", RGB[..., 0]))
    image = load(tmp_path / "grey.png")
    assert image.shape == RGB.shape
    assert all(np.array_equal(image[..., channel], RGB[..., 0]) for channel in range(3))


def test_alpha_is_dropped(tmp_path):
    alpha = np.dstack([bgr(RGB), np.zeros((8, 16), np.uint8)])
    (tmp_path / "alpha.png").write_bytes(encoded(".png", alpha))
    assert np.array_equal(load(tmp_path / "alpha.png"), RGB)


def with_orientation(jpeg, orientation):
    """Insert an EXIF segment with nothing but the orientation."""
    entry = struct.pack("<HHII", 0x0112, 3, 1, orientation)
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 0)
    content = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_the_exif_orientation_is_applied(tmp_path, orientation, turn):
    jpeg = encoded(".jpg", bgr(np.kron(RGB, np.ones((4, 4, 1), np.uint8))))
    (tmp_path / "upright.jpg").write_bytes(jpeg)
    (tmp_path / "turned.jpg").write_bytes(with_orientation(jpeg, orientation))
    assert np.array_equal(load(tmp_path / "turned.jpg"), np.rot90(load(tmp_path / "upright.jpg"), turn))


def test_cmyk_becomes_rgb(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("CMYK", (16, 8), (0, 0, 0, 0)).save(tmp_path / "white.jpg")
    image = load(tmp_path / "white.jpg")
    assert image.shape == (8, 16, 3)
    assert image.min() > 245


def test_a_palette_becomes_rgb(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(RGB).quantize(4).save(tmp_path / "palette.png")
    assert np.abs(load(tmp_path / "palette.png").astype(int) - RGB).max() <= 2


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png"):
        load(tmp_path / "bad.png")


def test_a_missing_image_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.png"):
        load(tmp_path / "none.png")


def test_without_opencv_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(".png", RGB))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match="camera"):
        load(tmp_path / "a.png")
