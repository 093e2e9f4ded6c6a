from __future__ import annotations

import hashlib
import shutil
import unicodedata
from pathlib import Path

import pytest

from edgeclf.data.dataset import read_dataset, scan
from edgeclf_device.errors import DataError


def test_a_folder_with_non_ascii_names_is_read_in_order_with_digests(image_folder):
    dataset = read_dataset(image_folder)
    assert dataset.labels == ("Gänse", "猫")
    assert [item.path for item in dataset.items] == sorted(item.path for item in dataset.items)
    first = dataset.items[0]
    assert first.path == "Gänse/ü00.png"
    assert first.digest == hashlib.sha256(dataset.file(first).read_bytes()).hexdigest()
    assert not dataset.rejected


def test_labels_are_nfc_normalized(image_folder):
    (image_folder / "Gänse").rename(image_folder / unicodedata.normalize("NFD", "Gänse"))
    assert scan(image_folder).labels == ("Gänse", "猫")


def test_hidden_files_and_other_files_are_ignored(image_folder):
    before = len(scan(image_folder).items)
    shutil.copy(image_folder / "猫" / "ü00.png", image_folder / "猫" / ".hidden.png")
    shutil.copytree(image_folder / "猫", image_folder / "猫" / ".thumbnails")
    shutil.copytree(image_folder / "猫", image_folder / ".git")
    (image_folder / "猫" / "notes.txt").write_text("not an image")
    assert len(scan(image_folder).items) == before


def test_suffixes_count_in_any_case_and_in_nested_folders(image_folder, writer):
    writer(image_folder / "猫" / "deep" / "er.png", 7)
    (image_folder / "猫" / "deep" / "er.png").rename(image_folder / "猫" / "deep" / "er.PNG")
    assert "猫/deep/er.PNG" in {item.path for item in scan(image_folder).items}


def test_an_unreadable_image_is_listed_and_the_rest_goes_on(image_folder):
    (image_folder / "猫" / "bad.png").write_bytes(b"not a png")
    (image_folder / "猫" / "empty.jpg").touch()
    dataset = read_dataset(image_folder)
    assert [rejected.path for rejected in dataset.rejected] == ["猫/bad.png", "猫/empty.jpg"]
    assert all(rejected.reason and str(image_folder) not in rejected.reason for rejected in dataset.rejected)
    assert len(dataset.items) == 24


def test_strict_refuses_an_unreadable_image_and_names_it(image_folder):
    (image_folder / "猫" / "bad.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"1 of 25 images.*\n.*猫/bad\.png.*\n.*--strict"):
        read_dataset(image_folder, strict=True)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="none was found"):
        read_dataset(tmp_path)


def test_one_class_is_refused(image_folder):
    shutil.rmtree(image_folder / "猫")
    with pytest.raises(DataError, match="at least two classes"):
        read_dataset(image_folder)


def test_a_class_with_too_few_images_is_refused_by_name(image_folder, writer):
    writer(image_folder / "neu" / "a.png", 1)
    with pytest.raises(DataError, match="'neu' has 1"):
        read_dataset(image_folder)


def listing(folder: Path, text: str) -> Path:
    path = folder / "listing.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_listing_gives_labels_splits_and_strata(image_folder):
    rows = [f"猫/ü{index:02}.png,katze,train,mono" for index in range(6)]
    rows += [f"Gänse/ü{index:02}.png,gans,," for index in range(6)]
    dataset = read_dataset(listing(image_folder, "\n".join(["path,label,split,stratum", *rows])))
    assert dataset.labels == ("gans", "katze")
    assert dataset.root == image_folder
    assert {(item.label, item.split, item.stratum) for item in dataset.items} == {
        (1, "train", "mono"),
        (0, None, None),
    }


def test_a_listing_may_name_absolute_paths(image_folder, tmp_path):
    other = tmp_path / "lists"
    other.mkdir()
    rows = [f"{image_folder}/{label}/ü{index:02}.png,{label}" for label in ("猫", "Gänse") for index in range(4)]
    dataset = read_dataset(listing(other, "\n".join(["path,label", *rows])))
    assert len(dataset.items) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x", "lacks path"),
        ("path,label\n../a.png,x", "must stay below"),
        ("path,label\nnowhere.png,x", "there is no file"),
        ("path,label,split\n猫/ü00.png,x,holdout", "'holdout'"),
        ("path,label\n猫/ü00.png,", "must not be empty"),
    ],
)
def test_a_bad_listing_is_refused_with_its_line(image_folder, text, message):
    with pytest.raises(DataError, match=message):
        read_dataset(listing(image_folder, text))
