"""When a measurement has warmed up: the last change of its level lies behind it.

Caches fill, clocks rise and kernels are chosen while a model runs for the first time, in steps rather than gradually
(Barrett et al., "Virtual Machine Warmup Blows Hot and Cold", 2017, who look for change points too).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCKS = 40
"""So few that each is long: what disturbs single frames and their neighbours does not show in the medians."""

MIN_BLOCKS = 24
"""Fewer blocks can not show a change: none would be significant."""

SIGNIFICANCE = 0.001
MIN_SHIFT = 0.02
"""A change of the median by less is none: no warm-up ends otherwise."""


def change_point(series: NDArray[np.float64]) -> int | None:
    """Where the level of a series changes most: the index of the first value after it; None where it does not change.

    The rank test of Pettitt, "A Non-Parametric Approach to the Change-Point Problem" (1979), which no outlier misleads,
    and at least ``MIN_SHIFT`` between the medians.

    Args:
        series: float64 (N,), above 0: medians of blocks; the test takes neighbours for independent.
    """
    count = len(series)
    if count < MIN_BLOCKS:
        return None
    ranks = series.argsort(kind="stable").argsort(kind="stable") + 1
    statistic = np.abs(2 * np.cumsum(ranks)[:-1] - np.arange(1, count) * (count + 1))
    if 2 * np.exp(-6 * float(statistic.max()) ** 2 / (count**3 + count**2)) > SIGNIFICANCE:
        return None
    place = int(statistic.argmax()) + 1
    before, after = np.median(series[:place]), np.median(series[place:])
    return place if abs(after / before - 1) > MIN_SHIFT else None


def steady(samples_ns: NDArray[np.int64]) -> bool:
    """Whether the second half of the samples shows no change of level; fewer than 2 × ``MIN_BLOCKS`` show none.

    Args:
        samples_ns: int64 (N,) in the order taken.
    """
    return change_point(block_medians(samples_ns[len(samples_ns) // 2 :])) is None


def block_medians(samples_ns: NDArray[np.int64], *, least: int = 1) -> NDArray[np.float64]:
    """float64 (at most ``BLOCKS``,): the medians of as many samples each, at least ``least``; a rest is left out."""
    size = max(least, -(-len(samples_ns) // BLOCKS))
    medians: NDArray[np.float64] = np.median(samples_ns[: len(samples_ns) // size * size].reshape(-1, size), axis=1)
    return medians
