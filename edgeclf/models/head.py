"""Both ends of every network: the image it begins with and the head it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeclf.models.architecture import Architecture

if TYPE_CHECKING:
    import keras

HEAD_LAYERS = ("hidden", "logits", "both_sides")
"""Layers with weights that belong to the classes rather than to the network."""

_BOTH_SIDES = np.array([[-1.0, 1.0]], np.float32)


def rescaled_image(architecture: Architecture, *, scale: float, zero_point: int) -> tuple[Any, Any]:
    """Return the input "image", uint8 (N, size, size, channels), and the float32 ``(image - zero_point) * scale``.

    ``zero_point`` is a whole number from 0 to 255: an int8 export makes it the zero point of the input, so that the
    pixels reach the first layer as they are.
    """
    import keras

    size, channels = architecture.image_size, architecture.channels
    image = keras.Input((size, size, channels), dtype="uint8", name="image")
    return image, keras.layers.Rescaling(scale, offset=-zero_point * scale, name="rescale")(image)


def classifier(image: Any, features: Any, architecture: Architecture) -> keras.Model:
    """Return the network from ``image`` to float32 (N, classes) "scores", its head on top of ``features`` (N, width).

    The head: a dense layer "hidden" with ReLU where it is asked for, "dropout", a linear "logits" and what
    ``scores_of`` makes of it.
    """
    from keras import layers

    options = architecture.options
    x = features
    if options.hidden:
        x = layers.Dense(options.hidden, activation="relu", name="hidden")(x)
    x = layers.Dropout(options.dropout, name="dropout")(x)
    return scored(image, layers.Dense(logit_count(architecture), dtype="float32", name="logits")(x), architecture)


def logit_count(architecture: Architecture) -> int:
    """How many logits the head has: one for each class, or one alone where it is ``sigmoid``."""
    return 1 if architecture.options.head == "sigmoid" else architecture.classes


def scored(image: Any, logits: Any, architecture: Architecture) -> keras.Model:
    """Return the network from ``image`` through ``logits`` to "scores", float32 (N, classes).

    Scores are the softmax of the logits. With one logit z they are the sigmoid of -z and of z, that is 1 - p and p:
    a fixed dense layer "both_sides" makes the two out of one, so that every artifact gives one score for each label.
    """
    import keras
    from keras import layers

    # float32 whatever the precision of the training: a score is read by people and compared with thresholds.
    if architecture.options.head == "softmax":
        return keras.Model(image, layers.Softmax(dtype="float32", name="scores")(logits), name="classifier")
    both = layers.Dense(2, use_bias=False, trainable=False, dtype="float32", name="both_sides")
    scores = layers.Activation("sigmoid", dtype="float32", name="scores")(both(logits))
    both.set_weights([_BOTH_SIDES])
    return keras.Model(image, scores, name="classifier")
