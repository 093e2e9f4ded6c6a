"""Folds inference-mode BatchNorm into the convolution before it: the same function, faster, and safe to fine-tune.

For y = γ (conv(x) − μ) / √(σ² + ε) + β the convolution's filters are scaled by γ / √(σ² + ε) per output channel,
and its bias becomes β − μ γ / √(σ² + ε) (Jacob et al. 2018, 1712.05877, section 3.2).

Why fine-tuning needs it: with frozen statistics the factor γ / √(σ² + ε) only multiplies every change of a filter.
In EfficientNet-Lite0 it goes from 0.1 to 46, so one learning rate is too small for some channels and destroys
others; folded, every filter has the scale of what it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def fold_batch_norm(inputs: Any, outputs: Any) -> keras.Model:
    """Return a copy of the functional graph from ``inputs`` to ``outputs`` without BatchNorm.

    Layers keep their names. Every BatchNorm must follow a convolution without bias or activation, as in
    ``edgeclf.models.efficientnet_lite``.
    """
    import keras

    source = keras.Model(inputs, outputs)
    folded = {id(conv): batch_norm for conv, batch_norm in _pairs(source)}
    start = keras.Input(batch_shape=inputs.shape, dtype=inputs.dtype)
    made: dict[int, Any] = {id(inputs): start}

    def make(tensor: Any) -> Any:
        if id(tensor) not in made:
            layer, tensors = _origin(tensor)
            arguments = [make(one) for one in tensors]
            made[id(tensor)] = _copy(layer, folded.get(id(layer)), arguments)
        return made[id(tensor)]

    return keras.Model(start, make(outputs))


def restore_batch_norm(folded: keras.Model, model: keras.Model) -> None:
    """Write the weights of ``folded``, made by ``fold_batch_norm`` from a part of ``model``, back into that part.

    A convolution takes the folded filters, and its BatchNorm becomes the addition of the folded bias
    (γ = 1, β = bias, μ = 0, σ² = 1 − ε): the same function, up to float32 rounding.
    """
    names = {layer.name for layer in folded.layers}
    pairs = [(conv, batch_norm) for conv, batch_norm in _pairs(model) if conv.name in names]
    for conv, batch_norm in pairs:
        kernel, bias = folded.get_layer(conv.name).get_weights()
        conv.set_weights([kernel])
        one = np.ones_like(bias)
        batch_norm.set_weights([one, bias, np.zeros_like(bias), one - batch_norm.epsilon])
    done = {conv.name for conv, _ in pairs}
    for layer in folded.layers:
        if layer.weights and layer.name not in done:
            model.get_layer(layer.name).set_weights(layer.get_weights())


def _pairs(model: keras.Model) -> list[tuple[Any, Any]]:
    """Return every convolution of ``model`` that a BatchNorm follows, with it."""
    from keras import layers

    return [(_origin(one.input)[0], one) for one in model.layers if isinstance(one, layers.BatchNormalization)]


def _origin(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the layer that made ``tensor`` and what it made it from."""
    layer, node_index, _ = tensor._keras_history  # noqa: SLF001 - Keras has no public way to walk a graph
    return layer, layer._inbound_nodes[node_index].input_tensors  # noqa: SLF001


def _copy(layer: Any, batch_norm: Any | None, arguments: list[Any]) -> Any:
    """Call a copy of ``layer`` that includes ``batch_norm``; a BatchNorm itself is left out."""
    from keras import layers

    argument = arguments if len(arguments) > 1 else arguments[0]
    if isinstance(layer, layers.BatchNormalization):
        return argument
    if batch_norm is None:
        copy = type(layer).from_config(layer.get_config())
        result = copy(argument)
        copy.set_weights(layer.get_weights())
        return result
    gamma, beta, mean, variance = batch_norm.get_weights()
    scale = gamma / np.sqrt(variance + batch_norm.epsilon)
    (kernel,) = layer.get_weights()
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    copy = type(layer).from_config({**layer.get_config(), "use_bias": True})
    result = copy(argument)
    copy.set_weights([kernel * (scale[:, None] if depthwise else scale), beta - mean * scale])
    return result
