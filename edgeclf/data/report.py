"""What a training should know of its data before it begins, and its user too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeclf.data.dataset import SPLIT_NAMES, Dataset
from edgeclf.data.splits import Leak
from edgeclf_device.clips import Spec

IMBALANCED = 3.0
"""Ratio of the largest class to the smallest from which it matters."""

PICTURES_NOT_READ = frozenset(
    {".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".psd", ".raw", ".svg"}
)
"""Suffixes of files that are pictures too, and are passed over."""

_LISTED = 20
_CLASSES_SHOWN = 20
_FILES_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two images of equal bytes, or that look the same, with different labels; by their paths."""

    first: str
    first_label: str
    second: str
    second_label: str


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """The data at a glance.

    Attributes:
        images: that can be read.
        classes: images of each class by part of the split.
        sizes: median, smallest and largest (height, width) by area, before ``prepare``.
        smaller_than_input: images with a side below what the model sees: they are enlarged.
        unreadable: number of files that can't be read.
        equal_bytes: sets of files with equal bytes, by their paths.
        near_duplicates: pairs of paths that look the same and differ in their bytes, the most alike first.
        leaks: what belongs together but lies in different parts.
        conflicts: what is the same but labelled differently.
        imbalance: images of the largest class for each of the smallest, in the training part.
        notes: what should be thought about, as sentences with a remedy.
    """

    images: int
    classes: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, tuple[int, int]]
    smaller_than_input: int
    unreadable: int
    equal_bytes: Sequence[Sequence[str]]
    near_duplicates: Sequence[tuple[str, str]]
    leaks: Sequence[Leak]
    conflicts: Sequence[Conflict]
    imbalance: float
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The ``data`` object of metrics.json; long lists are cut to their first entries, ``counts`` are whole."""
        value = asdict(self)
        lists = ("equal_bytes", "near_duplicates", "leaks", "conflicts")
        return {
            **value,
            "counts": {name: len(value[name]) for name in lists},
            **{name: value[name][:_LISTED] for name in lists},
        }

    def lines(self) -> list[str]:
        """The report for a terminal."""
        smallest, median, largest = (
            f"{width}×{height}" for height, width in map(self.sizes.__getitem__, ("smallest", "median", "largest"))
        )
        totals = {part: sum(counts[part] for counts in self.classes.values()) for part in SPLIT_NAMES}
        parts = ", ".join(f"{part} {count}" for part, count in totals.items())
        each = [
            f"  {label}: {', '.join(f'{part} {counts[part]}' for part in SPLIT_NAMES)}"
            for label, counts in self.classes.items()
        ]
        more = [f"  and {len(each) - _CLASSES_SHOWN} more"] if len(each) > _CLASSES_SHOWN else []
        return [
            f"{self.images} images of {len(self.classes)} classes ({parts})",
            *each[:_CLASSES_SHOWN],
            *more,
            f"from {smallest} to {largest} pixels, median {median}",
            *(f"note: {note}" for note in self.notes),
        ]


def describe(
    dataset: Dataset,
    parts: Sequence[str],
    spec: Spec,
    *,
    near: Sequence[tuple[int, int]] = (),
    leaks: Sequence[Leak] = (),
) -> DataReport:
    """Describe a dataset whose images have been decoded and divided.

    Args:
        dataset: with the size of each item.
        parts: of each item.
        spec: the preprocessing.
        near: pairs of items that look the same.
        leaks: see ``edgeclf.data.splits.leaks``.
    """
    items = dataset.items
    counts = Counter((dataset.labels[item.label], part) for item, part in zip(items, parts, strict=True))
    classes = {label: {part: counts[label, part] for part in SPLIT_NAMES} for label in dataset.labels}
    sizes = np.array([item.size or (0, 0) for item in items])
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    same: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        same.setdefault(item.digest, []).append(index)
    equal = [indices for indices in same.values() if len(indices) > 1]
    alike = [(first, second) for first, second in near if items[first].digest != items[second].digest]
    pairs = [(indices[0], other) for indices in equal for other in indices[1:]] + alike
    train = [classes[label]["train"] for label in dataset.labels]
    made = DataReport(
        images=len(items),
        classes=classes,
        sizes={
            name: (int(sizes[order[place], 0]), int(sizes[order[place], 1]))
            for name, place in (("smallest", 0), ("median", len(order) // 2), ("largest", -1))
        },
        smaller_than_input=int(((sizes[:, 0] < spec.height) | (sizes[:, 1] < spec.width)).sum()),
        unreadable=len(dataset.rejected),
        equal_bytes=[[items[index].path for index in indices] for indices in equal],
        near_duplicates=[(items[first].path, items[second].path) for first, second in alike],
        leaks=tuple(leaks),
        conflicts=[
            Conflict(
                first=items[first].path,
                first_label=dataset.labels[items[first].label],
                second=items[second].path,
                second_label=dataset.labels[items[second].label],
            )
            for first, second in pairs
            if items[first].label != items[second].label
        ],
        imbalance=max(train) / max(1, min(train)),
        notes=(),
    )
    return DataReport(**{**vars(made), "notes": tuple(_notes(made, dataset))})


def _notes(made: DataReport, dataset: Dataset) -> list[str]:
    notes = []
    passed_over = ", ".join(f"{count} {suffix}" for suffix, count in dataset.ignored if suffix in PICTURES_NOT_READ)
    if passed_over:
        notes.append(f"pictures of kinds that are not read are passed over ({passed_over}); save them as JPEG or PNG.")
    if made.unreadable:
        named = "; ".join(f"{one.path}: {one.reason}" for one in dataset.rejected[:_FILES_NAMED])
        more = ", …" if made.unreadable > _FILES_NAMED else ""
        notes.append(f"files that can't be read and are left out: {made.unreadable} ({named}{more}).")
    if made.imbalance > IMBALANCED:
        smallest = min(dataset.labels, key=lambda label: made.classes[label]["train"])
        notes.append(
            f"the largest class has {made.imbalance:.1f} times as many training images as the smallest, {smallest!r}: "
            "accuracy hides how a rare class does, so look at its recall; --set train.balance=weights or sampling may "
            "help, more images surely do."
        )
    if made.equal_bytes or made.near_duplicates:
        kept = "what crosses the split is named below" if made.leaks else "each stays on one side of the split"
        notes.append(
            f"files of equal bytes: {len(made.equal_bytes)} sets; pictures that look the same: "
            f"{len(made.near_duplicates)} pairs; {kept}."
        )
    if made.leaks:
        notes.append(_leaks_note(made.leaks, given=any(item.split for item in dataset.items)))
    if made.conflicts:
        one = made.conflicts[0]
        notes.append(
            f"pairs of equal or near-equal images with different labels: {len(made.conflicts)}, for example "
            f"{one.first} ({one.first_label}) and {one.second} ({one.second_label}); look at them, one label may be "
            "wrong."
        )
    if made.smaller_than_input:
        notes.append(
            f"images smaller than what the model sees, and so enlarged: {made.smaller_than_input}; a smaller "
            "--image-size is faster and may be as good."
        )
    return notes


def _leaks_note(leaks: Sequence[Leak], *, given: bool) -> str:
    leak = leaks[0]
    example = f"{leak.first} ({leak.parts[0]}) and {leak.second} ({leak.parts[1]}), {leak.kind}"
    if given:
        return (
            f"ties that cross the split that was given: {len(leaks)}, for example {example}; figures on the test part "
            "are too good by that: divide the data anew."
        )
    return (
        f"ties that cross the split: {len(leaks)}, for example {example}; in a chain so many pictures look the same "
        "that they can't all stay on one side. If they are of one recording, name it as their group in a listing; if "
        "they show different things that look alike, --set split.near_duplicates=false."
    )
