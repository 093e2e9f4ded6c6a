from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2
from make_clips import write_video

from edgeclf.data import cache
from edgeclf.data.clips import read_clip
from edgeclf_device import ClipSpec, DataError, PrepareSpec

SPEC = ClipSpec(frame=PrepareSpec(height=8, width=8, channels="grey"), window=4, stride=2, fps=8.0)


def numbered(count, size=(24, 32)):
    """Frames that tell their numbers: 5 levels of grey each."""
    return [np.full((*size, 3), 5 * index, np.uint8) for index in range(count)]


def numbers(window):
    return np.rint(window.mean(axis=(1, 2, 3)) / 5).astype(int).tolist()


@pytest.mark.parametrize(
    ("rate", "frames", "taken"), [(24, 24, [6, 9, 12, 15]), (8, 8, [2, 3, 4, 5]), (4, 4, [1, 1, 2, 2])]
)
def test_the_window_in_the_middle_is_taken_by_time(rate, frames, taken, tmp_path):
    window, size = read_clip(write_video(tmp_path / "a.avi", numbered(frames), rate), SPEC)
    assert (window.shape, window.dtype, size) == ((4, 8, 8, 1), np.uint8, (24, 32))
    assert numbers(window) == taken


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def of_codec(path, codec):
    path.write_bytes(path.read_bytes().replace(b"MJPG", codec))
    return path


def mp4(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 24, (32, 24))
    for frame in numbered(24):
        writer.write(frame)
    writer.release()
    return path


def plain(path, content):
    path.write_bytes(content)
    return path


BAD = {
    "empty.avi": (lambda path: plain(path, b""), r"empty \(0 bytes\)"),
    "words.avi": (lambda path: plain(path, b"these are words" * 100), "no video file"),
    "cut.avi": (
        lambda path: cut(write_video(path, numbered(24), 24), 0.8),
        "cut off or damaged after .* of its 24 frames",
    ),
    "header.avi": (lambda path: cut(write_video(path, numbered(24), 24), 0.3), "is cut off: .* of its [0-9]+ bytes"),
    "cut.mp4": (lambda path: cut(mp4(path), 0.6), "index at its end is missing"),
    "codec.avi": (lambda path: of_codec(write_video(path, numbered(24), 24), b"ZZZZ"), "the codec ZZZZ"),
    "one.avi": (lambda path: write_video(path, numbered(1), 24), "it has one frame"),
    "slow.avi": (lambda path: write_video(path, numbered(20), 2), "2 frames a second"),
    "short.avi": (lambda path: write_video(path, numbered(9), 24), "it has 3 frames at 8 a second"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_clip_is_refused_each_for_its_own_reason(name, tmp_path):
    make, message = BAD[name]
    with pytest.raises(DataError, match=re.escape(str(tmp_path / name)) + ".*" + message):
        read_clip(make(tmp_path / name), SPEC)


@pytest.fixture
def folder(tmp_path):
    """Four good clips of each of two classes, of several sizes and rates, and every bad one."""
    for label in ("a", "b"):
        for index, rate in enumerate((12, 15, 24, 30)):
            size = (24 + 8 * index, 32)
            write_video(tmp_path / "clips" / label / f"{index}.avi", numbered(rate + 5 * (label == "b"), size), rate)
    for name, (make, _) in BAD.items():
        make(tmp_path / "clips" / "a" / name)
    return tmp_path / "clips"


def test_clips_of_all_sizes_and_rates_are_read_and_the_others_listed(folder, tmp_path):
    dataset, pixels = cache.load(folder, SPEC, cache_dir=tmp_path / "cache")
    assert (pixels.shape, pixels.dtype) == ((8, 4, 8, 8, 1), np.uint8)
    assert sorted(Path(one.path).name for one in dataset.rejected) == sorted(BAD)
    assert len({one.reason for one in dataset.rejected}) == len(BAD)
    assert {item.size for item in dataset.items} == {(24, 32), (32, 32), (40, 32), (48, 32)}
    again, mapped = cache.load(folder, SPEC, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(pixels, mapped)
    assert again.rejected == dataset.rejected


def test_strict_refuses_them_by_name(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)9 of 17 .*one\.avi: .*it has one frame"):
        cache.load(folder, SPEC, strict=True, cache_dir=tmp_path / "cache")


def test_a_folder_without_videos_is_refused_with_the_kinds_that_are_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "picture.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"must hold videos \(.*\.avi .*1 \.png beside"):
        cache.load(tmp_path, SPEC)
