"""Ranges of a network's tensors, estimated as the tensors stream by: memory does not grow with the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Range:
    """The real values that a quantized tensor must be able to stand for, ``low`` to ``high``, both finite."""

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
        for name, values in tensors.items():
            if values.size == 0:
                continue
            low, high = float(values.min()), float(values.max())
            if not np.isfinite(low) or not np.isfinite(high):
                raise ModelError(
                    f"Calibration needs finite values, but the tensor {name!r} holds NaN or infinity; "
                    "look for a diverged training and train again."
                )
            known = self._ranges.get(name)
            self._ranges[name] = Range(
                low=low if known is None else min(low, known.low), high=high if known is None else max(high, known.high)
            )

    def ranges(self) -> dict[str, Range]:
        """See ``Estimator.ranges``."""
        return dict(self._ranges)
