"""Makes any ``.keras`` or SavedModel classifier take uint8 pixels. Imports TensorFlow: for the child process alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeclf.exporting.convention import Convention, require_classes, require_identity
from edgeclf.exporting.untrusted import check_keras_file, check_saved_model
from edgeclf_device.errors import ModelError, first_line

_ENDPOINTS = ("serve", "serving_default")


def load_keras(path: Path) -> Any:
    """The model of a ``.keras`` file; nothing in it is executed.

    Raises:
        ModelError: the file is damaged or holds code.
    """
    import keras

    check_keras_file(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model) or not model.inputs:
            raise TypeError("it is no model with a stated input")  # noqa: TRY301 - said as any other fault
    except Exception as error:  # Keras raises whatever the damaged part caused
        raise ModelError(f"{path} can't be loaded as a Keras model ({first_line(error)}); save it again.") from error
    return model


def load_saved_model(path: Path, shape: tuple[int, ...]) -> Any:
    """The graph of a SavedModel as a Keras model of one layer.

    Raises:
        ModelError: the folder is damaged, or its graph has an operator that TensorFlow lacks, no endpoint for one image
            or more than one output.
    """
    import keras

    check_saved_model(path)
    try:
        layer, dtype = _graph_layer(path)
        image = keras.Input(shape, dtype=dtype)
        answers = keras.tree.flatten(layer(image))
    except Exception as error:  # TensorFlow raises whatever the damaged part caused
        raise ModelError(
            f"{path} can't be loaded as a SavedModel that takes (1, {', '.join(map(str, shape))}) images "
            f"({first_line(error)}); custom operators are not loaded, a damaged folder must be copied again."
        ) from error
    return keras.Model(image, answers)


def from_pixels(model: Any, shape: tuple[int, ...], classes: int, convention: Convention) -> Any:
    """A Keras model that takes uint8 (1, H, W, C) pixels and answers probabilities, layer by layer the given one.

    Raises:
        ModelError: the model has other inputs or outputs than a classifier of ``classes`` for ``shape``.
    """
    import keras

    _check(model, shape, classes)
    takes_pixels = str(model.inputs[0].dtype) == "uint8"
    if takes_pixels:
        require_identity(convention)
    image = keras.Input(shape, dtype="uint8", name="image")
    given: list[Any] = []

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        is_image = bool(arguments) and arguments[0] is image
        if is_image and isinstance(layer, keras.layers.Rescaling):  # two of them in a row would round twice in int8
            scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
            return _values(image, convention.then(scale, offset))
        if is_image and not given:
            given.append(image if takes_pixels else _values(image, convention))
        arguments = tuple(given[0] if one is image else one for one in arguments)
        return layer(*arguments, **options)

    network = keras.Model(model.inputs[0], model.outputs[0])  # of a Sequential too, which can't be taken apart
    copy = keras.models.clone_model(network, input_tensors=image, call_function=call)
    for layer in (one for one in network.layers if one.weights):
        copy.get_layer(layer.name).set_weights(layer.get_weights())
    if not convention.logits:
        return copy
    return keras.Model(copy.inputs[0], keras.layers.Softmax(name="edgeclf_scores")(copy.outputs[0]))


def _graph_layer(path: Path) -> tuple[Any, str]:
    """A layer that runs the graph of a SavedModel, and can be copied; the type of its input."""
    import keras
    import tensorflow as tf

    class Graph(keras.layers.TFSMLayer):  # type: ignore[misc] # untyped
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            # Keras refuses to copy a layer that names a SavedModel; this one is loaded already.
            return cls(**config)

    signatures = tf.saved_model.load(str(path)).signatures
    endpoint = next((one for one in _ENDPOINTS if one in signatures), None)
    if endpoint is None:
        raise ValueError(f"it must have the signature {' or '.join(_ENDPOINTS)}, but it has {list(signatures)}")
    (image,) = signatures[endpoint].structured_input_signature[1].values()
    return Graph(str(path), call_endpoint=endpoint), image.dtype.name


def _values(image: Any, convention: Convention) -> Any:
    """What the network takes: by the quantization of the input where that can say it, else by a convolution of 1×1."""
    import keras

    if convention.is_quantization:
        return keras.layers.Rescaling(convention.scale[0], offset=convention.offset[0], name="edgeclf_scale")(image)
    channels = len(convention.scale)
    layer = keras.layers.Conv2D(channels, 1, name="edgeclf_values")
    pixels = keras.layers.Rescaling(1.0, name="edgeclf_scale")(image)
    made = layer(pixels)
    layer.set_weights([convention.matrix.T[np.newaxis, np.newaxis], np.array(convention.offset, np.float32)])
    return made


def _check(model: Any, shape: tuple[int, ...], classes: int) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"A classifier must have one input and one output, but the model has {len(model.inputs)} and "
            f"{len(model.outputs)}; give a model with one of each."
        )
    image, scores = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    if len(image) != 3 or any(side not in (None, want) for side, want in zip(image, shape, strict=True)):
        raise ModelError(
            f"The preprocessing makes images of {shape}, but the model's input is {image}; give its height, width "
            "and channels."
        )
    if len(scores) != 1:
        raise ModelError(f"A classifier's output must be (1, classes), but the model's is (1, {scores}).")
    require_classes(classes if scores[0] is None else scores[0], classes)
