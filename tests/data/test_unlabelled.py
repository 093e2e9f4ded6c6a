from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeclf.data.dataset import Dataset, scan
from edgeclf.data.unlabelled import read_unlabelled
from edgeclf_device.errors import DataError
from edgeclf_device.preprocess import PrepareSpec

SPEC = PrepareSpec(height=8, width=8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGECLF_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    cv2.imencode(".png", pixels)[1].tofile(path)
    return path


@pytest.fixture
def labelled(tmp_path) -> Dataset:
    for number in range(6):
        picture(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", number)
    return scan(tmp_path / "data")


PARTS = ("train", "val", "test", "train", "train", "train")


def read(folder: Path, labelled: Dataset, **options):
    return read_unlabelled(folder, SPEC, beside=labelled, parts=PARTS, **options)


def test_images_at_any_depth_are_found_each_once_and_without_those_that_are_labelled(tmp_path, labelled):
    more = tmp_path / "more"
    kept = [picture(more / "x" / "ü.png", 20), picture(more / "y.jpg", 21)]
    shutil.copy(kept[0], more / "z.png")
    picture(more / ".hidden" / "no.png", 22)
    (more / "broken.png").write_bytes(b"not a png")
    shutil.copy(labelled.file(labelled.items[0]), more / "known.png")
    found = read(more, labelled)
    assert [found.dataset.items[row].path for row in found.rows] == ["x/ü.png", "y.jpg"]
    assert found.pixels.shape == (4, 8, 8, 3)
    told = {"images": 2, "labelled": 1, "repeated": 1, "unreadable": 1, "sha256": found.digest}
    assert found.to_json() == told
    (line,) = found.lines()
    assert line == "2 unlabelled images (left out: 1 labelled training images too, 1 equal to another, 1 unreadable)"
    with pytest.raises(DataError, match=r"broken\.png"):
        read(more, labelled, strict=True)


@pytest.mark.parametrize("judging", [1, 2])
def test_an_image_that_judges_is_refused_by_name(tmp_path, labelled, judging):
    more = tmp_path / "more"
    picture(more / "fine.png", 20)
    shutil.copy(labelled.file(labelled.items[judging]), more / "cheat.png")
    with pytest.raises(DataError, match=rf"cheat\.png \({PARTS[judging]}\); take them out"):
        read(more, labelled)


def test_each_kind_of_folder_that_can_not_be_used_is_explained(tmp_path, labelled):
    with pytest.raises(DataError, match="is not there; name a folder"):
        read(tmp_path / "none", labelled)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file; name a folder"):
        read(tmp_path / "file", labelled)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="none was found; name another"):
        read(empty, labelled)
    (empty / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"none was found \(1 \.txt beside\)"):
        read(empty, labelled)
    (empty / "broken.png").write_bytes(b"x")
    with pytest.raises(DataError, match="None of the 1 images"):
        read(empty, labelled)
    known = tmp_path / "known"
    known.mkdir()
    shutil.copy(labelled.file(labelled.items[0]), known / "a.png")
    with pytest.raises(DataError, match="all 1 are training images already"):
        read(known, labelled)
