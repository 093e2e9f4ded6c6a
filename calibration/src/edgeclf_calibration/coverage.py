"""Which few of many images stand for all: those far apart in an embedding, or those at the ends of the ranges.

Both walks give the images in the order of their choice, so the first 32 of 512 are the choice of 32; where several do
equally well, the first row wins. Neither is random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

RARE = 0.01
"""Share of the images, and always one at least, that has no say in how wide a tensor's range is."""

_BLOCK_ROWS = 1024


class Extremes:
    """Smallest and largest value of each tensor in each image, the same tensors in all: an ``Observer``."""

    def __init__(self) -> None:
        self._minima: list[list[float]] = []
        self._maxima: list[list[float]] = []

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take in the tensors of one image; those without a value are passed over."""
        shown = [values for values in tensors.values() if values.size]
        self._minima.append([float(values.min()) for values in shown])
        self._maxima.append([float(values.max()) for values in shown])

    def minima(self) -> NDArray[np.float32]:
        """(images, tensors), in the order in which they were shown."""
        return np.array(self._minima, np.float32)

    def maxima(self) -> NDArray[np.float32]:
        """(images, tensors), in the order in which they were shown."""
        return np.array(self._maxima, np.float32)


def farthest_first(points: NDArray[np.float32], count: int) -> list[int]:
    """Rows that leave no point far from all of them: the one nearest the mean, then always the one farthest from those.

    The largest distance of a point to its nearest chosen one is at most twice what the best ``count`` rows reach.
    Time is O(count · N · D); beyond ``points`` it needs 1024 rows of memory and one number for each point.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985); for choosing images, Sener and
    Savarese, "Active learning for convolutional neural networks: a core-set approach" (2018).

    Args:
        points: float32 (N, D), finite; distances are Euclidean.
        count: 1 to N.
    """
    chosen = [int(_squared_distances(points, points.mean(axis=0, dtype=np.float64).astype(np.float32)).argmin())]
    gaps = np.full(len(points), np.inf, np.float32)
    while len(chosen) < count:
        np.minimum(gaps, _squared_distances(points, points[chosen[-1]]), out=gaps)
        gaps[chosen[-1]] = -1  # no copy of it is nearer
        chosen.append(int(gaps.argmax()))
    return chosen


def _squared_distances(points: NDArray[np.float32], center: NDArray[np.float32]) -> NDArray[np.float32]:
    squared = np.empty(len(points), np.float32)
    for start in range(0, len(points), _BLOCK_ROWS):
        away = points[start : start + _BLOCK_ROWS] - center
        np.einsum("nd,nd->n", away, away, out=squared[start : start + _BLOCK_ROWS])
    return squared


def widest_first(minima: NDArray[np.float32], maxima: NDArray[np.float32], count: int) -> list[int]:
    """Rows that together cover the tensors' ranges: always the one that adds most, summed over all ends of all ranges.

    What an image adds at an end of a tensor's range is measured as a share of that range. When no image adds
    anything, the walk begins again with the rest: the next images in line at each end.

    An absurd image is chosen, early: it is what this method looks for, and an estimator that clips has to deal with
    it. But it doesn't blind the walk to the others: a range is as wide as it is without the ``RARE`` images at either
    end, and from the second round on the absurd one plays no part.

    Before the second round the cover is at least 1 − 1/e of what the best ``count`` rows reach (Nemhauser, Wolsey and
    Fisher, "An analysis of approximations for maximizing submodular set functions", 1978). Time is O(count · N · T).

    Args:
        minima, maxima: float32 (N, T), finite: smallest and largest value of each tensor in each image.
        count: 1 to N.
    """
    ends = _shares(minima, maxima)
    covered = np.zeros(ends.shape[1], np.float32)
    added = np.empty_like(ends)
    chosen: list[int] = []
    while len(chosen) < count:
        np.subtract(ends, covered, out=added)
        gains = np.maximum(added, 0, out=added).sum(axis=1)
        gains[chosen] = -1
        best = int(gains.argmax())
        if gains[best] == 0 and covered.any():
            covered[:] = 0
            continue
        chosen.append(best)
        np.maximum(covered, ends[best], out=covered)
    return chosen


def _shares(minima: NDArray[np.float32], maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each image reaches towards the upper and the lower end of each range: (N, 2 T), 0 for the least far."""
    high = np.quantile(maxima, 1 - RARE, axis=0, method="lower")
    low = np.quantile(minima, RARE, axis=0, method="higher")
    # What only rare images excite has no width without them.
    widths = np.where(high > low, high - low, maxima.max(axis=0) - minima.min(axis=0))
    scales = np.where(widths > 0, widths, 1)
    upper, lower = (maxima - maxima.min(axis=0)) / scales, (minima.max(axis=0) - minima) / scales
    return np.concatenate([upper, lower], axis=1, dtype=np.float32)
