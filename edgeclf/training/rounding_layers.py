"""The two Keras layers that a network trained for int8 has more: they round, and are never saved.

A class needs its base when it is defined, so this module imports Keras: import it inside functions alone.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeclf.training.fake_quantization import rounded_activations, rounded_weights

_LEAST_SHARE = 0.01
"""Of each batch in the moving average of a range; a short training has less than a hundred batches to look back on."""


def kernels(layer: Any) -> dict[int, tuple[int, ...]]:
    """The weights of ``layer`` that an int8 export rounds: their axes of output channels, by ``id``.

    Empty for a layer of a kind that is not known here.
    """
    layers = keras.layers
    if isinstance(layer, (layers.Dense, layers.Conv2D)):
        return {id(layer.kernel): (len(layer.kernel.shape) - 1,)}
    if isinstance(layer, layers.DepthwiseConv2D):
        return {id(layer.kernel): (2, 3)}
    if isinstance(layer, layers.Conv2DTranspose):
        return {id(layer.kernel): (2,)}
    if isinstance(layer, layers.SeparableConv2D):
        return {id(layer.depthwise_kernel): (2, 3), id(layer.pointwise_kernel): (3,)}
    return {}


class RoundedWeights(keras.layers.Wrapper):  # type: ignore[misc]  # Keras has no types
    """Calls a layer with its ``kernels`` rounded. Weights are rounded in float32, whatever the layer computes in."""

    def __init__(self, layer: Any, **options: Any) -> None:
        super().__init__(layer, dtype="float32", **options)

    def call(self, inputs: Any) -> Any:
        """What the layer makes of ``inputs``."""
        channels = kernels(self.layer)
        values = [
            (
                variable,
                rounded_weights(variable, channels=channels[id(variable)]) if id(variable) in channels else variable,
            )
            for variable in self.layer.variables
        ]
        with keras.StatelessScope(state_mapping=values):
            return self.layer(inputs)


class RoundedOutput(keras.layers.Layer):  # type: ignore[misc]
    """Rounds what it is given to 256 values.

    Their range is a moving average of what is seen in training, for ``moving_steps`` steps; then it stays. While it
    moves, a batch that reaches further is not cut off: what saturates has no gradient, and where all of it does, as
    logits may that rounding before them has changed, nothing would ever be learnt.
    """

    def __init__(self, *, moving_steps: int, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.moving_steps = moving_steps
        self.share = max(_LEAST_SHARE, min(1.0, 10 / max(1, moving_steps)))

    def build(self, _input_shape: Any) -> None:
        """Make the range, and the count of the steps that are done."""
        self.low = self.add_weight(shape=(), initializer="zeros", trainable=False, name="low")
        self.high = self.add_weight(shape=(), initializer="zeros", trainable=False, name="high")
        self.steps = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="steps")

    def compute_output_spec(self, values: Any, **_options: Any) -> Any:
        """The same shape, in float32."""
        return keras.KerasTensor(values.shape, dtype="float32")

    def call(self, values: Any, *, training: bool = False) -> Any:
        """``values``, rounded."""
        if not (training and self.moving_steps):
            return rounded_activations(values, self.low, self.high)
        moves = self.steps < self.moving_steps
        share = ops.where(moves, self.share, 0.0)
        seen = ops.min(values), ops.max(values)
        self.low.assign(self.low + share * (seen[0] - self.low))
        self.high.assign(self.high + share * (seen[1] - self.high))
        self.steps.assign(self.steps + 1)
        low, high = ops.convert_to_tensor(self.low), ops.convert_to_tensor(self.high)
        low, high = ops.where(moves, ops.minimum(low, seen[0]), low), ops.where(moves, ops.maximum(high, seen[1]), high)
        return rounded_activations(values, low, high)
