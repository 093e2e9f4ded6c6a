"""Ranges of a network's tensors, estimated as the tensors stream by: memory does not grow with the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import ModelError

LEAST_WEIGHT = 0.01
"""Of one image in a moving average."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The real values that a quantized tensor must be able to stand for, ``low`` to ``high``, both finite.

    Zero need not be between them: every quantizer widens a range to it, because padding must be exact.
    """

    low: float
    high: float


class Observer(Protocol):
    """Is shown the tensors inside a network, image by image."""

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take in the tensors of one image, by name, of any shape."""


class Estimator(Observer, Protocol):
    """Turns a stream of tensors into one range for each. ``name`` stands in the calibration record."""

    name: str

    def ranges(self) -> dict[str, Range]:
        """The range of every tensor seen so far."""


class MinMax:
    """The smallest and the largest value seen: nothing is ever clipped, and one outlier widens the range."""

    name = "min-max"

    def __init__(self) -> None:
        self._ranges: dict[str, Range] = {}

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """See ``Estimator.update``.

        Raises:
            ModelError: a tensor holds a NaN or an infinity.
        """
        for name, _, seen in checked(tensors):
            self._ranges[name] = widened(self._ranges.get(name), seen)

    def ranges(self) -> dict[str, Range]:
        """See ``Estimator.ranges``."""
        return dict(self._ranges)


class MovingAverage:
    """The average of each image's smallest and largest value, an exponential one: the order of the images matters.

    The n-th image that shows a tensor moves its range by 1/n of the difference, and never by less than
    ``LEAST_WEIGHT``; so the first hundred count alike, and the first alone does not rule a short calibration.
    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference" (2017), section 3.1.
    """

    name = "moving-average"

    def __init__(self) -> None:
        self._images: dict[str, int] = {}
        self._ranges: dict[str, Range] = {}

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """See ``Estimator.update``.

        Raises:
            ModelError: a tensor holds a NaN or an infinity.
        """
        for name, _, seen in checked(tensors):
            self._images[name] = self._images.get(name, 0) + 1
            weight, known = max(LEAST_WEIGHT, 1 / self._images[name]), self._ranges.get(name, seen)
            self._ranges[name] = Range(
                low=(1 - weight) * known.low + weight * seen.low, high=(1 - weight) * known.high + weight * seen.high
            )

    def ranges(self) -> dict[str, Range]:
        """See ``Estimator.ranges``."""
        return dict(self._ranges)


class FirstImages:
    """Shows another observer the first ``count`` images alone: what half of a calibration would have found."""

    def __init__(self, count: int, observer: Observer) -> None:
        self._left, self._observer = count, observer

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """See ``Observer.update``."""
        if self._left > 0:
            self._observer.update(tensors)
            self._left -= 1


def checked(
    tensors: Mapping[str, NDArray[np.floating[Any]]],
) -> Iterator[tuple[str, NDArray[np.float32], Range]]:
    """Name, float32 values and exact range of each tensor that is not empty.

    Raises:
        ModelError: a tensor holds a NaN or an infinity, or a value that float32 can't hold.
    """
    for name, given in tensors.items():
        if given.size == 0:
            continue
        with np.errstate(over="ignore"):
            values = given.astype(np.float32, copy=False)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ModelError(
                f"Calibration needs finite values, but the tensor {name!r} holds NaN or infinity; "
                "look for a diverged training and train again."
            )
        yield name, values, Range(low=low, high=high)


def widened(known: Range | None, seen: Range) -> Range:
    """The smallest range that holds both."""
    return seen if known is None else Range(low=min(known.low, seen.low), high=max(known.high, seen.high))
