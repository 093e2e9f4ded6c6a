"""Bias correction of a Keras network, for converters that quantize the weights themselves.

The arithmetic is that of ``edgeclf_calibration.bias_correction``. Imports Keras: runs in the child process alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.bias_correction import rounding_error

MEAN_IMAGES = 64
"""A mean over so many images, each with hundreds of places, hardly moves any more."""


def corrected(network: Any, images: NDArray[Any]) -> Any:
    """A copy of ``network`` whose convolutions are corrected for int8 weights with one scale per output channel.

    The correction goes to a convolution's own bias or, where it has none, to the mean of the batch normalization
    that alone follows it. Scaling a channel, as folding the normalization does, leaves its rounding as it is.

    Args:
        network: a Keras model of one input.
        images: (N, …) of the network's input; the first ``MEAN_IMAGES`` are used.
    """
    import keras

    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    layers = [layer for layer in copy.layers if _target(layer) is not None]
    if not layers:
        return copy
    means = {layer.name: keras.ops.mean(layer.input, axis=(1, 2)) for layer in layers}
    watched = keras.Model(copy.inputs[0], means)
    rows = [watched(image[np.newaxis], training=False) for image in images[:MEAN_IMAGES]]
    for layer in layers:
        channels = np.stack([keras.ops.convert_to_numpy(row[layer.name])[0] for row in rows]).astype(np.float64)
        _correct(layer, np.asarray(channels.mean(axis=0)))
    return copy


def _target(layer: Any) -> tuple[Any, int] | None:
    """The variable that takes the correction of ``layer``, and its sign; None where there is no place for it."""
    import keras

    plain = isinstance(layer, keras.layers.Conv2D) and layer.groups == 1
    if not plain and not isinstance(layer, keras.layers.DepthwiseConv2D):
        return None
    if layer.data_format != "channels_last":
        return None
    if layer.use_bias:
        return layer.bias, -1
    followers = [node.operation for node in layer._outbound_nodes]  # noqa: SLF001 - Keras has no public way to ask
    if len(followers) == 1 and isinstance(followers[0], keras.layers.BatchNormalization):
        return followers[0].moving_mean, 1
    return None


def _correct(layer: Any, mean: NDArray[np.float64]) -> None:
    import keras

    target = _target(layer)
    if target is None:
        return
    variable, sign = target
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        height, width, channels, multiplier = kernel.shape
        error = rounding_error(kernel.reshape(height, width, channels * multiplier), axis=2).sum(axis=(0, 1))
        shift = error * np.repeat(mean, multiplier)
    else:
        shift = mean @ rounding_error(kernel, axis=3).sum(axis=(0, 1))
    variable.assign(keras.ops.convert_to_numpy(variable) + sign * shift.astype(np.float32))
