"""When a measurement has warmed up: the last change of its level lies behind it.

Caches fill, clocks rise and kernels are chosen while a model runs for the first time, in steps rather than gradually
(Barrett et al., "Virtual Machine Warmup Blows Hot and Cold", 2017, who look for change points too).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_BLOCKS = 100
MIN_BLOCKS = 10
"""Fewer blocks can not show a change, nor that there is none."""

SIGNIFICANCE = 0.001
MIN_SHIFT = 0.02
"""A change of the median by less is none: no warm-up ends otherwise."""


def change_point(series: NDArray[np.float64]) -> int | None:
    """Where the level of a series changes most: the index of the first value after it; None where it does not change.

    The rank test of Pettitt, "A Non-Parametric Approach to the Change-Point Problem" (1979), which no outlier misleads,
    and at least ``MIN_SHIFT`` between the medians.

    Args:
        series: float64 (N,), above 0.
    """
    count = len(series)
    if count < MIN_BLOCKS:
        return None
    ranks = series.argsort(kind="stable").argsort(kind="stable") + 1
    places = np.arange(1, count)
    statistic = np.abs(2 * np.cumsum(ranks)[:-1] - places * (count + 1))
    found = int(statistic.argmax())
    if 2 * np.exp(-6 * float(statistic[found]) ** 2 / (count**3 + count**2)) > SIGNIFICANCE:
        return None
    before, after = np.median(series[: found + 1]), np.median(series[found + 1 :])
    return found + 1 if abs(after / before - 1) > MIN_SHIFT else None


def steady(samples_ns: NDArray[np.int64]) -> bool:
    """Whether the second half of the samples holds no change of level.

    Args:
        samples_ns: int64 (N,) in the order taken.
    """
    half = samples_ns[len(samples_ns) // 2 :]
    return len(half) >= MIN_BLOCKS and change_point(block_medians(half)) is None


def block_medians(samples_ns: NDArray[np.int64], blocks: int = MAX_BLOCKS) -> NDArray[np.float64]:
    """float64 (at most ``blocks``,): the medians of neighbouring samples, as many in each; a short rest is left out."""
    size = -(-len(samples_ns) // blocks)
    whole = samples_ns[: len(samples_ns) // size * size] if size else samples_ns
    medians: NDArray[np.float64] = np.median(whole.reshape(-1, max(size, 1)), axis=1)
    return medians
