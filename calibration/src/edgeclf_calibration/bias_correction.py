"""Bias correction: rounding weights to int8 shifts the mean of what a layer gives; the bias takes the shift back.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (2019), section 4.2, with the mean input of each channel measured on calibration images instead of derived
from batch normalization. Padding is passed over: at the border the input is taken to have its mean too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_onnx
from edgeclf_calibration.tflite_file import add_constant, operators, packed, read_file

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


def rounded(weights: NDArray[np.floating[Any]], *, axis: int) -> tuple[NDArray[np.int8], NDArray[np.floating[Any]]]:
    """Round to int8, symmetric, from -127 to 127, with one scale for each index of ``axis``.

    Returns:
        int8 of the shape of ``weights``; scales of their dtype and number of axes, 1 long but for ``axis``.
    """
    others = tuple(one for one in range(weights.ndim) if one != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / weights.dtype.type(127)
    return np.rint(weights / scale).astype(np.int8), scale


def rounding_error(weights: NDArray[np.floating[Any]], *, axis: int) -> NDArray[np.float64]:
    """What ``rounded`` adds to ``weights``."""
    wide = weights.astype(np.float64)
    whole, scale = rounded(wide, axis=axis)
    return np.asarray(whole * scale - wide)


def corrected(model: bytes, means: Mapping[str, NDArray[np.float64]]) -> bytes:
    """The model with the bias of every convolution corrected for int8 weights.

    Args:
        model: .onnx bytes; result of ``optimised``.
        means: channel means of the convolutions' inputs, by the names in ``model``; where one is missing, that
            convolution stays as it is.

    Raises:
        DependencyError: onnx is not installed.
    """
    onnx = import_onnx()
    proto = onnx.load_from_string(model)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        has_bias = len(node.input) == 3 and node.input[2] in tensors
        if node.op_type != "Conv" or not has_bias or node.input[0] not in means or node.input[1] not in tensors:
            continue
        bias = tensors[node.input[2]]
        error = rounding_error(onnx.numpy_helper.to_array(tensors[node.input[1]]), axis=0)
        values = onnx.numpy_helper.to_array(bias) - _shift(error, means[node.input[0]])
        bias.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), bias.name))
    result: bytes = proto.SerializeToString()
    return result


def corrected_tflite(model: bytes, means: Mapping[str, NDArray[np.float64]]) -> bytes:
    """As ``corrected``, for fp32 .tflite bytes; ``means`` has the channels on the last axis.

    Raises:
        DependencyError: ai-edge-litert is not installed.
        ModelError: the bytes are no TensorFlow Lite model.
    """
    file = read_file(model)
    (graph,) = file.subgraphs
    for number, step in enumerate(operators(file)):
        if step.kind not in _WEIGHTS_OF or len(step.inputs) != 3 or step.inputs[0].name not in means:
            continue
        weights, bias = step.inputs[1].values, step.inputs[2].values
        if weights is None or bias is None or not step.inputs[1].is_float:
            continue
        error = rounding_error(_WEIGHTS_OF[step.kind](weights), axis=0)
        values = bias - _shift(error, means[step.inputs[0].name])
        graph.operators[number].inputs[2] = add_constant(file, step.inputs[2], values.astype(np.float32))
    return packed(file)


def _depthwise_first(weights: NDArray[Any]) -> NDArray[Any]:
    """(1, height, width, out) as (out, 1, height, width)."""
    return np.moveaxis(weights, 3, 0)


def _channels_second(weights: NDArray[Any]) -> NDArray[Any]:
    """(out, height, width, in) as (out, in, height, width)."""
    return np.moveaxis(weights, 3, 1)


_WEIGHTS_OF = {"CONV_2D": _channels_second, "DEPTHWISE_CONV_2D": _depthwise_first}
"""The operators that are corrected, and how to order their weights as .onnx files do, (out, in / groups, …)."""


def _shift(error: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift of each output channel's mean; ``error`` is (out, in / groups, …) and ``mean`` (in,)."""
    taps = error.reshape(*error.shape[:2], -1).sum(axis=2)
    groups = len(mean) // taps.shape[1]
    by_group = taps.reshape(groups, -1, taps.shape[1])
    return np.asarray(np.einsum("goi,gi->go", by_group, mean.reshape(groups, -1)).reshape(-1))
