from __future__ import annotations

import errno
import hashlib
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from edgeclf.data import cache
from edgeclf.data.dataset import scan
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
    monkeypatch.setattr(cache, "decode", lambda _data, path: pytest.fail(f"{path} was decoded again"))
    dataset, pixels = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    assert len(dataset.items) == len(pixels)


def test_the_first_reading_reads_every_file_once(image_folder, tmp_path, monkeypatch):
    files = []
    monkeypatch.setattr(cache, "read_bytes", lambda path: files.append(path) or path.read_bytes())
    monkeypatch.setattr(cache, "digests_of", lambda _files, progress: pytest.fail("files were read for their digests"))
    dataset, _ = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    assert sorted(files) == sorted(dataset.file(item) for item in dataset.items)
    assert dataset.items[0].digest == hashlib.sha256(dataset.file(dataset.items[0]).read_bytes()).hexdigest()


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
    dataset = scan(image_folder)
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


BUILDER = """
import hashlib, sys, time
from pathlib import Path
from edgeclf.data import cache
from edgeclf_device.preprocess import PrepareSpec

images, folder, ready, go = map(Path, sys.argv[1:])

def paused(items, description, total=None):
    for number, item in enumerate(items):
        if description == "preparing images" and number == 10:
            ready.touch()
            while not go.exists():
                time.sleep(0.01)
        yield item

_, pixels = cache.load(images, PrepareSpec(height=16, width=16), cache_dir=folder, progress=paused)
print(hashlib.sha256(pixels.tobytes()).hexdigest())
"""


def builder_in_the_middle(image_folder, folder, place):
    """Start a process that builds the entry and waits, with ten of its rows written, for the file ``go``."""
    ready = place / f"ready-{len(list(place.iterdir()))}"
    arguments = [sys.executable, "-c", BUILDER, image_folder, folder, ready, place / "go"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_two_processes_that_build_one_entry_at_once_both_get_it(image_folder, tmp_path):
    folder, place = tmp_path / "cache", tmp_path / "signals"
    place.mkdir()
    builders = [builder_in_the_middle(image_folder, folder, place) for _ in range(2)]
    assert len(list(folder.glob("building-*"))) == 2
    (place / "go").touch()
    digests = {builder.communicate(timeout=60)[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0]
    _, pixels = cache.load(image_folder, SPEC, cache_dir=folder)
    assert digests == {hashlib.sha256(pixels.tobytes()).hexdigest()}
    assert len(list(folder.iterdir())) == 1


def test_a_process_killed_while_it_builds_leaves_no_entry_and_is_in_nobodys_way(image_folder, tmp_path):
    folder, place = tmp_path / "cache", tmp_path / "signals"
    place.mkdir()
    builder = builder_in_the_middle(image_folder, folder, place)
    builder.kill()
    builder.communicate()
    assert builder.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith("building-")
    dataset, pixels = cache.load(image_folder, SPEC, cache_dir=folder)
    assert np.array_equal(pixels[-1], prepare(load(dataset.file(dataset.items[-1])), SPEC))
    assert len(pixels) == 24


def test_where_no_image_at_all_can_be_read_that_is_said(tmp_path):
    for label in ("a", "b"):
        for index in range(3):
            path = tmp_path / "images" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"no image {label}{index}".encode())
    for _ in range(2):
        with pytest.raises(DataError, match="'a' has 0"):
            cache.load(tmp_path / "images", SPEC, cache_dir=tmp_path / "cache")
        with pytest.raises(DataError, match="None of the 6 images"):
            cache.load(tmp_path / "images", SPEC, for_training=False, cache_dir=tmp_path / "cache")


def png_that_states(width, height):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)


def test_files_that_are_no_whole_image_are_rejected_with_their_reasons(image_folder, tmp_path):
    whole = (image_folder / "猫" / "ü00.png").read_bytes()
    files = {
        "a-empty.png": b"",
        "b-bomb.png": png_that_states(60_000, 60_000),
        "c-half.png": whole[: len(whole) // 2],
        "d-text.jpg": b"not an image",
    }
    for name, content in files.items():
        (image_folder / "猫" / name).write_bytes(content)
    for _ in range(2):  # the second time from the cache
        dataset, pixels = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
        reasons = {one.path.removeprefix("猫/"): one.reason for one in dataset.rejected}
        assert set(reasons) == set(files)
        assert "0 bytes" in reasons["a-empty.png"]
        assert "it states 60000×60000" in reasons["b-bomb.png"]
        assert "cut off" in reasons["c-half.png"]
        assert "save it as PNG or JPEG" in reasons["d-text.jpg"]
        assert len(pixels) == len(dataset.items) == 24


def test_every_kind_of_image_is_prepared_as_it_is_loaded(image_folder, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    colours = pillow.fromarray(np.random.default_rng(5).integers(0, 256, (30, 40, 3)).astype(np.uint8))
    folder = image_folder / "猫"
    turned = pillow.Exif()
    turned[0x0112] = 6
    colours.save(folder / "turned.jpg", exif=turned)
    colours.convert("CMYK").save(folder / "cmyk.jpg")
    colours.convert("L").save(folder / "grey.jpg")
    colours.quantize(16).save(folder / "palette.png")
    colours.convert("RGBA").save(folder / "alpha.png")
    pillow.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(folder / "deep.png")
    colours.save(folder / "moving.gif", save_all=True, append_images=[colours.rotate(180)])
    colours.save(folder / "moving.png", save_all=True, append_images=[colours.rotate(180)])
    dataset, pixels = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
    assert not dataset.rejected
    assert len(dataset.items) == 24 + 8
    sizes = {item.path: item.size for item in dataset.items}
    assert sizes["猫/turned.jpg"] == (40, 30)
    assert sizes["猫/moving.gif"] == (30, 40)
    for item, row in zip(dataset.items, pixels, strict=True):
        assert np.array_equal(row, prepare(load(dataset.file(item)), SPEC)), item.path


def test_a_damaged_entry_is_built_again(image_folder, tmp_path):
    folder = tmp_path / "cache"
    cache.load(image_folder, SPEC, cache_dir=folder)
    (entry,) = folder.iterdir()
    (entry / "pixels.npy").write_bytes(b"\x93NUMPY")
    _, pixels = cache.load(image_folder, SPEC, cache_dir=folder)
    assert len(pixels) == 24


def test_an_entry_of_an_edgeclf_that_kept_no_sizes_is_built_again(image_folder, tmp_path):
    folder = tmp_path / "cache"
    cache.load(image_folder, SPEC, cache_dir=folder)
    (entry,) = folder.iterdir()
    (entry / "sizes.npy").unlink()
    dataset, _ = cache.load(image_folder, SPEC, cache_dir=folder)
    assert dataset.items[0].size == (20, 24)


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
    dataset = scan(image_folder)
    file = dataset.file(dataset.items[0])
    file.write_bytes(dataset.file(dataset.items[1]).read_bytes())
    with pytest.raises(DataError, match="has changed since it was listed"):
        cache.pixels(dataset.items, dataset.root, SPEC, cache_dir=tmp_path / "elsewhere")


def test_an_entry_that_nobody_opened_for_a_month_is_removed_by_the_next_build(image_folder, tmp_path):
    folder = tmp_path / "cache"
    cache.load(image_folder, SPEC, cache_dir=folder)
    (old,) = folder.iterdir()
    for path in (old, *old.iterdir()):
        os.utime(path, (time.time() - 31 * 24 * 3600,) * 2)
    cache.load(image_folder, PrepareSpec(height=8, width=8), cache_dir=folder)
    assert not old.exists()
    assert len(list(folder.iterdir())) == 1


def test_an_old_entry_that_is_opened_again_stays(image_folder, tmp_path):
    folder = tmp_path / "cache"
    cache.load(image_folder, SPEC, cache_dir=folder)
    (old,) = folder.iterdir()
    os.utime(old, (time.time() - 31 * 24 * 3600,) * 2)
    cache.load(image_folder, SPEC, cache_dir=folder)
    cache.load(image_folder, PrepareSpec(height=8, width=8), cache_dir=folder)
    assert old.exists()


def test_the_size_of_each_image_is_kept_also_from_the_cache(image_folder, tmp_path):
    for _ in range(2):
        dataset, _ = cache.load(image_folder, SPEC, cache_dir=tmp_path / "cache")
        assert {item.size for item in dataset.items} == {(20, 24)}
