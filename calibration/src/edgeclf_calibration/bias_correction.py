"""Bias correction: rounding weights to int8 shifts the mean of what a layer gives; the bias takes the shift back.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (2019), section 4.2, with the mean input of each channel measured on calibration images instead of derived
from batch normalization. Padding is passed over: at the border the input is taken to have its mean too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.weighted import Change, Weighted, changed_onnx, weighted_onnx

NAME = "bias-correction"
"""As it stands in the calibration record."""


class ChannelMeans:
    """Mean of every tensor's channels, from a stream of tensors: an ``Observer``.

    Args:
        axis: of the channels: 1 in .onnx, -1 in .tflite.
    """

    def __init__(self, *, axis: int = 1) -> None:
        self._axis = axis
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take in the tensors of one image; those with fewer than two axes have no channels."""
        for name, values in tensors.items():
            if values.ndim < 2:
                continue
            axes = tuple(axis for axis in range(values.ndim) if axis != self._axis % values.ndim)
            mean = values.mean(axis=axes, dtype=np.float64)
            self._sums[name] = self._sums.get(name, np.zeros_like(mean)) + mean
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, NDArray[np.float64]]:
        """(channels,) for each tensor."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def rounded(
    weights: NDArray[np.floating[Any]], *, axis: int, limit: int = 127
) -> tuple[NDArray[np.int8], NDArray[np.floating[Any]]]:
    """Round to int8, symmetric, from -``limit`` to ``limit``, with one scale for each index of ``axis``.

    Returns:
        int8 of the shape of ``weights``; scales of their dtype and number of axes, 1 long but for ``axis``.
    """
    others = tuple(one for one in range(weights.ndim) if one != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / weights.dtype.type(limit)
    return np.rint(weights / scale).astype(np.int8), scale


def rounding_error(weights: NDArray[np.floating[Any]], *, axis: int, limit: int = 127) -> NDArray[np.float64]:
    """What ``rounded`` adds to ``weights``."""
    wide = weights.astype(np.float64)
    whole, scale = rounded(wide, axis=axis, limit=limit)
    return np.asarray(whole * scale - wide)


def correction(layer: Weighted, mean: NDArray[np.float64], *, limit: int = 127) -> Change:
    """The layer with a bias that takes back what rounding its weights to nearest will shift.

    Args:
        layer: with a bias.
        mean: (in,) of each channel that it reads.
        limit: the largest magnitude of a weight, in steps.
    """
    taps = rounding_error(layer.weights, axis=0, limit=limit).sum(axis=(1, 2))
    by_group = taps.reshape(layer.groups, -1, taps.shape[1])
    shift = np.einsum("goi,gi->go", by_group, mean.reshape(layer.groups, -1)).reshape(-1)
    return Change(weights=layer.weights, bias=None if layer.bias is None else layer.bias - shift)


def corrections(
    layers: Sequence[Weighted], means: Mapping[str, NDArray[np.float64]], *, limit: int = 127
) -> dict[int, Change]:
    """``correction`` of every convolution with a bias whose input has a mean, by ``Weighted.place``."""
    return {
        layer.place: correction(layer, means[layer.input], limit=limit)
        for layer in layers
        if not layer.dense and layer.bias is not None and layer.input in means
    }


def corrected(model: bytes, means: Mapping[str, NDArray[np.float64]]) -> bytes:
    """The model with the bias of every convolution corrected for int8 weights.

    Args:
        model: .onnx bytes; result of ``optimised``.
        means: channel means of the convolutions' inputs, by the names in ``model``; where one is missing, that
            convolution stays as it is.

    Raises:
        DependencyError: onnx is not installed.
    """
    return changed_onnx(model, corrections(weighted_onnx(model), means))
