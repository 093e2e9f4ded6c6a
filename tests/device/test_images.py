from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from edgeclf_device import DataError, DependencyError, load
from edgeclf_device._image_header import stated_size

cv2 = pytest.importorskip("cv2")

SINCE_4_12 = cv2.haveImageWriter("a.gif")
GIF = [".gif"] if SINCE_4_12 else []
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


@pytest.mark.parametrize("suffix", [".png", ".tiff"] + [".webp", ".gif"] * SINCE_4_12)
def test_of_an_animation_the_first_frame_is_taken(tmp_path, suffix):
    pillow = pytest.importorskip("PIL.Image")
    frames = [pillow.fromarray(np.ascontiguousarray(frame)) for frame in (RGB, RGB[:, ::-1], 255 - RGB)]
    path = tmp_path / f"moving{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert np.abs(load(path)[:, [0, 3, 12, 15]].astype(int) - RGB[:, [0, 3, 12, 15]]).max() <= 12


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".png"), ("TIFF", ".tiff")] + [("WEBP", ".webp")] * (cv2.__version__ >= "5")
)
def test_the_exif_orientation_is_applied_in_other_formats_too(tmp_path, kind, suffix):
    pillow = pytest.importorskip("PIL.Image")
    exif = pillow.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"turned{suffix}"
    pillow.fromarray(RGB).save(path, kind, exif=exif)
    assert load(path).shape == (16, 8, 3)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg", *GIF])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    data = encoded(suffix, noise)
    path = tmp_path / f"half{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"cut off"):
        load(path)


def with_thumbnail(jpeg):
    """Insert an application segment that holds a whole small JPEG, as cameras do."""
    content = b"Exif\0\0" + encoded(".jpg", bgr(RGB))
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def test_the_end_of_its_thumbnail_does_not_hide_that_a_jpeg_is_cut_off(tmp_path):
    whole = with_thumbnail(encoded(".jpg", np.kron(bgr(RGB), np.ones((8, 8, 1), np.uint8))))
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert load(tmp_path / "whole.jpg").shape == (64, 128, 3)
    (tmp_path / "half.jpg").write_bytes(whole[:-200])
    with pytest.raises(DataError, match=r"half\.jpg is cut off: its end is missing"):
        load(tmp_path / "half.jpg")


def stated(kind, width, height):
    """The first bytes of a file that states a size, with no picture behind them: nothing to decode."""
    tiff = {
        "tiff": b"II*\0" + struct.pack("<IHHHIIHHII", 8, 2, 256, 4, 1, width, 257, 4, 1, height),
        "big-endian.tiff": b"MM\0*" + struct.pack(">IHHHIIHHII", 8, 2, 256, 4, 1, width, 257, 4, 1, height),
        "bigtiff.tiff": b"II+\0" + struct.pack("<HHQQHHQQHHQQ", 8, 0, 16, 2, 256, 4, 1, width, 257, 4, 1, height),
    }
    extended = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return {
        "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", width, height, 8, 2, 0, 0, 0),
        "gif": b"GIF89a" + struct.pack("<HH", width, height) + bytes(3),
        "bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height) + bytes(28),
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + extended,
        "jpg": b"\xff\xd8\xff\xe0\0\x04ab\xff\xc2\0\x11\x08" + struct.pack(">HH", height, width) + bytes(20),
        **tiff,
    }[kind]


KINDS = ("png", "gif", "bmp", "webp", "jpg", "tiff", "big-endian.tiff", "bigtiff.tiff")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (40_000, 2)])
def test_a_few_bytes_that_state_a_huge_image_are_refused_before_they_are_decoded(tmp_path, kind, width, height):
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(stated(kind, width, height))
    with pytest.raises(DataError, match=f"268435456 pixels and 32768 a side, but it states {width}×{height}"):
        load(path)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".jpg", *GIF])
@pytest.mark.parametrize("size", [(1, 1), (3, 300), (257, 19)])
def test_the_stated_size_is_the_size_of_the_decoded_image(suffix, size):
    data = encoded(suffix, np.zeros((*size, 3), np.uint8))
    assert stated_size(data) == size == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_ends_too_early_states_no_size(kind):
    data = stated(kind, 300, 200)
    assert stated_size(data) == (200, 300)
    assert all(stated_size(data[:length]) in {None, (200, 300)} for length in range(len(data)))


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
