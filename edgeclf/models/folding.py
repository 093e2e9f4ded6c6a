"""Folds inference-mode BatchNorm into the convolution before it: the same function, faster, and safe to fine-tune.

For y = γ (conv(x) − μ) / √(σ² + ε) + β the convolution's filters are scaled by γ / √(σ² + ε) per output channel,
and its bias b becomes β + (b − μ) γ / √(σ² + ε) (Jacob et al. 2018, 1712.05877, section 3.2).

Why fine-tuning needs it: with frozen statistics the factor γ / √(σ² + ε) only multiplies every change of a filter.
In EfficientNet-Lite0 it goes from 0.1 to 46, so one learning rate is too small for some channels and destroys
others; folded, every filter has the scale of what it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models.graph import nodes, origin, producer

if TYPE_CHECKING:
    import keras


def fold_batch_norm(inputs: Any, outputs: Any) -> keras.Model:
    """Return a copy of the functional graph from ``inputs`` to ``outputs`` without BatchNorm where that can be.

    A BatchNorm is folded where it is all that reads a linear convolution. Any other stays, frozen. Layers keep their
    names and weights, and are called as they were.
    """
    import keras

    source = keras.Model(inputs, outputs)
    pairs = _pairs(source)
    convolutions = {id(conv) for conv, _ in pairs}
    absorbed = {id(batch_norm) for _, batch_norm in pairs}

    def copy(layer: Any) -> Any:
        if id(layer) in absorbed:
            return layer
        config = layer.get_config()
        if id(layer) in convolutions:
            config["use_bias"] = True
        if isinstance(layer, keras.layers.BatchNormalization):
            config["trainable"] = False
        return type(layer).from_config(config)

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        return arguments[0] if id(layer) in absorbed else layer(*arguments, **options)

    folded = keras.models.clone_model(source, clone_function=copy, call_function=call)
    for conv, batch_norm in pairs:
        folded.get_layer(conv.name).set_weights(_merged(conv, batch_norm))
    _copy_weights(source, folded, but={layer.name for pair in pairs for layer in pair})
    return folded


def restore_batch_norm(folded: keras.Model, model: keras.Model) -> None:
    """Write the weights of ``folded``, made by ``fold_batch_norm`` from a part of ``model``, back into that part.

    A convolution takes the folded filters, and its BatchNorm becomes the addition of the folded bias
    (γ = 1, β = bias, μ = 0, σ² = 1 − ε): the same function, up to float32 rounding. The part must not end between
    a convolution and its BatchNorm.
    """
    names = {layer.name for layer in folded.layers}
    pairs = [
        (conv, batch_norm) for conv, batch_norm in _pairs(model) if conv.name in names and batch_norm.name not in names
    ]
    for conv, batch_norm in pairs:
        kernel, bias = folded.get_layer(conv.name).get_weights()
        conv.set_weights([kernel, np.zeros_like(bias)] if conv.use_bias else [kernel])
        _make_addition(batch_norm, bias)
    _copy_weights(folded, model, but={conv.name for conv, _ in pairs})


def _pairs(model: keras.Model) -> list[tuple[Any, Any]]:
    """Return every convolution of ``model`` that a BatchNorm can be folded into, with it."""
    from keras import layers

    calls = nodes(model)
    called = [id(node.operation) for node in calls]
    read = [origin(tensor) for node in calls for tensor in node.input_tensors]
    read += [origin(tensor) for tensor in model.outputs]
    pairs = []
    for node in calls:
        if not isinstance(node.operation, layers.BatchNormalization):
            continue
        tensor = node.input_tensors[0]
        conv = producer(tensor)
        once = called.count(id(node.operation)) == called.count(id(conv)) == read.count(origin(tensor)) == 1
        if once and _is_linear(conv) and node.operation.axis in (-1, 3):
            pairs.append((conv, node.operation))
    return pairs


def _is_linear(layer: Any) -> bool:
    """Whether ``layer`` is a convolution with its channels last and nothing after it."""
    from keras import activations, layers

    is_conv = isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D))
    return is_conv and layer.data_format == "channels_last" and layer.activation is activations.linear


def _merged(conv: Any, batch_norm: Any) -> list[NDArray[np.float32]]:
    """Return filters and bias of the two layers as one convolution."""
    from keras import layers

    kernel, *biases = conv.get_weights()
    mean, variance = (np.asarray(value) for value in (batch_norm.moving_mean, batch_norm.moving_variance))
    scale = 1 / np.sqrt(variance + batch_norm.epsilon)
    if batch_norm.scale:
        scale *= np.asarray(batch_norm.gamma)
    bias = (sum(biases) - mean) * scale
    if batch_norm.center:
        bias += np.asarray(batch_norm.beta)
    by_output = scale.reshape(kernel.shape[2:]) if isinstance(conv, layers.DepthwiseConv2D) else scale
    return [kernel * by_output, bias]


def _make_addition(batch_norm: Any, bias: NDArray[np.float32]) -> None:
    """Let ``batch_norm`` add ``bias`` and do nothing else."""
    zero, one = np.zeros_like(bias), np.ones_like(bias)
    if batch_norm.scale:
        batch_norm.gamma.assign(one)
    if batch_norm.center:
        batch_norm.beta.assign(bias)
    batch_norm.moving_mean.assign(zero if batch_norm.center else -bias)
    batch_norm.moving_variance.assign(one - batch_norm.epsilon)


def _copy_weights(source: keras.Model, target: keras.Model, *, but: set[str]) -> None:
    for layer in source.layers:
        if layer.weights and layer.name not in but:
            target.get_layer(layer.name).set_weights(layer.get_weights())
