"""A network for clips: an image network sees each frame, and an LSTM (Hochreiter and Schmidhuber 1997) their order.

For classes that a single frame does not show, such as directions. The frames are folded into the batch, so that the
image network is in the graph once, whatever the window; the LSTM is unrolled, because a loop has no static int8 form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeclf.models.architecture import Architecture
from edgeclf.models.graph import spread
from edgeclf.models.head import classifier

if TYPE_CHECKING:
    import keras

FRAME_FEATURES = "frame_features"
"""The layer with what the image network makes of each frame, (N * window, width)."""


def build(architecture: Architecture, build_frame: Callable[[Architecture], keras.Model]) -> keras.Model:
    """Build the network with fresh weights; see ``edgeclf.models.registry`` for its form.

    "features" is what the LSTM has after the last frame; before it, each frame's features pass a dense layer "frame".

    Args:
        architecture: of the whole; its ``options`` hold those of the frame network too.
        build_frame: builds that one.
    """
    import keras
    from keras import layers, ops

    options, window = architecture.options, architecture.window
    whole = build_frame(
        dataclasses.replace(architecture, window=1, options=dataclasses.replace(options, head="softmax"))
    )
    rescale, features = whole.get_layer("rescale"), whole.get_layer("features")
    features.name = FRAME_FEATURES  # "features" are those of the clip
    image = keras.Input((window, *whole.input.shape[1:]), dtype="uint8", name="image")
    frames = ops.reshape(rescale(image), (-1, *whole.input.shape[1:]))
    x = spread(keras.Model(rescale.output, features.output), frames)
    x = layers.Dense(options.frame_units, activation="relu", name="frame")(x)
    x = ops.reshape(x, (-1, window, options.frame_units))
    x = layers.LSTM(options.lstm_units, unroll=True, name="features")(x)
    built = classifier(image, x, architecture)
    return keras.Model.from_config(built.get_config())  # layers of its own: those here are also in ``whole``
