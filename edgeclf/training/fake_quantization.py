"""Rounding to int8 and back in float, through which a gradient passes: what an int8 export will compute, trainable.

The arithmetic is that of both int8 formats (``edgeclf_calibration.tflite_int8`` and ``onnx_int8``). Rounding has no
gradient of use, so it counts as the identity, the straight-through estimator (Bengio et al. 2013, 1308.3432); a value
that saturates has the gradient zero (Jacob et al. 2018, 1712.05877, section 3). Keras operations alone: any backend.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgeclf_calibration.tflite_int8 import LEAST_WIDTH

_LOWEST, _HIGHEST = -128, 127


def rounded_weights(kernel: Any, *, channels: Collection[int]) -> Any:
    """Weights as int8 holds them: a whole number from -127 to 127 of steps, one step for each output channel.

    The largest magnitude in a channel is 127 of its steps, so rounding what is rounded changes nothing.

    Args:
        kernel: float32, of any shape.
        channels: its axes that count the output channels, from 0.

    Returns:
        float32, of the same shape, with the gradient of ``kernel``.
    """
    from keras import ops

    inside = tuple(axis for axis in range(len(kernel.shape)) if axis not in channels)
    largest = ops.max(ops.abs(kernel), axis=inside, keepdims=True)
    step = ops.maximum(largest, LEAST_WIDTH) / _HIGHEST
    return _straight_through(kernel, ops.round(kernel / step) * step)


def rounded_activations(values: Any, low: Any, high: Any) -> Any:
    """Values as int8 holds them: one of 256, evenly spaced, of which 0 is one.

    Args:
        values: float32, of any shape.
        low: the smallest value that was seen, a float32 scalar; above 0 it counts as 0.
        high: the largest, a float32 scalar; below 0 it counts as 0.

    Returns:
        float32, of the same shape; its gradient is that of ``values`` inside the range and 0 outside.
    """
    from keras import ops

    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    step = ops.maximum(high - low, LEAST_WIDTH) / (_HIGHEST - _LOWEST)
    zero_point = ops.round(_LOWEST - low / step)
    # The range itself comes from values that were seen, and is no way for a gradient.
    ends = (ops.stop_gradient(step * (limit - zero_point)) for limit in (_LOWEST, _HIGHEST))
    inside = ops.clip(values, *ends)
    return _straight_through(inside, step * ops.round(inside / step))


def _straight_through(values: Any, rounded: Any) -> Any:
    """``rounded`` with the gradient of ``values``."""
    from keras import ops

    return values + ops.stop_gradient(rounded - values)
