from __future__ import annotations

import hashlib
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest

from edgeclf.data import cache
from edgeclf.data.dataset import Dataset, scan
from edgeclf.data.splits import split
from edgeclf_device.errors import DataError, DependencyError
from edgeclf_device.preprocess import PrepareSpec


def decoded(path: Path, *, strict: bool = False) -> Dataset:
    """The dataset with its unreadable images set aside."""
    return cache.load(path, PrepareSpec(height=8, width=8), strict=strict, cache_dir=path.parent / "cache")[0]


def test_a_folder_with_non_ascii_names_is_read_in_order_with_digests(image_folder):
    dataset = decoded(image_folder)
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
    dataset = decoded(image_folder)
    assert [rejected.path for rejected in dataset.rejected] == ["猫/bad.png", "猫/empty.jpg"]
    assert all(rejected.reason and str(image_folder) not in rejected.reason for rejected in dataset.rejected)
    assert len(dataset.items) == 24


def test_strict_refuses_an_unreadable_image_and_names_it(image_folder):
    (image_folder / "猫" / "bad.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"1 of 25 images.*\n.*猫/bad\.png.*\n.*--strict"):
        decoded(image_folder, strict=True)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        scan(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="none was found"):
        scan(tmp_path)


def test_one_class_is_refused(image_folder):
    shutil.rmtree(image_folder / "猫")
    with pytest.raises(DataError, match="at least two classes"):
        scan(image_folder)


def test_a_class_with_too_few_images_is_refused_by_name(image_folder, writer):
    writer(image_folder / "neu" / "a.png", 1)
    with pytest.raises(DataError, match="'neu' has 1"):
        scan(image_folder)


def listing(folder: Path, text: str) -> Path:
    path = folder / "listing.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_listing_gives_labels_splits_and_strata(image_folder):
    rows = [f"猫/ü{index:02}.png,katze,train,mono" for index in range(6)]
    rows += [f"Gänse/ü{index:02}.png,gans,," for index in range(6)]
    dataset = scan(listing(image_folder, "\n".join(["path,label,split,stratum", *rows])))
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
    dataset = scan(listing(other, "\n".join(["path,label", *rows])))
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
        scan(listing(image_folder, text))


PARTS = {"train": "train", "valid": "val", "test": "test"}


def divided(image_folder: Path) -> Path:
    """The images in train, valid and test folders of class folders."""
    for number, label in enumerate(("Gänse", "猫")):
        for place, file in enumerate(sorted((image_folder / label).iterdir())):
            target = image_folder / list(PARTS)[place % 3] / label / f"{number}-{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        (image_folder / label).rmdir()
    return image_folder


def test_train_valid_and_test_folders_give_the_split(image_folder):
    dataset = scan(divided(image_folder))
    assert dataset.labels == ("Gänse", "猫")
    assert {(item.path.split("/")[0], item.split) for item in dataset.items} == set(PARTS.items())


def test_classes_called_train_and_test_are_classes(image_folder):
    (image_folder / "Gänse").rename(image_folder / "train")
    (image_folder / "猫").rename(image_folder / "test")
    dataset = scan(image_folder)
    assert dataset.labels == ("test", "train")
    assert {item.split for item in dataset.items} == {None}


def test_a_folder_of_another_name_beside_them_makes_train_a_class(image_folder, writer):
    divided(image_folder)
    writer(image_folder / "extra" / "a.png", 1)
    writer(image_folder / "extra" / "b.png", 2)
    writer(image_folder / "extra" / "c.png", 3)
    assert scan(image_folder).labels == ("extra", "test", "train", "valid")


def test_two_folders_of_one_part_are_refused(image_folder, writer):
    writer(divided(image_folder) / "val" / "猫" / "x.png", 1)
    with pytest.raises(DataError, match="has val and valid; join them"):
        scan(image_folder)


@pytest.mark.parametrize(
    ("part", "label", "message"),
    [("valid", "猫", "val has no image of 猫; put images"), ("test", "猫", "test has no image of 猫")],
)
def test_a_class_that_a_given_part_lacks_is_explained(image_folder, part, label, message):
    shutil.rmtree(divided(image_folder) / part / label)
    with pytest.raises(DataError, match=message):
        split(scan(image_folder), seed=0)


def test_a_class_that_only_the_test_folder_has_is_explained(image_folder, writer):
    divided(image_folder)
    for index in range(3):
        writer(image_folder / "test" / "Reiher" / f"{index}.png", index)
    with pytest.raises(DataError, match=r"train has no image of Reiher; put images .* or remove the class"):
        split(scan(image_folder), seed=0)


def test_other_files_in_the_folders_are_counted(image_folder):
    for name in ("a.heic", "b.HEIC", ".hidden.heic", "notes.txt"):
        (image_folder / "猫" / name).touch()
    assert scan(image_folder).ignored == ((".heic", 2), (".txt", 1))


def test_a_folder_of_other_files_says_what_it_found(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.heic").touch()
    with pytest.raises(DataError, match=r"none was found \(1 .heic beside\)"):
        scan(tmp_path)


def test_a_listing_gives_groups_and_weights(image_folder):
    rows = [f"猫/ü{index:02}.png,katze,teil {index // 2},0.5" for index in range(6)]
    rows += [f"Gänse/ü{index:02}.png,gans,," for index in range(6)]
    dataset = scan(listing(image_folder, "\n".join(["path,label,group,weight", *rows])))
    assert [(item.group, item.weight) for item in dataset.items[:2]] == [("teil 0", 0.5), ("teil 0", 0.5)]
    assert (dataset.items[-1].group, dataset.items[-1].weight) == (None, 1.0)


@pytest.mark.parametrize("weight", ["-1", "much", "nan", "inf"])
def test_a_weight_that_is_none_is_refused(image_folder, weight):
    with pytest.raises(DataError, match="weight"):
        scan(listing(image_folder, f"path,label,weight\n猫/ü00.png,x,{weight}"))


def test_a_parquet_listing_reads_like_the_same_csv(image_folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    paths = [f"{label}/ü{index:02}.png" for label in ("猫", "Gänse") for index in range(4)]
    columns = {"path": paths, "label": [path.split("/")[0] for path in paths], "weight": [0.5] * 8}
    parquet.write_table(pyarrow.table(columns), image_folder / "listing.parquet")
    rows = "\n".join(f"{path},{label},0.5" for path, label in zip(columns["path"], columns["label"], strict=True))
    expected = scan(listing(image_folder, f"path,label,weight\n{rows}"))
    assert scan(image_folder / "listing.parquet") == expected


def test_without_pyarrow_the_extra_is_named(image_folder, monkeypatch):
    (image_folder / "listing.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install pyarrow"):
        scan(image_folder / "listing.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"path,label\n"])
def test_a_parquet_listing_that_is_none_is_refused(image_folder, content):
    pytest.importorskip("pyarrow")
    (image_folder / "listing.parquet").write_bytes(content)
    with pytest.raises(DataError, match="must be a Parquet file"):
        scan(image_folder / "listing.parquet")


def test_a_row_of_a_parquet_listing_is_named(image_folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"path": ["猫/ü00.png", "猫/ü01.png"], "label": [1, 2], "split": [None, "holdout"]})
    parquet.write_table(table, image_folder / "listing.parquet")
    with pytest.raises(DataError, match=r"row 2: split must be train, val, test or empty, but it is 'holdout'"):
        scan(image_folder / "listing.parquet")
