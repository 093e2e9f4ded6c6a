"""Equalization: a channel that is always small is scaled up in one layer and down in the next, as one scale rounds all.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (2019), section 4.1, here with the channels' sizes measured on calibration images. Weights have a scale for
each output channel, so only activations gain; and only what a depthwise convolution alone reads is scaled, since each
of its channels has a scale of its own again: nothing is lost in return. A rectifier that clips at a fixed value then
clips a scaled channel at the largest value seen in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.weighted import Change, Weighted, channels_last

NAME = "equalization"
"""As it stands in the calibration record."""

MAX_FACTOR = 64.0
"""A channel is scaled by no more: what is smaller still is as good as nothing."""


class ChannelPeaks:
    """Largest magnitude of every channel of every tensor, from a stream of tensors: an ``Observer``."""

    def __init__(self, container: str) -> None:
        self._container = container
        self.peaks: dict[str, NDArray[np.floating[Any]]] = {}

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take in the tensors of one image; only images of channels, (1, …, …, …), have any."""
        for name, values in tensors.items():
            if values.ndim == 4 and values.size:
                peaks = np.abs(channels_last(values, self._container)).max(axis=(0, 1, 2))
                self.peaks[name] = np.maximum(self.peaks[name], peaks) if name in self.peaks else peaks


def equalized(layers: Sequence[Weighted], peaks: Mapping[str, NDArray[np.floating[Any]]]) -> dict[int, Change]:
    """New weights and biases, by ``Weighted.place``, of each pair of layers between which channels are scaled.

    Args:
        layers: of one file.
        peaks: of the tensors between them, by name.
    """
    changed: dict[int, tuple[NDArray[Any], NDArray[Any] | None]] = {
        layer.place: (layer.weights, layer.bias) for layer in layers
    }
    touched = set()
    for first in layers:
        second = next((layer for layer in layers if layer.input == first.output), None)
        depthwise = second is not None and second.groups == len(second.weights) == len(first.weights)
        known = first.output in peaks and first.bias is not None and first.read_once
        if second is None or not depthwise or not known:
            continue
        factors = _factors(peaks[first.output])
        weights, bias = changed[first.place]
        changed[first.place] = (weights * factors[:, None, None, None], None if bias is None else bias * factors)
        weights, bias = changed[second.place]
        changed[second.place] = (weights / factors[:, None, None, None], bias)
        touched |= {first.place, second.place}
    return {place: Change(weights=changed[place][0], bias=changed[place][1]) for place in touched}


def _factors(peaks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What each channel is multiplied by; 1 where nothing was ever seen in it."""
    sizes = peaks.astype(np.float64)
    return np.where(sizes > 0, np.clip(sizes.max() / np.where(sizes > 0, sizes, 1), 1, MAX_FACTOR), 1.0)
