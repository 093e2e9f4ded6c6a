"""A network of the user's own: ``module:function`` is called for a Keras model, which is brought into our form.

The function takes the keyword arguments ``input_shape`` (size, size, channels) and ``classes`` (1 where
``model.head`` is ``sigmoid``), and returns a functional or sequential Keras model from pixels 0 to 255 to (N, classes)
logits or scores. What comes out of here is a flat graph of copies of its layers, so that it can be cut, folded and
exported, and opened where the user's module is not.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeclf.models.architecture import Architecture
from edgeclf.models.graph import has_graph, nodes, origin, producer, spread, stable_names
from edgeclf.models.head import HEAD_LAYERS, logit_count, rescaled_image, scored
from edgeclf_device.errors import ModelError, UsageError, first_line

if TYPE_CHECKING:
    import keras

_WHOLE = 1e-3
"""A zero point this near to a whole number is one, but for rounding."""

_RESERVED = ("image", "rescale", "features", "dropout", *HEAD_LAYERS, "scores")


def function(name: str) -> Callable[..., Any]:
    """Import ``module:function``, the current folder first on the path.

    Raises:
        UsageError: there is no such module or function, importing it fails, or it does not take the two arguments.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"A network of your own is named module:function, such as nets:small, but {name!r} was given.")
    with _current_folder_on_path():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the user's module raises
            raise UsageError(
                f"The module {module_name} of the backbone {name} can't be imported ({type(error).__name__}: "
                f"{first_line(error)}); run edgeclf in the folder that holds it, or install it."
            ) from error
    made: Callable[..., Any] | None = getattr(module, function_name, None)
    if made is None or not callable(made):
        raise UsageError(f"{module.__file__} must have a function {function_name}, but there is none.")
    try:
        inspect.signature(made).bind(input_shape=(32, 32, 3), classes=2)
    except TypeError as error:
        raise UsageError(
            f"{name} must take the keyword arguments input_shape and classes, but: {error}; change its signature."
        ) from error
    return made


def build(name: str, architecture: Architecture) -> keras.Model:
    """Build the user's network in the form that ``edgeclf.models.registry`` describes.

    A Rescaling that it begins with becomes "rescale" where its zero point is a whole number from 0 to 255; elsewhere
    one that changes nothing is put in front. A softmax or sigmoid at its end is taken off, and ours is put on.

    Raises:
        UsageError: see ``function``.
        ModelError: the function fails, or what it returns can't be used; the message says why.
    """
    shape = (architecture.image_size, architecture.image_size, architecture.channels)
    made = function(name)
    with _current_folder_on_path():
        try:
            given = made(input_shape=shape, classes=logit_count(architecture))
        except Exception as error:  # whatever the user's function raises
            raise ModelError(f"{name} failed ({type(error).__name__}: {first_line(error)}); mend it.") from error
    _check(given, name, shape, logit_count(architecture))
    flat = _flat(given, shape)
    _check_stock(flat, name)
    return _in_our_form(flat, architecture)


@contextlib.contextmanager
def _current_folder_on_path() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _check(given: Any, name: str, shape: tuple[int, ...], units: int) -> None:
    import keras

    if not isinstance(given, keras.Model):
        raise ModelError(f"{name} must return a keras.Model, but it returned {type(given).__name__}.")
    if not has_graph(given):
        raise ModelError(
            f"{name} must return a functional or sequential model, but {type(given).__name__} is a class of its own, "
            "whose graph can't be read; build it with keras.Model(inputs, outputs)."
        )
    if not given.built:
        raise ModelError(f"{name} must return a model that knows its input; begin it with keras.Input(input_shape).")
    if len(given.inputs) != 1 or len(given.outputs) != 1:
        raise ModelError(
            f"{name} must have one input and one output, but it has {len(given.inputs)} and {len(given.outputs)}."
        )
    image, scores = tuple(given.inputs[0].shape[1:]), tuple(given.outputs[0].shape[1:])
    if len(image) != 3 or any(side not in (None, wanted) for side, wanted in zip(image, shape, strict=True)):
        raise ModelError(f"{name} must take images {shape}, but it takes {image}; use its argument input_shape.")
    if scores != (units,):
        raise ModelError(
            f"{name} must give {(units,)} logits or scores for each image, but it gives {scores}; "
            "use its argument classes."
        )


def _flat(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Return the graph of ``model``, on an image of ``shape``, without models inside it; the layers are the same."""
    import keras

    image = keras.Input(shape, dtype=model.inputs[0].dtype)
    return keras.Model(image, spread(model, image))


def _check_stock(flat: keras.Model, name: str) -> None:
    """Refuse what could not be loaded without the user's module, or only by running code from the file."""
    import keras

    try:
        config = json.loads(flat.to_json())
        foreign = sorted(set(_foreign(config)))
        if not foreign:
            keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # Keras raises whatever the layer's configuration caused
        raise ModelError(
            f"{name} can't be saved and opened again ({first_line(error)}); use Keras's own layers and functions alone."
        ) from error
    if foreign:
        raise ModelError(
            f"{name} must be made of Keras's own layers and functions, so that its file opens without your code, but "
            f"it uses {', '.join(foreign)}; build the same of keras.layers and keras.ops."
        )


def _foreign(config: Any) -> Iterator[str]:
    """Yield the classes and functions in a serialized model that are not Keras's own, and Lambda."""
    if isinstance(config, dict):
        if {"module", "class_name"} <= config.keys():
            module, named = config["module"] or "", config["registered_name"] or config["class_name"]
            if module.partition(".")[0] != "keras" or config["class_name"] == "Lambda":
                yield str(config["config"] if config["class_name"] == "function" else named)
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list):
        for value in config:
            yield from _foreign(value)


def _in_our_form(flat: keras.Model, architecture: Architecture) -> keras.Model:
    """Return the network of copies of the layers of ``flat``, with our names at both ends."""
    import keras
    from keras import layers

    body = keras.Model(flat.inputs[0], _without_activation(flat.outputs[0]))
    first, last = _first_rescaling(body), producer(body.outputs[0])
    special = {id(last): "logits"} if isinstance(last, layers.Dense) and _is_head(last) else {}
    image, x = rescaled_image(architecture, scale=1.0, zero_point=0)
    if first is not None:
        special[id(first)], x = "rescale", image
    others = [one for one in body.operations if id(one) not in special and not isinstance(one, layers.InputLayer)]
    copies = _Copies({**stable_names(others, reserved=_RESERVED), **special})
    logits = body._run_through_graph([x], operation_fn=copies.of)  # noqa: SLF001 - see graph.spread
    if "logits" not in special.values():
        logits = layers.Identity(dtype="float32", name="logits")(logits)
    model = scored(image, logits, architecture)
    copies.take_weights()
    return model


class _Copies:
    """A copy of each operation, under its new name."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, operation: Any) -> Any:
        if id(operation) not in self._made:
            self._made[id(operation)] = operation, self._copy(operation)
        return self._made[id(operation)][1]

    def _copy(self, operation: Any) -> Any:
        name = self._names[id(operation)]
        config = operation.get_config()
        if name == "logits":
            config |= {"activation": "linear", "dtype": "float32"}
        if "name" in config:  # that of an operation which is no layer can't be chosen
            config["name"] = name
        return type(operation).from_config(config)

    def take_weights(self) -> None:
        """Give the copies the weights of their originals."""
        for operation, copy in self._made.values():
            if getattr(operation, "weights", None):
                copy.set_weights(operation.get_weights())


def _without_activation(output: Any) -> Any:
    """Return what the softmax or sigmoid that makes ``output`` is given, or ``output`` where another layer makes it."""
    last = producer(output)
    if type(last).__name__ in {"Softmax", "Sigmoid"} or (type(last).__name__ == "Activation" and _is_score(last)):
        return last._inbound_nodes[origin(output)[1]].input_tensors[0]  # noqa: SLF001 - see graph.spread
    return output


def _is_score(layer: Any) -> bool:
    from keras import activations

    return layer.activation in {activations.softmax, activations.sigmoid}


def _is_head(layer: Any) -> bool:
    """Whether a dense layer is linear but for a softmax or sigmoid, which comes off."""
    from keras import activations

    return layer.activation is activations.linear or _is_score(layer)


def _first_rescaling(body: keras.Model) -> Any | None:
    """Return the layer that alone reads the image, if it is a Rescaling whose zero point an int8 input can have."""
    from keras import layers

    image = origin(body.inputs[0])
    readers = [node.operation for node in nodes(body) if image in map(origin, node.input_tensors)]
    if len(readers) != 1 or not isinstance(readers[0], layers.Rescaling):
        return None
    scale, offset = readers[0].scale, readers[0].offset
    if np.ndim(scale) or np.ndim(offset) or not scale > 0:
        return None
    zero_point = -offset / scale
    is_whole = abs(zero_point - round(zero_point)) < _WHOLE and 0 <= round(zero_point) <= 255
    return readers[0] if is_whole else None
