from __future__ import annotations

import json
from pathlib import Path

from edgeclf.data.dataset import Dataset, Item, Rejected
from edgeclf.data.report import describe
from edgeclf.data.splits import Leak
from edgeclf_device.preprocess import PrepareSpec

SPEC = PrepareSpec(height=32, width=32)


def made(counts: tuple[int, int], **changes):
    items = [
        Item(path=f"{label}/{index}.png", label=label, digest=f"{label}-{index}", size=(40 + index, 50))
        for label, count in enumerate(counts)
        for index in range(count)
    ]
    for index, change in changes.pop("items", {}).items():
        items[index] = Item(**{**vars(items[index]), **change})
    data = Dataset(
        root=Path("/data"),
        labels=("a", "b"),
        items=tuple(items),
        rejected=changes.pop("rejected", ()),
        ignored=changes.pop("ignored", ()),
    )
    return describe(data, ["train"] * len(items), SPEC, **changes)


def test_clean_data_gives_counts_and_sizes_and_no_notes():
    report = made((4, 5))
    assert report.classes == {"a": {"train": 4, "val": 0, "test": 0}, "b": {"train": 5, "val": 0, "test": 0}}
    assert (report.sizes["smallest"], report.sizes["largest"]) == ((40, 50), (44, 50))
    assert report.notes == ()
    assert report.lines() == [
        "9 images of 2 classes (train 9, val 0, test 0)",
        "  a: train 4, val 0, test 0",
        "  b: train 5, val 0, test 0",
        "from 50×40 to 50×44 pixels, median 50×42",
    ]
    json.dumps(report.to_json())


def test_each_trouble_has_its_own_note_with_a_remedy():
    report = made(
        (3, 12),
        items={0: {"digest": "same", "size": (16, 16)}, 5: {"digest": "same"}},
        rejected=(Rejected(path="x.png", reason="empty"),),
        near=[(1, 2)],
        leaks=[Leak(kind="group", first="p", second="q", parts=("train", "test"))],
    )
    notes = " ".join(report.notes)
    for words in (
        "can't be read",
        "4.0 times",
        "train.balance",
        "look the same",
        "that cross the split",
        "with different labels",
    ):
        assert words in notes
    assert [(one.first, one.first_label, one.second, one.second_label) for one in report.conflicts] == [
        ("0/0.png", "a", "1/2.png", "b")
    ]
    assert report.near_duplicates == [("0/1.png", "0/2.png")]
    assert report.smaller_than_input == 1
    assert report.to_json()["counts"] == {"equal_bytes": 1, "near_duplicates": 1, "leaks": 1, "conflicts": 1}


def test_pictures_of_kinds_that_are_not_read_are_named_and_other_files_are_not():
    report = made((4, 5), ignored=((".db", 1), (".heic", 12)))
    (note,) = report.notes
    assert "(12 .heic)" in note
    assert "JPEG" in note


def test_equal_bytes_are_not_counted_as_near_duplicates_too():
    report = made((4, 5), items={0: {"digest": "same"}, 1: {"digest": "same"}}, near=[(0, 1)])
    assert report.equal_bytes == [["0/0.png", "0/1.png"]]
    assert report.near_duplicates == []


def test_a_split_that_was_not_given_is_not_blamed_for_what_a_chain_of_lookalikes_leaks():
    leak = Leak(kind="near duplicate", first="p", second="q", parts=("train", "test"))
    assert "in a chain" in " ".join(made((4, 5), leaks=[leak]).notes)
    assert "was given" in " ".join(made((4, 5), leaks=[leak], items={0: {"split": "train"}}).notes)
