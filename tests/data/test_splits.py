from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclf.data.dataset import Dataset, Item
from edgeclf.data.splits import leaks, read_splits, split, write_splits
from edgeclf_device.errors import DataError, ModelError, UsageError

pytest.importorskip("sklearn")


def dataset(counts: list[int], *, strata: int = 0, given: dict[int, str] | None = None, duplicates: int = 0) -> Dataset:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    items = tuple(
        Item(
            path=f"{label}/{index}.png",
            label=label,
            digest=f"{index - index % 2 if index < duplicates else index:064x}",
            split=(given or {}).get(index),
            stratum=str(index % strata) if strata else None,
        )
        for index, label in enumerate(labels)
    )
    return Dataset(root=Path("/data"), labels=tuple(f"class {n}" for n in range(len(counts))), items=items)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(30, 120), min_size=2, max_size=4),
    strata=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
    val=st.sampled_from([0.1, 0.2, 0.25]),
    test=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_a_split_is_repeatable_and_stratified_by_label(counts, strata, seed, val, test):
    data = dataset(counts, strata=strata)
    fractions = (1 - val - test, val, test)
    names = split(data, seed=seed, fractions=fractions)
    assert names == split(data, seed=seed, fractions=fractions)
    assert len(names) == len(data.items)
    for name, share in zip(("train", "val", "test"), fractions, strict=True):
        for label, count in enumerate(counts):
            found = sum(1 for part, item in zip(names, data.items, strict=True) if (part, item.label) == (name, label))
            assert abs(found - share * count) <= 2 + strata


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), duplicates=st.integers(0, 60))
def test_images_of_equal_bytes_stay_on_one_side(seed, duplicates):
    data = dataset([60, 60], duplicates=duplicates)
    sides: dict[str, set[str]] = {}
    for item, name in zip(data.items, split(data, seed=seed), strict=True):
        sides.setdefault(item.digest, set()).add(name)
    assert all(len(names) == 1 for names in sides.values())


def test_another_seed_gives_another_split():
    data = dataset([50, 50])
    assert split(data, seed=0) != split(data, seed=1)


def test_a_given_split_is_kept_and_val_is_taken_from_train():
    given_split = {index: "test" if index % 4 == 0 else "train" for index in range(80)}
    data = dataset([40, 40], given=given_split)
    names = split(data, seed=3)
    assert all((name == "test") == (given_split[index] == "test") for index, name in enumerate(names))
    assert Counter(names)["val"] == round(60 * 0.2 / 0.9)


def test_a_complete_given_split_is_kept_whole():
    given_split = {index: ("train", "val", "test")[index % 3] for index in range(60)}
    assert split(dataset([30, 30], given=given_split), seed=0) == tuple(given_split.values())


def test_a_rare_stratum_does_not_prevent_the_split():
    data = dataset([40, 40])
    items = tuple(
        Item(path=item.path, label=item.label, digest=item.digest, stratum="rare" if index == 5 else "usual")
        for index, item in enumerate(data.items)
    )
    assert Counter(split(Dataset(root=data.root, labels=data.labels, items=items), seed=0))["test"] == 8


def test_too_few_images_for_every_part_are_refused():
    with pytest.raises(DataError, match="add images"):
        split(dataset([3, 3, 3, 30]), seed=0)


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (0.0, 0.5, 0.5), (0.9, 0.0, 0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(UsageError, match="sum to 1"):
        split(dataset([30, 30]), seed=0, fractions=fractions)


def test_splits_are_written_and_read_back(tmp_path):
    data = dataset([30, 30])
    names = split(data, seed=0)
    write_splits(tmp_path / "splits.csv", data, names)
    rows = read_splits(tmp_path / "splits.csv")
    assert [(row.path, row.label, row.split, row.sha256) for row in rows] == [
        (item.path, data.labels[item.label], name, item.digest) for item, name in zip(data.items, names, strict=True)
    ]


@pytest.mark.parametrize("text", ["", "path,label\n", "path,label,split,sha256\na,b,nonsense,c\n", "\xff"])
def test_damaged_splits_are_refused(tmp_path, text):
    (tmp_path / "splits.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match="train again"):
        read_splits(tmp_path / "splits.csv")


def grouped(sizes: list[int], *, labels: int = 2) -> Dataset:
    """Groups of several images, one label each."""
    items = tuple(
        Item(path=f"{number}-{image}.png", label=number % labels, digest=f"{number}-{image}", group=f"part {number}")
        for number, size in enumerate(sizes)
        for image in range(size)
    )
    return Dataset(root=Path("/data"), labels=tuple(f"class {n}" for n in range(labels)), items=items)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=40, max_size=90), seed=st.integers(0, 2**32 - 1))
def test_a_group_never_straddles_a_split_and_the_shares_hold_by_images(sizes, seed):
    data = grouped(sizes)
    names = split(data, seed=seed)
    assert names == split(data, seed=seed)
    sides: dict[str, set[str]] = {}
    for item, name in zip(data.items, names, strict=True):
        sides.setdefault(item.group, set()).add(name)
    assert all(len(found) == 1 for found in sides.values())
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert abs(names.count(name) / len(names) - share) <= 0.06
    assert not leaks(data, names)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_groups_are_divided_class_by_class(seed):
    data = grouped([1, 2, 3, 4, 5, 6] * 30, labels=3)
    names = split(data, seed=seed)
    for label in range(3):
        found = Counter(name for name, item in zip(names, data.items, strict=True) if item.label == label)
        for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
            assert abs(found[name] - share * found.total()) <= 3


def test_three_groups_of_a_class_are_enough_for_one_in_each_part():
    data = grouped([10] * 6)
    names = split(data, seed=0)
    assert Counter(zip((item.label for item in data.items), names, strict=True)) == {
        (label, name): 10 for label in (0, 1) for name in ("train", "val", "test")
    }


def test_two_groups_of_a_class_are_too_few_and_that_is_said():
    with pytest.raises(DataError, match="2 different images or groups in 2 classes"):
        split(grouped([10] * 4), seed=0)


def test_a_group_holds_images_of_several_classes_together():
    items = tuple(
        Item(path=f"{index}.png", label=index % 2, digest=str(index), group=f"recording {index // 6}")
        for index in range(240)
    )
    data = Dataset(root=Path("/data"), labels=("a", "b"), items=items)
    names = split(data, seed=0)
    assert not leaks(data, names)
    assert Counter(names) == {"train": 168, "val": 48, "test": 24}


def test_a_group_torn_apart_by_its_given_splits_is_a_leak_and_no_error():
    items = tuple(
        Item(path=f"{index}.png", label=index % 2, digest=str(index), group=group, split=part)
        for index, (group, part) in enumerate(
            [("torn", "train"), ("torn", "test"), ("torn", None)] + [(None, None)] * 60
        )
    )
    data = Dataset(
        root=Path("/data"),
        labels=("a", "b"),
        items=items
        + tuple(Item(path=f"t{index}.png", label=index % 2, digest=f"t{index}", split="test") for index in range(10)),
    )
    names = split(data, seed=0)
    assert (names[0] in {"train", "val"}, names[1], names[2]) == (True, "test", names[0])
    assert {(leak.kind, leak.first, leak.second) for leak in leaks(data, names)} == {("group", "0.png", "1.png")}


def test_near_duplicates_stay_together_also_in_a_chain():
    data = dataset([60, 60])
    near = [(0, 1), (1, 2), (70, 71)]
    for seed in range(20):
        names = split(data, seed=seed, near=near)
        assert names[0] == names[1] == names[2]
        assert names[70] == names[71]
        assert not leaks(data, names, near)


def test_a_chain_of_near_duplicates_does_not_swallow_the_data_and_what_it_leaks_is_said():
    data = dataset([60, 60])
    near = [(index, index + 1) for index in range(119)]
    names = split(data, seed=0, near=near)
    assert abs(names.count("test") - 12) <= 6
    assert {leak.kind for leak in leaks(data, names, near)} == {"near duplicate"}


def test_leaks_of_a_given_split_are_found_by_kind():
    items = tuple(
        Item(path=f"{index}.png", label=index % 2, digest=str(index // 3), group=f"g{index // 6}", split=part)
        for index, part in enumerate(["train", "val", "test"] * 8)
    )
    data = Dataset(root=Path("/data"), labels=("a", "b"), items=items)
    names = split(data, seed=0)
    assert names == tuple(item.split for item in items)
    found = leaks(data, names, [(0, 23)])
    assert {leak.kind for leak in found} == {"equal bytes", "group", "near duplicate"}
    assert found[0].parts == ("train", "val")
