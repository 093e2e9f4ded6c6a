"""The small convolutional network of countless articles: two blocks of convolution and pooling, then a dense head.

For images of digits, clothes or parts that are told apart by shape, trained from random weights in minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeclf.models.architecture import BATCH_NORM_MOMENTUM, Architecture
from edgeclf.models.head import classifier, rescaled_image

if TYPE_CHECKING:
    import keras


def build(architecture: Architecture) -> keras.Model:
    """Build the network with fresh weights; see ``edgeclf.models.registry`` for its form."""
    from keras import layers

    image, x = rescaled_image(architecture, scale=1 / 128, zero_point=127)
    for block, filters in (("block1", architecture.options.filters), ("block2", 2 * architecture.options.filters)):
        x = _block(x, block, filters, batch_norm=architecture.options.batch_norm)
    return classifier(image, layers.Flatten(name="features")(x), architecture)


def _block(x: Any, name: str, filters: int, *, batch_norm: bool) -> Any:
    from keras import layers

    x = layers.Conv2D(
        filters, 3, padding="same", use_bias=not batch_norm, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    return layers.MaxPooling2D(name=f"{name}_pool")(x)
