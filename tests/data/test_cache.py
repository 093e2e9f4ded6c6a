from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest

from edgeclf.data import cache
from edgeclf.data.dataset import read_dataset
from edgeclf_device.errors import DataError, SystemStateError
from edgeclf_device.images import load
from edgeclf_device.preprocess import PrepareSpec, prepare

SPEC = PrepareSpec(height=16, width=16)


def test_pixels_are_those_of_prepare_and_mapped_read_only(image_folder, tmp_path):
    dataset, pixels = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    assert pixels.shape == (24, 16, 16, 3)
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.writeable
    for item, row in zip(dataset.items, pixels, strict=True):
        assert np.array_equal(row, prepare(load(dataset.file(item)), SPEC))


def test_the_second_reading_decodes_nothing(image_folder, tmp_path, monkeypatch):
    cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(cache, "load_image", lambda path: pytest.fail(f"{path} was decoded again"))
    dataset, pixels = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    assert len(dataset.items) == len(pixels)


def test_another_image_another_size_and_another_contract_are_other_entries(image_folder, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    cache.load(image_folder, SPEC, cache_dir=folder)
    cache.load(image_folder, PrepareSpec(height=8, width=8), cache_dir=folder)
    (image_folder / "猫" / "ü00.png").unlink()
    cache.load(image_folder, SPEC, cache_dir=folder)
    monkeypatch.setattr(cache, "CONTRACT_VERSION", 999)
    cache.load(image_folder, SPEC, cache_dir=folder)
    assert len(list(folder.iterdir())) == 4


def test_unreadable_images_are_left_out_of_pixels_and_items_also_from_the_cache(image_folder, tmp_path):
    (image_folder / "Gänse" / "ü000.png").write_bytes(b"broken")
    for _ in range(2):
        dataset, pixels = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
        assert [one.path for one in dataset.rejected] == ["Gänse/ü000.png"]
        assert len(pixels) == len(dataset.items) == 24
        assert np.array_equal(pixels[-1], prepare(load(dataset.file(dataset.items[-1])), SPEC))
    with pytest.raises(DataError, match="ü000"):
        cache.load(image_folder, SPEC, strict=True, cache_dir=tmp_path / "cache")


def test_pixels_of_chosen_items_come_in_their_order(image_folder, tmp_path):
    dataset = read_dataset(image_folder)
    chosen = dataset.items[::-5]
    pixels = cache.pixels(chosen, dataset.root, SPEC, cache_dir=tmp_path / "cache")
    assert np.array_equal(pixels[0], prepare(load(dataset.file(chosen[0])), SPEC))


def test_a_full_disk_is_explained_and_leaves_nothing(image_folder, tmp_path, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_write_header", full)
    with pytest.raises(SystemStateError, match="No space left"):
        cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_an_interrupted_build_leaves_nothing(image_folder, tmp_path):
    def interrupted(items, description, total=None):
        for number, item in enumerate(items):
            if description == "preparing images" and number == 10:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache", progress=interrupted)
    assert not list((tmp_path / "cache").iterdir())


def test_two_builders_of_one_entry_end_with_one_good_entry(image_folder, tmp_path):
    folder = tmp_path / "cache"
    inner = []

    def racing(items, description, total=None):
        yield from items
        if description == "preparing images" and not inner:
            inner.append(True)
            cache.load(image_folder, SPEC, cache_dir=folder)

    dataset, pixels = cache.load(image_folder, SPEC, cache_dir=folder, progress=racing)
    assert len(pixels) == len(dataset.items)
    assert len(list(folder.iterdir())) == 1


def test_a_damaged_entry_is_built_again(image_folder, tmp_path):
    folder = tmp_path / "cache"
    cache.load(image_folder, SPEC, cache_dir=folder)
    (entry,) = folder.iterdir()
    (entry / "pixels.npy").write_bytes(b"\x93NUMPY")
    _, pixels = cache.load(image_folder, SPEC, cache_dir=folder)
    assert len(pixels) == 24


def test_what_a_killed_training_left_is_removed_a_day_later(image_folder, tmp_path):
    folder = tmp_path / "cache"
    for name, age_s in (("building-old", 2 * 24 * 3600), ("building-new", 60)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age_s,) * 2)
    cache.load(image_folder, SPEC, cache_dir=folder)
    assert sorted(path.name for path in folder.glob("building-*")) == ["building-new"]


def test_the_default_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("EDGECLF_CACHE", raising=False)
    assert cache.default_folder() == tmp_path / "xdg" / "edgeclf"
    monkeypatch.setenv("EDGECLF_CACHE", str(tmp_path / "own"))
    assert cache.default_folder() == tmp_path / "own"


def test_an_image_that_changed_since_it_was_listed_is_refused(image_folder, tmp_path):
    dataset = read_dataset(image_folder)
    file = dataset.file(dataset.items[0])
    file.write_bytes(dataset.file(dataset.items[1]).read_bytes())
    with pytest.raises(DataError, match="has changed since it was listed"):
        cache.pixels(dataset.items, dataset.root, SPEC, cache_dir=tmp_path / "elsewhere")
