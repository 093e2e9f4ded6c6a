"""Which image trains, which one chooses and which one judges: a seeded, stratified split."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclf.data.dataset import SPLIT_NAMES, Dataset
from edgeclf.data.units import divide, units_of
from edgeclf_device.atomic import write_text
from edgeclf_device.errors import DataError, ModelError, UsageError

Fractions = tuple[float, float, float]

_COLUMNS = ("path", "label", "split", "sha256")


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """One line of splits.csv."""

    path: str
    label: str
    split: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Two images that belong together but lie in different parts.

    Attributes:
        kind: ``equal bytes``, ``group`` or ``near duplicate``.
        first, second: their paths.
        parts: where they are.
    """

    kind: str
    first: str
    second: str
    parts: tuple[str, str]


def split(
    dataset: Dataset, *, seed: int, fractions: Fractions = (0.7, 0.2, 0.1), near: Sequence[tuple[int, int]] = ()
) -> tuple[str, ...]:
    """Assign each item to ``train``, ``val`` or ``test``, stratified by label and, where given, by stratum.

    Items of equal bytes, of one group, and the pairs ``near`` (indices, the most alike first) stay together. An item
    whose listing or folder names a split keeps it; where test items are given but no val items, val is taken from
    train. The same arguments give the same split.

    ``fractions`` are the shares of train, val and test; they sum to 1, and test may be 0.

    Raises:
        UsageError: the fractions are not shares.
        DataError: too few images for every class to be in every part.
    """
    require_shares(fractions)
    train, val, test = fractions
    units = units_of(dataset.items, near)
    names = [unit.split for unit in units]
    free = [index for index, name in enumerate(names) if name is None]
    given = {name for name in names if name is not None}
    if free and test > 0 and not given & {"test"}:
        free, chosen = divide(units, free, test, seed)
        _assign(names, chosen, "test")
    if "val" not in given:
        pool = free + [index for index, name in enumerate(names) if name == "train"]
        _, chosen = divide(units, sorted(pool), val / (train + val), seed)
        _assign(names, chosen, "val")
    result = [""] * len(dataset.items)
    for unit, name in zip(units, names, strict=True):
        for member in unit.members:
            result[member] = name or "train"
    _check_parts(dataset, result)
    return tuple(result)


def leaks(dataset: Dataset, names: Sequence[str], near: Sequence[tuple[int, int]] = ()) -> tuple[Leak, ...]:
    """Find what belongs together but lies in different parts: one record for each pair of parts and kind of tie."""
    found: list[Leak] = []

    def add(kind: str, first: int, second: int) -> None:
        items = dataset.items
        parts = (names[first], names[second])
        found.append(Leak(kind=kind, first=items[first].path, second=items[second].path, parts=parts))

    for kind, key in (("equal bytes", "digest"), ("group", "group")):
        first_of: dict[str, dict[str, int]] = {}
        for index, item in enumerate(dataset.items):
            value = getattr(item, key)
            if value is not None:
                first_of.setdefault(value, {}).setdefault(names[index], index)
        for places in first_of.values():
            first, *others = places.values()
            for other in others:
                add(kind, first, other)
    for first, second in near:
        if names[first] != names[second] and dataset.items[first].digest != dataset.items[second].digest:
            add("near duplicate", first, second)
    return tuple(found)


def require_shares(fractions: Fractions) -> None:
    """Check shares of train, val and test.

    Raises:
        UsageError: train or val is not positive, test is negative, or they do not sum to 1.
    """
    train, val, test = fractions
    if not (train > 0 and val > 0 and test >= 0 and abs(train + val + test - 1) <= 1e-6):
        raise UsageError(f"split.train, split.val and split.test must be positive and sum to 1, but are {fractions}.")


def _assign(names: list[str | None], chosen: Sequence[int], name: str) -> None:
    for index in chosen:
        names[index] = name


def _check_parts(dataset: Dataset, names: Sequence[str]) -> None:
    present = {(name, item.label) for name, item in zip(names, dataset.items, strict=True)}
    given = {item.split for item in dataset.items}
    for name in SPLIT_NAMES:
        missing = [label for index, label in enumerate(dataset.labels) if (name, index) not in present]
        if missing and (name != "test" or "test" in names):
            remedy = (
                f"put images of each into {name}, where you have divided the data, or remove the class from every part"
                if name in given
                else "add images of that class (in further groups, where you name groups), or make that part larger"
            )
            raise DataError(
                f"Every class must be in every part of the split, but {name} has no image of {', '.join(missing)}; "
                f"{remedy}."
            )


def write_splits(path: Path, dataset: Dataset, names: Sequence[str]) -> None:
    """Write splits.csv: path, label, split and sha256 of every item, in UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for item, name in zip(dataset.items, names, strict=True):
        writer.writerow((item.path, dataset.labels[item.label], name, item.digest))
    write_text(path, text.getvalue())


def read_splits(path: Path) -> tuple[SplitRow, ...]:
    """Read a splits.csv.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise ModelError(f"{path} must have the columns {', '.join(_COLUMNS)}; train again.")
            rows = tuple(SplitRow(**{column: row[column] or "" for column in _COLUMNS}) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"{path} can't be read ({error}); train again.") from error
    if not rows or any(row.split not in SPLIT_NAMES or not row.path or not row.label for row in rows):
        raise ModelError(f"{path} is incomplete; train again.")
    return rows
