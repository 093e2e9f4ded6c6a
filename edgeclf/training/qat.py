"""Quantization-aware training: the network computes as its int8 export will, and learns to live with it.

BatchNorm is folded first, so that the weights that are rounded are those that will be exported (Jacob et al. 2018,
1712.05877, section 3.2). What is saved is the same plain Keras network as ever, with weights that are whole numbers of
steps, which an export rounds to themselves.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models.folding import fold_batch_norm, restore_batch_norm
from edgeclf.models.graph import nodes, origin
from edgeclf.training.backend import compile_options
from edgeclf.training.images import TrainingImages
from edgeclf_device.progress import Progress

if TYPE_CHECKING:
    import keras

QAT = "qat"
"""Name of the phase."""

_OBSERVED_IMAGES = 256
_OBSERVED_BATCH = 32

_MOVING = frozenset(
    {
        *("Cropping2D", "Dropout", "ExpandDims", "Flatten", "GetItem", "GlobalMaxPooling2D", "Identity", "InputLayer"),
        *("MaxPooling2D", "Permute", "RepeatVector", "Reshape", "SpatialDropout2D", "Squeeze", "Transpose"),
        "ZeroPadding2D",
    }
)
"""Classes of operations that only move values, which are rounded already, or fill in zeros, which are exact."""

_HIGHEST_PROBABILITY = 255 / 256
"""int8 holds what softmax and sigmoid give in steps of 1/256, whatever was seen."""


@dataclass(frozen=True, kw_only=True)
class RoundedNetwork:
    """A network that is trained for int8.

    Attributes:
        model: from the image to the logits, rounding; to be trained.
        folded: the plain layers that it computes with, without rounding; they share their weights.
    """

    model: keras.Model = field(repr=False)
    folded: keras.Model = field(repr=False)


def rounded_network(
    network: keras.Model, images: TrainingImages, *, moving_steps: int, seed: int, progress: Progress
) -> RoundedNetwork:
    """Return a copy of ``network``, up to its logits, that rounds weights and activations as an int8 export does.

    Weights of dense and convolutional layers are rounded for each output channel. What an operation gives is rounded
    with one range: the one seen on up to 256 training images, then a moving average of the batches. Not rounded
    are: rescaled pixels, which int8 holds exactly; what only a ReLU or ReLU6 reads, which melts into the operation
    before it; and what an operation only moves. Other layers keep their weights as they are: their outputs are rounded.

    Args:
        network: in the form that ``edgeclf.models.registry`` describes.
        images: their training part is looked at.
        moving_steps: how many steps of training move the ranges.
        seed: of the choice of images.
        progress: shows one step for each batch of them.
    """
    import keras

    from edgeclf.training.rounding_layers import RoundedOutput, RoundedWeights, kernels

    folded = fold_batch_norm(network.input, network.get_layer("logits").output)
    calls = [node for node in nodes(folded) if not node.is_input]
    rounds = _rounding(folded, calls)
    in_turn, numbers = iter(calls), itertools.count()
    wrapped: dict[int, Any] = {}
    observed: list[tuple[Any, Any]] = []

    def rounded(value: Any, plain: Any, operation: Any) -> Any:
        """``value``, which stands for ``plain`` of the folded network."""
        if origin(plain) not in rounds:
            return value
        probability = _gives_probabilities(operation)
        layer = RoundedOutput(moving_steps=0 if probability else moving_steps, name=f"rounded_{next(numbers):03}")
        result = layer(value)
        if probability:
            layer.high.assign(_HIGHEST_PROBABILITY)
        else:
            observed.append((layer, plain))
        return result

    def call(operation: Any, *arguments: Any, **options: Any) -> Any:
        node = next(in_turn)  # clone_model walks the graph as nodes() does
        if kernels(operation) and id(operation) not in wrapped:
            wrapped[id(operation)] = RoundedWeights(operation, name=f"{operation.name}_rounded")
        result = wrapped.get(id(operation), operation)(*arguments, **options)
        values = [rounded(*pair, operation) for pair in zip(keras.tree.flatten(result), node.outputs, strict=True)]
        return keras.tree.pack_sequence_as(result, values)

    model = keras.models.clone_model(folded, clone_function=lambda operation: operation, call_function=call)
    chosen = np.sort(np.random.default_rng(seed).permutation(images.train)[:_OBSERVED_IMAGES])
    _observe(folded, observed, images.pixels, chosen, progress)
    return RoundedNetwork(model=model, folded=folded)


def write_back(trained: RoundedNetwork, network: keras.Model) -> None:
    """Write the trained weights, rounded, into the ``network`` that ``trained`` was made from."""
    from keras import ops

    from edgeclf.training.fake_quantization import rounded_weights
    from edgeclf.training.rounding_layers import kernels

    for layer in trained.folded.layers:
        channels = kernels(layer)
        for variable in layer.weights:
            if id(variable) in channels:
                variable.assign(ops.convert_to_numpy(rounded_weights(variable, channels=channels[id(variable)])))
    restore_batch_norm(trained.folded, network)


def _rounding(folded: keras.Model, calls: list[Any]) -> set[Any]:
    """The origins of the tensors of ``folded`` that int8 gives a range of their own."""
    readers: dict[Any, list[Any]] = defaultdict(list)
    for node in calls:
        for tensor in node.input_tensors:
            readers[origin(tensor)].append(node.operation)
    for tensor in folded.outputs:
        readers[origin(tensor)].append(None)
    return {
        origin(tensor)
        for node in calls
        for tensor in node.outputs
        if tensor.dtype.startswith(("float", "bfloat"))
        and not _keeps_values(node.operation)
        and not all(_is_rectifier(reader) for reader in readers[origin(tensor)])
    }


def _keeps_values(operation: Any) -> bool:
    """Whether what ``operation`` gives has the range of what it is given, or is the pixels."""
    return type(operation).__name__ in _MOVING or operation.name == "rescale" or _activation(operation) == "linear"


def _is_rectifier(operation: Any) -> bool:
    """Whether ``operation`` melts into the one before it."""
    if type(operation).__name__ == "ReLU" and hasattr(operation, "max_value"):
        return operation.max_value in {None, 6} and not operation.negative_slope and not operation.threshold
    return type(operation).__name__ in {"Relu", "Relu6"} or _activation(operation) in {"relu", "relu6"}


def _gives_probabilities(operation: Any) -> bool:
    return type(operation).__name__ in {"Softmax", "Sigmoid"} or _activation(operation) in {"softmax", "sigmoid"}


def _activation(operation: Any) -> str:
    """Name of the function of an ``Activation``; empty for any other layer."""
    return operation.activation.__name__ if type(operation).__name__ == "Activation" else ""


def _observe(
    folded: keras.Model,
    observed: list[tuple[Any, Any]],
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    progress: Progress,
) -> None:
    """Give each layer of ``observed`` the range that its tensor of ``folded`` has on ``pixels[rows]``."""
    import keras
    from keras import ops

    plain = [ops.cast(tensor, "float32") for _, tensor in observed]
    ends = keras.Model(folded.input, ops.stack([ops.stack([ops.min(one), ops.max(one)]) for one in plain]))
    ends.compile(**compile_options())
    starts = range(0, len(rows), _OBSERVED_BATCH)
    seen = np.stack(
        [
            np.asarray(ends.predict_on_batch(pixels[rows[start : start + _OBSERVED_BATCH]]))
            for start in progress(starts, "observing ranges", len(starts))
        ]
    )
    for (layer, _), low, high in zip(observed, seen[:, :, 0].min(axis=0), seen[:, :, 1].max(axis=0), strict=True):
        layer.low.assign(low)
        layer.high.assign(high)
