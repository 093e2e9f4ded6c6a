"""Where a network looked: Grad-CAM for convolutional networks, attention rollout for the vision transformer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import DependencyError, UsageError

if TYPE_CHECKING:
    import keras

Images = NDArray[np.uint8]
Heat = NDArray[np.float32]

_BATCH = 8
_RED = 225
"""Where the colour map turbo is a bright red; from there on it darkens."""


def method(model: keras.Model) -> str:
    """Return how ``explain`` explains this network: ``attention rollout``, ``Grad-CAM``, or empty: not at all."""
    if _attention(model):
        return "attention rollout"
    return "Grad-CAM" if next(_divisions(model), None) is not None else ""


def explain(model: keras.Model, images: Images, classes: NDArray[np.int64]) -> Heat:
    """Return where ``model`` looked on each image, by the method that ``method`` names.

    Args:
        model: as ``edgeclf.models.registry`` builds it, or any functional classifier of uint8 images.
        images: uint8 (N, H, W, C), prepared.
        classes: (N,) class indices to explain; attention rollout knows no classes.

    Returns:
        float32 (N, h, w), 0 to 1, of the size of the network's last maps.

    Raises:
        UsageError: the network has neither convolutions nor attention.
        DependencyError: gradients of this Keras backend are not known here.
    """
    return attention_rollout(model, images) if _attention(model) else grad_cam(model, images, classes)


def grad_cam(model: keras.Model, images: Images, classes: NDArray[np.int64]) -> Heat:
    """Return what speaks for a class, place by place: Grad-CAM (Selvaraju et al. 2017, 1610.02391).

    The last maps before the features are summed with the mean gradient of the class's logit as their weights, and what
    is below 0 is cut off. The one logit of a sigmoid head speaks for class 1, and its negative for class 0. A network
    without a layer ``logits`` is explained by the logarithm of its score.

    Args and errors as for ``explain``; each image's largest value is 1, or 0 where nothing speaks for the class.
    """
    division = next(_divisions(model), None)
    if division is None:
        raise UsageError(
            f"Grad-CAM needs a layer of maps (N, h, w, C) before the features, but the network {model.name!r} has "
            "none; explain a convolutional network."
        )
    lower, upper = division
    heats = []
    for batch, wanted in _batches(images, classes):
        maps = lower(batch, training=False)
        gradient = np.asarray(_gradient(upper, maps, wanted), np.float32)
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        heats.append(np.maximum((weights * np.asarray(maps, np.float32)).sum(axis=-1), 0))
    heat = np.concatenate(heats)
    largest = heat.max(axis=(1, 2), keepdims=True)
    relative: Heat = np.divide(heat, largest, out=np.zeros_like(heat), where=largest > 0)
    return relative


def attention_rollout(model: keras.Model, images: Images) -> Heat:
    """Return how much of each patch reaches the mean of the last tokens: attention rollout (Abnar and Zuidema 2020).

    Attention is averaged over heads, half of each token is taken to pass by on the residual path, and the layers'
    matrices are multiplied (2005.00928). Says where the network looked, not for which class.

    Args and errors as for ``explain``; each image's values are spread over 0 to 1.
    """
    import keras

    maps = _attention(model)
    if not maps:
        raise UsageError(
            f"Attention rollout needs a vision transformer, but the network {model.name!r} has no attention."
        )
    # By name: of a list of one, Keras would give the tensor itself.
    attending = keras.Model(model.input, {str(block): attention for block, attention in enumerate(maps)})
    seen = (attending(batch, training=False) for (batch,) in _batches(images))
    heat = np.concatenate([_rolled_out([blocks[str(block)] for block in range(len(maps))]) for blocks in seen])
    side = math.isqrt(heat.shape[1])
    low, high = heat.min(axis=1, keepdims=True), heat.max(axis=1, keepdims=True)
    spread: Heat = np.divide(heat - low, high - low, out=np.zeros_like(heat), where=high > low)
    return spread.reshape(-1, side, side)


def overlay(image: Images, heat: Heat, *, strength: float = 0.6) -> Images:
    """Colour ``image``, uint8 (H, W, 1 or 3), by ``heat``, (h, w) of 0 to 1: uint8 (H, W, 3) RGB.

    What is cold keeps its own colours; the hottest place is ``strength`` colour (turbo, yellow to red) and the rest
    image.
    """
    import cv2

    height, width = image.shape[:2]
    large = np.clip(cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    steps = np.rint(_RED * large).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(steps, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    alpha = strength * large[..., None]
    return np.rint((1 - alpha) * image + alpha * colours).astype(np.uint8)


def _attention(model: keras.Model) -> list[Any]:
    """Each block's attention, symbolic (N, heads, T, T), where the T tokens are a square grid; otherwise none."""
    from edgeclf.models.vit_tiny import attention_maps

    maps = attention_maps(model)
    shapes = {tuple(one.shape[2:]) for one in maps}
    square = len(shapes) == 1 and all(len(one) == 2 and one[0] == one[1] == math.isqrt(one[0]) ** 2 for one in shapes)
    return maps if square else []


def _batches(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    for at in range(0, len(arrays[0]), _BATCH):
        yield tuple(array[at : at + _BATCH] for array in arrays)


def _divisions(model: keras.Model) -> Iterator[tuple[keras.Model, keras.Model]]:
    """Yield (image to maps, maps to logits), the last maps first; layers that others bypass divide nothing."""
    import keras

    names = [layer.name for layer in model.layers]
    before = model.layers[: names.index("features")] if "features" in names else model.layers
    target = model.get_layer("logits").output if "logits" in names else keras.ops.log(model.output)
    pixels = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)
    for layer in reversed(before):
        shape = getattr(layer.output, "shape", ())
        if isinstance(layer, pixels) or len(shape) != 4 or shape[1:3] == (1, 1):
            continue
        try:
            yield keras.Model(model.input, layer.output), keras.Model(layer.output, target)
        except ValueError:
            continue


def _gradient(upper: keras.Model, maps: Any, classes: NDArray[np.int64]) -> Any:
    """Gradient of the classes' logits with respect to ``maps``, of its shape."""
    import keras

    def of_classes(values: Any) -> Any:
        logits = upper(values, training=False)
        if logits.shape[1] == 1:
            return keras.ops.sum(logits[:, 0] * np.where(classes == 1, 1, -1).astype(np.float32))
        return keras.ops.sum(keras.ops.take_along_axis(logits, classes[:, None], axis=1))

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(maps)
            total = of_classes(maps)
        return tape.gradient(total, maps)
    if backend == "jax":
        import jax

        return jax.grad(of_classes)(maps)
    raise DependencyError(
        f"Grad-CAM needs Keras on TensorFlow or JAX, but it runs on {backend}; set KERAS_BACKEND=tensorflow."
    )


def _rolled_out(layers: Sequence[Any]) -> Heat:
    """From the attention of each block, (N, heads, T, T), upwards, to the share of each token in the mean, (N, T)."""
    tokens = layers[0].shape[-1]
    itself = np.eye(tokens, dtype=np.float32)
    rolled = itself
    for attention in layers:
        mixed = np.asarray(attention, np.float32).mean(axis=1) + itself
        rolled = (mixed / mixed.sum(axis=-1, keepdims=True)) @ rolled
    shares: Heat = rolled.mean(axis=-2)
    return shares
