"""Which images calibrate a model: a choice by one of four methods that does not depend on the order of the listing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.coverage import farthest_first, widest_first
from edgeclf_device.errors import DataError, UsageError

METHODS = ("random", "stratified", "k-center", "extreme")
DEFAULT_METHOD = "stratified"

LOOKING = frozenset({"k-center", "extreme"})
"""Methods that must run the network over every image they choose from, and that no seed changes."""

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


def choose(
    labels: Sequence[str] | None,
    digests: Sequence[str],
    *,
    count: int,
    seed: int,
    method: str = DEFAULT_METHOD,
    embeddings: NDArray[np.floating[Any]] | None = None,
    minima: NDArray[np.floating[Any]] | None = None,
    maxima: NDArray[np.floating[Any]] | None = None,
) -> Selection:
    """Choose ``count`` images to calibrate with.

    Pass the training split only: an image that calibrates a model can't also judge it. The methods:

    - ``random``: the images with the smallest SHA-256 of seed and digest; labels have no say.
    - ``stratified``: each class gets the share that the largest-remainder method gives it, and at least one image
      where ``count`` allows; within a class as ``random``.
    - ``k-center``: images far apart in ``embeddings``, see ``coverage.farthest_first``; the seed has no say.
    - ``extreme``: images that hold the smallest and the largest activations, see ``coverage.widest_first``; the seed
      has no say.

    A listing in another order gives the same choice, and the same image listed twice is taken once. With every method
    but ``stratified`` a smaller ``count`` gives the beginning of the same choice.

    Args:
        labels: label of each image; None where there are none, which ``stratified`` can't do with.
        digests: SHA-256 of each image, in the same order; equal digests have equal rows below.
        count: how many to choose; all of them where there are fewer.
        seed: another seed, another choice.
        method: one of ``METHODS``; what it doesn't need may be passed and isn't looked at.
        embeddings: float32 (N, D), one row for each image.
        minima, maxima: float32 (N, T), smallest and largest value of each tensor in each image, as
            ``coverage.Extremes`` collects them.

    Raises:
        UsageError: ``count`` is below 1, the method is unknown or lacks what it needs, or lengths differ.
        DataError: there is no image, or a row holds a NaN or an infinity.
    """
    if count < 1:
        raise UsageError(f"The number of calibration images must be at least 1, but it is {count}.")
    if labels is not None and len(labels) != len(digests):
        raise UsageError(f"Each image needs a label and a digest, but there are {len(labels)} and {len(digests)}.")
    if not digests:
        raise DataError("Calibration needs images, but the training split is empty; add images or change the split.")
    images = _different(labels, digests)
    count = min(count, len(images))
    ranked = sorted(images, key=lambda index: _rank(seed, digests[index]))
    if method == "random":
        indices = ranked[:count]
    elif method == "stratified":
        indices = _stratified(labels, ranked, count)
    elif method == "k-center":
        rows = _rows(embeddings, "embeddings", method, images, len(digests))
        indices = [images[row] for row in farthest_first(rows, count)]
    elif method == "extreme":
        low = _rows(minima, "minima", method, images, len(digests))
        high = _rows(maxima, "maxima", method, images, len(digests))
        _require_ordered(low, high)
        indices = [images[row] for row in widest_first(low, high, count)]
    else:
        raise UsageError(f"The method must be one of {', '.join(METHODS)}, but it is {method!r}.")
    of_class = Counter(labels[index] for index in indices) if labels is not None else Counter[str]()
    return Selection(
        method=method,
        seed=seed,
        indices=tuple(indices),
        digests=tuple(digests[index] for index in indices),
        per_class={label: of_class[label] for label in sorted(set(labels or ()))},
    )


def _different(labels: Sequence[str] | None, digests: Sequence[str]) -> list[int]:
    """One index for each image, in the order of the digests; the least label wins where an image has several."""
    first: dict[str, int] = {}
    for index in sorted(range(len(digests)), key=lambda index: (digests[index], labels[index] if labels else "")):
        first.setdefault(digests[index], index)
    return list(first.values())


def _stratified(labels: Sequence[str] | None, ranked: Sequence[int], count: int) -> list[int]:
    if labels is None:
        raise UsageError("The method stratified needs labels, but there are none; choose another with method=.")
    left = _shares(Counter(labels[index] for index in ranked), count)
    chosen = []
    for index in ranked:
        if left[labels[index]] > 0:
            left[labels[index]] -= 1
            chosen.append(index)
    return chosen


def _rows(
    values: NDArray[np.floating[Any]] | None, name: str, method: str, images: Sequence[int], listed: int
) -> NDArray[np.float32]:
    """The rows of ``images``, in that order: an order of the listing must not reach the arithmetic."""
    if values is None:
        raise UsageError(f"The method {method} needs {name}=, one row for each image, but it is None.")
    if values.ndim != 2 or len(values) != listed or values.shape[1] == 0:
        raise UsageError(f"{name} must be ({listed}, at least 1), a row for each image, but it is {values.shape}.")
    rows = np.asarray(values[list(images)], np.float32)
    if not np.isfinite(rows).all():
        raise DataError(
            f"{name} must be finite, but a row holds NaN or infinity; look for a diverged training and train again."
        )
    return rows


def _require_ordered(low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
    if low.shape != high.shape:
        raise UsageError(f"minima and maxima must be of the same tensors, but are {low.shape[1]} and {high.shape[1]}.")
    if (low > high).any():
        raise UsageError("minima must not be above maxima, but some are; look whether the two changed places.")


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
