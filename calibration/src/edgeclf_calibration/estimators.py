"""Estimators that clip: they read a histogram of each tensor and give up rare large values for finer steps.

What is searched is the range of asymmetric uint8: 256 levels, zero among them. Values of exactly zero are left out of
every search: a quantized zero is exact, whatever the range.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.histograms import Histogram, Histograms
from edgeclf_calibration.ranges import Estimator, MinMax, MovingAverage, Observer, Range
from edgeclf_device.errors import UsageError

STEPS = 255
"""Between the 256 levels of uint8."""

ROUNDS = 4
"""At most, of searching one end after the other: it stops when neither moves."""


class Cost(Protocol):
    """What it costs to quantize one tensor."""

    def __call__(self, low: float, high: float) -> float:
        """With the range ``low`` to ``high``, zero between them or at an end, and not empty."""


class _FromHistograms(ABC):
    """Reads each range from a histogram; several can share ``Histograms``, which alone are then shown the tensors."""

    def __init__(self, histograms: Histograms | None = None) -> None:
        self._histograms = Histograms() if histograms is None else histograms

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """See ``Estimator.update``.

        Raises:
            ModelError: a tensor holds a NaN or an infinity.
        """
        self._histograms.update(tensors)

    def ranges(self) -> dict[str, Range]:
        """See ``Estimator.ranges``."""
        return {name: self._range(histogram) for name, histogram in self._histograms.items()}

    @abstractmethod
    def _range(self, histogram: Histogram) -> Range: ...


class Percentile(_FromHistograms):
    """Clips as many values as it may: a share of ``tail`` at each end, to within the width of one bin.

    Source: Wu, Judd, Zhang, Isaev, Micikevicius, "Integer Quantization for Deep Learning Inference: Principles and
    Empirical Evaluation" (2020), section 5, whose 99.99 % is the default.

    Raises:
        UsageError: ``tail`` is not from 0 to below 0.5.
    """

    name = "percentile"

    def __init__(self, histograms: Histograms | None = None, *, tail: float = 1e-4) -> None:
        super().__init__(histograms)
        if not 0 <= tail < 0.5:
            raise UsageError(f"The share of values to clip at each end must be 0 to below 0.5, not {tail}; try 0.0001.")
        self._tail = tail

    def _range(self, histogram: Histogram) -> Range:
        clipped = int(self._tail * int(histogram.counts.sum()))
        low = np.searchsorted(histogram.counts.cumsum(), clipped, side="right")
        high = np.searchsorted(histogram.counts[::-1].cumsum(), clipped, side="right")
        return Range(
            low=max(float(histogram.lows[low]), histogram.seen.low),
            high=min(float(histogram.highs[::-1][high]), histogram.seen.high),
        )


class Entropy(_FromHistograms):
    """Minimises the Kullback-Leibler divergence of the quantized distribution from the one seen; always holds zero.

    Source: Migacz, "8-bit Inference with TensorRT" (GTC 2017), here with both ends free, and with bins as fine as
    the data asks for in the place of 2048 equal ones: those leave nothing to search after one far outlier.
    """

    name = "entropy"

    def _range(self, histogram: Histogram) -> Range:
        return _cheapest(histogram, _divergence)


class MeanSquaredError(_FromHistograms):
    """Minimises the mean squared error of quantizing, which rounding and clipping share; always holds zero.

    Source: Banner, Nahshan, Hoffer, Soudry, "Post-Training 4-bit Quantization of Convolution Networks for
    Rapid-Deployment" (2019), with the histogram in the place of its Gaussian or Laplacian.
    """

    name = "mse"

    def _range(self, histogram: Histogram) -> Range:
        return _cheapest(histogram, _squared_error)


ESTIMATORS: Mapping[str, Callable[[], Estimator]] = MappingProxyType(
    {
        MinMax.name: MinMax,
        MovingAverage.name: MovingAverage,
        Percentile.name: Percentile,
        Entropy.name: Entropy,
        MeanSquaredError.name: MeanSquaredError,
    }
)
"""Every estimator with its defaults, by its name in the calibration record."""


def sharing(names: Sequence[str]) -> tuple[dict[str, Estimator], tuple[Observer, ...]]:
    """(estimators by name, what must be shown the tensors in their place): those that read histograms share theirs."""
    histograms = Histograms()
    readers: dict[str, Callable[[Histograms], Estimator]] = {
        kind.name: kind for kind in (Percentile, Entropy, MeanSquaredError)
    }
    made = {name: readers[name](histograms) if name in readers else ESTIMATORS[name]() for name in names}
    alone = tuple(one for name, one in made.items() if name not in readers)
    return made, alone if len(alone) == len(made) else (*alone, histograms)


def _cheapest(histogram: Histogram, cost_of: Callable[[Histogram], Cost]) -> Range:
    """The range that holds zero and costs least, its ends at the edges of bins, found one end after the other."""
    seen = histogram.seen
    highs = np.minimum(_ends(histogram.lows, histogram.highs, histogram.counts), max(seen.high, 0.0)).tolist()
    mirrored = _ends(-histogram.highs[::-1], -histogram.lows[::-1], histogram.counts[::-1])
    lows = np.maximum(0.0 - mirrored, min(seen.low, 0.0)).tolist()
    low, high = lows[0], highs[0]
    if lows[-1] == highs[-1]:
        return Range(low=low, high=high)
    cost = cost_of(_searchable(histogram, width=(highs[-1] - lows[-1]) / STEPS))
    for _ in range(ROUNDS):
        before = low, high
        high = _best(highs, partial(cost, low))
        low = _best(lows, partial(cost, high=high))
        if (low, high) == before:
            break
    return Range(low=low, high=high)


def _ends(lows: NDArray[np.float64], highs: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where a range may end above zero: at each bin from the last down to the median positive value; else at 0."""
    positive = lows > 0
    upper = 2 * np.cumsum(counts[positive]) >= counts[positive].sum()
    return highs[positive][upper][::-1] if upper.any() else np.zeros(1)


def _best(ends: list[float], cost: Callable[[float], float]) -> float:
    """The end of least cost, the widest of equals: every so many are tried, then all beside the best of those."""
    stride = max(1, math.isqrt(len(ends)))
    rough = min(range(0, len(ends), stride), key=lambda at: cost(ends[at]))
    fine = range(max(0, rough - stride + 1), min(len(ends), rough + stride))
    return ends[min(fine, key=lambda at: cost(ends[at]))]


def _searchable(histogram: Histogram, *, width: float) -> Histogram:
    """Without zeros, and with the bins beside zero merged until each is ``width`` wide, or a little less."""
    width = 2.0 ** math.floor(math.log2(width))  # a power of two, so that each bin falls into one
    kept = (histogram.lows > 0) | (histogram.highs < 0)
    lows, highs = histogram.lows[kept], histogram.highs[kept]
    narrow = highs - lows < width
    lows = np.where(narrow, np.floor(lows / width) * width, lows)
    highs = np.where(narrow, lows + width, highs)
    first = np.flatnonzero(np.diff(lows, prepend=-np.inf))
    counts = np.add.reduceat(histogram.counts[kept], first)
    return Histogram(lows=lows[first], highs=highs[first], counts=counts, seen=histogram.seen)


def _divergence(histogram: Histogram) -> Cost:
    """Of the quantized distribution from all values, those outside the range clipped into its last bins.

    Quantized means that the values of a level are spread over the bins in it by their widths. Not so in the levels at
    the ends, where rectifiers and the like put many equal values: the end of a range is exact.
    """
    widths = histogram.highs - histogram.lows
    centres = np.clip((histogram.lows + histogram.highs) / 2, histogram.seen.low, histogram.seen.high)
    counts = histogram.counts.astype(np.float64)
    total = float(counts.sum())

    def cost(low: float, high: float) -> float:
        start, stop = np.searchsorted(centres, low, side="left"), np.searchsorted(centres, high, side="right")
        if start == stop:
            return math.inf
        held = counts[start:stop]
        level = np.rint(centres[start:stop] * (STEPS / (high - low))).astype(np.int64)
        at_an_end = (level != 0) & ((level == level[0]) | (level == level[-1]))
        weights = np.where(at_an_end, held, widths[start:stop])
        level -= level[0]
        spread = np.bincount(level, held)[level] * weights / np.bincount(level, weights)[level]
        clipped = held.copy()
        clipped[0] += counts[:start].sum()
        clipped[-1] += counts[stop:].sum()
        return float(np.sum(clipped * np.log(clipped * held.sum() / (spread * total)))) / total

    return cost


def _squared_error(histogram: Histogram) -> Cost:
    """Summed over all values, taken to lie evenly within each bin."""
    lows = np.maximum(histogram.lows, histogram.seen.low)
    highs = np.minimum(histogram.highs, histogram.seen.high)
    highs = np.maximum(highs, lows + np.abs(lows) * 2.0**-20)  # many equal values at an end: a bin without width
    density = histogram.counts / (highs - lows)

    def cost(low: float, high: float) -> float:
        step = (high - low) / STEPS
        zero = np.rint(-low / step)

        def integral(ends: NDArray[np.float64]) -> NDArray[np.float64]:
            steps = ends / step
            inside = np.clip(steps, -zero, STEPS - zero)
            level = np.rint(inside)
            rounded, beyond = inside - level, steps - inside
            return level / 12 + (rounded * rounded * rounded + beyond * beyond * beyond) / 3

        return float(np.sum(density * (integral(highs) - integral(lows)))) * step**3

    return cost
