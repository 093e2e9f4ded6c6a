"""Which images calibrate a model: a seeded, stratified choice that does not depend on the order of the listing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclf_device.errors import DataError, UsageError

METHOD = "stratified"
MAX_LISTED = 512
"""A record names every image up to this many; beyond, the digest of the list alone."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images that were chosen.

    Attributes:
        method, seed: how; the same images, method and seed give the same choice.
        indices: places in the sequences given to ``choose``.
        digests: SHA-256 of each chosen image, in the order of ``indices``.
        per_class: how many of each label.
    """

    method: str
    seed: int
    indices: tuple[int, ...]
    digests: tuple[str, ...]
    per_class: Mapping[str, int]

    @property
    def count(self) -> int:
        """How many images were chosen."""
        return len(self.indices)

    def to_json(self, *, estimator: str) -> dict[str, Any]:
        """The manifest's ``calibration`` object; ``estimator`` names how ranges were made from the images."""
        record: dict[str, Any] = {
            "method": self.method,
            "seed": self.seed,
            "images": self.count,
            "per_class": dict(self.per_class),
            "estimator": estimator,
            "images_sha256": hashlib.sha256("\n".join(self.digests).encode()).hexdigest(),
        }
        if self.count <= MAX_LISTED:
            record["digests"] = list(self.digests)
        return record


def choose(labels: Sequence[str], digests: Sequence[str], *, count: int, seed: int) -> Selection:
    """Choose ``count`` images to calibrate with, each class in proportion to its share.

    Pass the training split only: an image that calibrates a model can't also judge it. Each class gets the share
    that the largest-remainder method gives it, and at least one image where ``count`` allows. Within a class the
    images with the smallest SHA-256 of seed and digest are taken, so a listing in another order gives the same
    choice; the same image listed twice is taken once.

    Args:
        labels: label of each image.
        digests: SHA-256 of each image, in the same order.
        count: how many to choose; all of them where there are fewer.
        seed: another seed, another choice.

    Raises:
        UsageError: ``count`` is below 1, or the two sequences differ in length.
        DataError: there is no image.
    """
    if count < 1:
        raise UsageError(f"The number of calibration images must be at least 1, but it is {count}.")
    if len(labels) != len(digests):
        raise UsageError(f"Each image needs a label and a digest, but there are {len(labels)} and {len(digests)}.")
    if not labels:
        raise DataError("Calibration needs images, but the training split is empty; add images or change the split.")
    members: dict[str, dict[str, int]] = defaultdict(dict)
    for index, (label, digest) in enumerate(zip(labels, digests, strict=True)):
        members[label].setdefault(digest, index)
    shares = _shares({label: len(images) for label, images in members.items()}, count)
    chosen: list[tuple[str, int]] = []
    for label, share in shares.items():
        chosen += sorted(members[label].items(), key=lambda item: _rank(seed, item[0]))[:share]
    chosen.sort(key=lambda item: _rank(seed, item[0]))
    return Selection(
        method=METHOD,
        seed=seed,
        indices=tuple(index for _, index in chosen),
        digests=tuple(digest for digest, _ in chosen),
        per_class=shares,
    )


def _rank(seed: int, digest: str) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()


def _shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many to take of each class, by largest remainder (Hamilton), in the order of the labels."""
    labels, total = sorted(sizes), sum(sizes.values())
    count = min(count, total)
    shares = {label: sizes[label] * count // total for label in labels}
    by_remainder = sorted(labels, key=lambda label: (-(sizes[label] * count % total), label))
    for label in by_remainder[: count - sum(shares.values())]:
        shares[label] += 1
    if count < len(labels):
        return shares
    for label in labels:
        if shares[label] == 0:
            largest = max(labels, key=lambda other: (shares[other], other))
            shares[largest] -= 1
            shares[label] = 1
    return shares
