"""Which image trains, which one chooses and which one judges: a seeded, stratified split."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclf.data.dataset import SPLIT_NAMES, Dataset, Item
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
class _Group:
    """Items with the same bytes: they stay together."""

    members: tuple[int, ...]
    label: int
    stratum: str | None
    split: str | None


def split(dataset: Dataset, *, seed: int, fractions: Fractions = (0.7, 0.2, 0.1)) -> tuple[str, ...]:
    """Assign each item to ``train``, ``val`` or ``test``, stratified by label and, where given, by stratum.

    Items of equal bytes stay together. An item whose listing names a split keeps it; where a listing gives test
    items but no val items, val is taken from train. The same dataset, seed and fractions give the same split
    (scikit-learn's stratified ``train_test_split``).

    ``fractions`` are the shares of train, val and test; they sum to 1, and test may be 0.

    Raises:
        UsageError: the fractions are not shares.
        DataError: too few images for every class to be in every part.
    """
    require_shares(fractions)
    train, val, test = fractions
    groups = _groups(dataset.items)
    names = [group.split for group in groups]
    free = [index for index, name in enumerate(names) if name is None]
    given = {name for name in names if name is not None}
    if free and test > 0 and not given & {"test"}:
        free, chosen = _divide(groups, free, test, seed)
        _assign(names, chosen, "test")
    if "val" not in given:
        pool = free + [index for index, name in enumerate(names) if name == "train"]
        _, chosen = _divide(groups, sorted(pool), val / (train + val), seed)
        _assign(names, chosen, "val")
    result = [""] * len(dataset.items)
    for group, name in zip(groups, names, strict=True):
        for member in group.members:
            result[member] = name or "train"
    _check_parts(dataset, result)
    return tuple(result)


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


def _groups(items: Sequence[Item]) -> list[_Group]:
    members: dict[tuple[str, str | None], list[int]] = {}
    given = {item.digest: item.split for item in items if item.split is not None}
    for index, item in enumerate(items):
        members.setdefault((item.digest, item.split or given.get(item.digest)), []).append(index)
    return [
        _Group(
            members=tuple(indices), label=items[indices[0]].label, stratum=items[indices[0]].stratum, split=group_split
        )
        for (_digest, group_split), indices in members.items()
    ]


def _divide(groups: Sequence[_Group], pool: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return ``pool`` in two sorted parts, the second holding about ``share`` of it, stratified as finely as possible.

    Strata too small to be divided fall back to their label.
    """
    from sklearn.model_selection import train_test_split

    fine = [(groups[index].label, groups[index].stratum) for index in pool]
    counts = Counter(fine)
    keys = [str(key) if counts[key] >= 2 and counts[key] * share >= 1 else str((key[0], None)) for key in fine]
    count = max(1, round(share * len(pool)))
    for stratify in (keys, [str(label) for label, _ in fine]):
        try:
            rest, chosen = train_test_split(pool, test_size=count, stratify=stratify, random_state=seed)
        except ValueError:
            continue
        return sorted(rest), sorted(chosen)
    raise DataError(
        f"{len(pool)} different images in {len(set(fine))} classes or strata are too few to set {share:.0%} aside "
        "with every class in it; add images or make that part of the split larger."
    )


def _check_parts(dataset: Dataset, names: Sequence[str]) -> None:
    present = {(name, item.label) for name, item in zip(names, dataset.items, strict=True)}
    for name in SPLIT_NAMES:
        missing = [label for index, label in enumerate(dataset.labels) if (name, index) not in present]
        if missing and (name != "test" or "test" in names):
            raise DataError(
                f"Every class must be in every part of the split, but {name} has no image of {', '.join(missing)}; "
                "add images of that class, or make that part larger."
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
