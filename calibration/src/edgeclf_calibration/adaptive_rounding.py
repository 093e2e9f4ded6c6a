"""Adaptive rounding: weights are rounded up or down so that what a layer gives changes least, not they themselves.

The aim is AdaRound's (Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or Down? Adaptive Rounding for Post-Training
Quantization", 2020): the least squared error of a layer's outputs on calibration images. The way to it needs no
gradients: columns are rounded one after the other, and what each leaves over is taken up by those still to come
(Frantar, Alistarh, "Optimal Brain Compression", 2022; the order and the Cholesky factor are GPTQ's, Frantar et al.,
2022). The mean of the error goes to the bias, so the covariance of a layer's inputs is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.weighted import Change, Weighted, channels_last, patches

NAME = "adaptive-rounding"
"""As it stands in the calibration record."""

PLACES = 64
"""Of each image and layer that are looked at."""

MAX_COLUMNS = 4608
"""A layer with more inputs to one output is rounded to nearest: its matrix would not fit (3 × 3 of 512 channels do)."""

DAMPING = 0.01
"""Share of the mean variance that every input is given in addition, which makes the matrix safe to invert."""

_FLOAT32_NOISE = 1e-5
_BLOCK = 64


@dataclass(kw_only=True)
class _Sums:
    products: NDArray[np.float64]
    values: NDArray[np.float64]
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean (groups, columns) and covariance (groups, columns, columns) of what a layer multiplies."""

    mean: NDArray[np.float64] = field(repr=False)
    covariance: NDArray[np.float64] = field(repr=False)


class InputMoments:
    """Collects the moments of the inputs of ``layers``, from a stream of tensors: an ``Observer``.

    Memory is the square of each layer's columns, whatever the number of images.

    Args:
        layers: as ``weighted_tflite`` or ``weighted_onnx`` gives them.
        container: ``tflite`` or ``onnx``.
    """

    def __init__(self, layers: Sequence[Weighted], container: str) -> None:
        self._layers = [layer for layer in layers if _columns(layer) <= MAX_COLUMNS]
        self._container = container
        self._sums: dict[int, _Sums] = {}
        self._draw = np.random.default_rng(0)

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take in the tensors of one image."""
        places = self._draw.integers(0, 1 << 40, PLACES)
        for layer in self._layers:
            if layer.input not in tensors:
                continue
            rows = patches(channels_last(tensors[layer.input], self._container), layer, places)
            by_group = rows.transpose(1, 0, 2)
            sums = self._sums.get(layer.place)
            if sums is None:
                groups, _, columns = by_group.shape
                sums = _Sums(products=np.zeros((groups, columns, columns)), values=np.zeros((groups, columns)))
                self._sums[layer.place] = sums
            sums.products += by_group.transpose(0, 2, 1) @ by_group
            sums.values += by_group.sum(axis=1)
            sums.count += len(rows)

    def moments(self) -> dict[int, Moments]:
        """The moments of each layer that was seen, by ``Weighted.place``."""
        found = {}
        for place, sums in self._sums.items():
            mean = sums.values / sums.count
            second = sums.products / sums.count
            found[place] = Moments(mean=mean, covariance=second - mean[:, :, None] * mean[:, None, :])
        return found


def adaptively_rounded(layer: Weighted, moments: Moments, *, limit: int = 127) -> Change:
    """The layer's weights, each a multiple of its output channel's int8 step, and the bias that keeps the mean.

    Steps are those of the weights as they are, largest magnitude / ``limit``, and the largest stays the largest: a
    quantizer that rounds the result to nearest finds just these integers.

    Without a place for a bias the error's mean counts too.
    """
    out = len(layer.weights)
    columns = _columns(layer)
    weights = layer.weights.reshape(layer.groups, out // layer.groups, columns).astype(np.float64)
    matrices = moments.covariance
    if layer.bias is None:
        matrices = matrices + moments.mean[:, :, None] * moments.mean[:, None, :]
    largest = np.abs(weights).max(axis=2, keepdims=True)
    steps = np.where(largest > 0, largest, 1) / limit
    # The covariance is a difference of float32 products: what is lost in it must not make it negative.
    noise = _FLOAT32_NOISE * np.square(moments.mean).mean(axis=1)
    rounded = np.stack([_rounded(*one, limit) for one in zip(weights, steps, matrices, noise, strict=True)])
    places = np.abs(weights).argmax(axis=2, keepdims=True)
    signs = np.sign(np.take_along_axis(weights, places, axis=2))
    reached = np.abs(rounded).max(axis=2, keepdims=True) == limit
    kept = np.where(reached, np.take_along_axis(rounded, places, axis=2), limit * signs)
    np.put_along_axis(rounded, places, kept, axis=2)
    made = rounded * steps
    shift = np.einsum("goc,gc->go", made - weights, moments.mean).reshape(-1)
    bias = None if layer.bias is None else layer.bias - shift
    return Change(weights=made.reshape(layer.weights.shape), bias=bias)


def _columns(layer: Weighted) -> int:
    return int(np.prod(layer.weights.shape[1:]))


def _rounded(
    weights: NDArray[np.float64],
    steps: NDArray[np.float64],
    covariance: NDArray[np.float64],
    noise: float,
    limit: int,
) -> NDArray[np.float64]:
    """Integers (out, columns) for weights (out, columns) and steps (out, 1)."""
    variances = np.diagonal(covariance)
    damping = max(float(variances.mean()), 0.0) * DAMPING + noise
    damped = covariance + np.eye(len(covariance)) * (damping or 1.0)
    order = np.argsort(-variances, kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, whole = weights[:, order].copy(), np.empty_like(weights)
    for start in range(0, weights.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weights.shape[1])
        errors = np.empty((len(weights), stop - start))
        for column in range(start, stop):
            whole[:, column] = np.clip(np.rint(left[:, column] / steps[:, 0]), -limit, limit)
            error = (left[:, column] - whole[:, column] * steps[:, 0]) / factor[column, column]
            left[:, column:stop] -= error[:, None] * factor[column, column:stop]
            errors[:, column - start] = error
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    result = np.empty_like(whole)
    result[:, order] = whole
    return result
