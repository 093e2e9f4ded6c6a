"""Histograms of a network's tensors in bins that float32 itself draws: they never grow, and no count is ever split.

A bin is a sign, an exponent and the first seven bits of the fraction: the upper 16 of a float32's 32 bits. So its width
is 1/256 to 1/128 of its values, from 1e-38 to 3e38 alike; counts are exact, the order of images changes nothing, and an
outlier of 1e30 leaves the other values as sharp as they were, where bins of equal width would all run into one.
Source of relative bins: Masson, Rim, Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
Guarantees" (2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.ranges import Range, checked, widened

BINS = 1 << 16
CHUNK_VALUES = 1 << 17
"""Counted at a time: the indices of a chunk stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """The bins of one tensor that hold values, in ascending order.

    Args:
        lows: float64 (bins,), the lower edges; a bin never spans zero, and the smallest ones touch it.
        highs: float64 (bins,), the upper edges.
        counts: int64 (bins,), how many values lie in each, at least 1.
        seen: smallest and largest value, exactly.
    """

    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    counts: NDArray[np.int64]
    seen: Range


class Histograms(Mapping[str, Histogram]):
    """An ``Observer`` that counts every value of every tensor: 512 KiB a tensor, whatever the number of images."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._seen: dict[str, Range] = {}

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Count the values of one image.

        Raises:
            ModelError: a tensor holds a NaN or an infinity.
        """
        for name, values, seen in checked(tensors):
            self._seen[name] = widened(self._seen.get(name), seen)
            if name not in self._counts:
                self._counts[name] = np.zeros(BINS, np.int64)
            counts = self._counts[name]
            bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
            for start in range(0, bits.size, CHUNK_VALUES):
                found = np.bincount(bits[start : start + CHUNK_VALUES] >> 16)
                counts[: found.size] += found

    def __getitem__(self, name: str) -> Histogram:
        counts = self._counts[name]
        positive = np.flatnonzero(counts[: BINS // 2])
        negative = np.flatnonzero(counts[BINS // 2 :])[::-1]
        return Histogram(
            lows=np.concatenate([-_edge(negative + 1), _edge(positive)]),
            highs=np.concatenate([-_edge(negative), _edge(positive + 1)]),
            counts=np.concatenate([counts[negative + BINS // 2], counts[positive]]),
            seen=self._seen[name],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


def _edge(bins: NDArray[np.intp]) -> NDArray[np.float64]:
    """Smallest magnitude of each bin, counted from zero: (bins,) to (bins,); the last bin ends where float32 does."""
    edges = (bins.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.minimum(edges, 2.0**128)
