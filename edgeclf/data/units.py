"""What is divided: units of items that belong together, and how a set of them is divided in two by images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeclf.data.dataset import SPLIT_NAMES, Item
from edgeclf_device.errors import DataError

LARGEST_UNIT = 0.05
"""Share of all images that near duplicates may join to one unit."""

_Key = tuple[int | None, str | None]
"""A class and a stratum, a class (with None), or everything (None and None)."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Items that stay together: of equal bytes, of one group, or near duplicates of each other.

    Attributes:
        members: their indices.
        pictures: how many of them have different bytes.
        label, stratum: of the first of them.
        counts: how many of them are of each class and stratum, of each class, and in all.
        split: the part that was given for them.
    """

    members: tuple[int, ...]
    pictures: int
    label: int
    stratum: str | None
    counts: Counter[_Key]
    split: str | None


def units_of(items: Sequence[Item], near: Sequence[tuple[int, int]]) -> list[Unit]:
    """Join what belongs together, in the order of the items.

    ``near`` are pairs of indices, the most alike first; they are not joined beyond ``LARGEST_UNIT``: pictures alike in
    a chain would become one unit that can't be divided. Where parts were given, they divide a unit again, and items
    without one follow the first of them.
    """
    roots = _roots(items, near)
    given: dict[int, set[str]] = {}
    for root, item in zip(roots, items, strict=True):
        if item.split is not None:
            given.setdefault(root, set()).add(item.split)
    followed = {root: min(parts, key=SPLIT_NAMES.index) for root, parts in given.items()}
    members: dict[tuple[int, str | None], list[int]] = {}
    for index, (root, item) in enumerate(zip(roots, items, strict=True)):
        members.setdefault((root, item.split or followed.get(root)), []).append(index)
    return [_unit(items, indices, part) for (_, part), indices in members.items()]


def _unit(items: Sequence[Item], indices: Sequence[int], part: str | None) -> Unit:
    counts: Counter[_Key] = Counter()
    for index in indices:
        label, stratum = items[index].label, items[index].stratum
        counts.update({(label, stratum), (label, None), (None, None)})
    return Unit(
        members=tuple(indices),
        pictures=len({items[index].digest for index in indices}),
        label=items[indices[0]].label,
        stratum=items[indices[0]].stratum,
        counts=counts,
        split=part,
    )


def _roots(items: Sequence[Item], near: Sequence[tuple[int, int]]) -> list[int]:
    """One item for all that belong together, for each item."""
    from scipy.cluster.hierarchy import DisjointSet

    joined = DisjointSet(range(len(items)))
    for key in ("digest", "group"):
        first: dict[str, int] = {}
        for index, item in enumerate(items):
            value = getattr(item, key)
            if value is not None:
                joined.merge(first.setdefault(value, index), index)
    largest = max(2, LARGEST_UNIT * len(items))
    for one, other in near:
        if not joined.connected(one, other) and joined.subset_size(one) + joined.subset_size(other) <= largest:
            joined.merge(one, other)
    return [joined[index] for index in range(len(items))]


def divide(units: Sequence[Unit], pool: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return ``pool`` in two sorted parts, the second holding about ``share`` of it, stratified as finely as possible.

    Raises:
        DataError: too few.
    """
    if all(units[index].pictures == 1 for index in pool):
        divided = _divide_singles(units, pool, share, seed)
    else:
        divided = _divide_by_images(units, pool, share, seed)
    if divided is None:
        kinds = {(units[index].label, units[index].stratum) for index in pool}
        raise DataError(
            f"{len(pool)} different images or groups in {len(kinds)} classes or strata are too few to set {share:.0%} "
            "aside with every class in it; add images or make that part of the split larger."
        )
    return divided


def _divide_singles(
    units: Sequence[Unit], pool: list[int], share: float, seed: int
) -> tuple[list[int], list[int]] | None:
    """Divide units of one picture each: scikit-learn's stratified ``train_test_split``.

    Strata too small to be divided fall back to their label.
    """
    from sklearn.model_selection import train_test_split

    fine = [(units[index].label, units[index].stratum) for index in pool]
    counts = Counter(fine)
    keys = [str(key) if counts[key] >= 2 and counts[key] * share >= 1 else str((key[0], None)) for key in fine]
    count = max(1, round(share * len(pool)))
    for stratify in (keys, [str(label) for label, _ in fine]):
        try:
            rest, chosen = train_test_split(pool, test_size=count, stratify=stratify, random_state=seed)
        except ValueError:
            continue
        return sorted(rest), sorted(chosen)
    return None


def _divide_by_images(
    units: Sequence[Unit], pool: list[int], share: float, seed: int
) -> tuple[list[int], list[int]] | None:
    """Divide units of several pictures so that the share holds by images, in all, in each class and in each stratum.

    Greedily, the largest unit first, each goes where Pearson's chi-square distance of the counts from the wanted ones
    becomes least. scikit-learn's group splitters can't do it: they make folds of equal size.
    """
    totals: Counter[_Key] = Counter()
    smallest: dict[_Key, int] = {}
    for index in pool:
        for key, count in units[index].counts.items():
            totals[key] += count
            smallest[key] = min(count, smallest.get(key, count))
    aside = {key: share * total for key, total in totals.items()}
    classes = [key for key in totals if key[0] is not None and key[1] is None]
    for key in classes:
        aside[key] = max(aside[key], smallest[key])  # in every class at least one unit
    aside[None, None] = max(aside[None, None], sum(aside[key] for key in classes))
    wanted = ({key: total - aside[key] for key, total in totals.items()}, aside)
    lacking = tuple(dict(one) for one in wanted)
    parts: tuple[list[int], list[int]] = ([], [])
    shuffled = np.random.default_rng(seed).permutation(np.array(pool)).tolist()
    for index in sorted(shuffled, key=lambda index: -len(units[index].members)):
        counts = units[index].counts
        gains = [
            sum(count * (left[key] - count / 2) / max(whole[key], 0.5) for key, count in counts.items())
            for whole, left in zip(wanted, lacking, strict=True)
        ]
        side = int(gains[1] > gains[0])
        parts[side].append(index)
        for key, count in counts.items():
            lacking[side][key] -= count
    return (sorted(parts[0]), sorted(parts[1])) if all(parts) else None
