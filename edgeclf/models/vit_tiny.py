"""A small Vision Transformer that survives int8, to be trained from random weights on a few thousand images.

Attention over patches as in 2010.11929, with three changes for devices:

- positions come from a 3×3 depthwise convolution over the grid of tokens in each block (CPVT, 2102.10882);
- BatchNorm after every linear layer instead of LayerNorm before it (LeViT, 2104.01136): it is folded into the layer.
  TensorFlow Lite has no int8 form of LayerNorm;
- ReLU instead of GELU.

Linear layers are 1×1 convolutions on the grid, so that export treats them as any other convolution. Stock Keras layers
and operations alone: the .keras file opens anywhere, without this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeclf.models.architecture import BATCH_NORM_MOMENTUM, Architecture, ModelConfig
from edgeclf.models.head import classifier, rescaled_image
from edgeclf_device.errors import UsageError

if TYPE_CHECKING:
    import keras

_EXPANSION = 2
"""Of the two linear layers after attention, as in LeViT."""

_ATTENTION = "_attention"


def require_whole_patches(image_size: int, options: ModelConfig) -> None:
    """Check that the side of the image is a whole number of patches.

    Raises:
        UsageError: it is not.
    """
    if image_size % options.patch_size:
        raise UsageError(
            f"image_size must be a multiple of model.patch_size for vit_tiny, but they are {image_size} and "
            f"{options.patch_size}; change one of them."
        )


def build(architecture: Architecture) -> keras.Model:
    """Build the network with fresh weights; see ``edgeclf.models.registry`` for its form.

    Raises:
        UsageError: see ``require_whole_patches``.
    """
    from keras import layers

    options = architecture.options
    require_whole_patches(architecture.image_size, options)
    image, x = rescaled_image(architecture, scale=1 / 128, zero_point=127)
    x = layers.Conv2D(options.width, options.patch_size, options.patch_size, use_bias=False, name="patches_conv")(x)
    x = _normalized(x, "patches")
    for number in range(options.depth):
        x = _block(x, f"block{number:02}", heads=options.attention_heads)
    return classifier(image, layers.GlobalAveragePooling2D(name="features")(x), architecture)


def attention_maps(model: keras.Model) -> list[Any]:
    """Return the attention probabilities of each block from the image upwards, for attention rollout (2005.00928).

    Symbolic float32 (N, heads, T, T) tensors of ``model``, a fresh or a loaded one: how much token i (third axis) looks
    at token j (fourth). Tokens go row by row over the grid of patches. Empty for a network without attention.
    """
    return [layer.output for layer in model.layers if layer.name.endswith(_ATTENTION)]


def _block(x: Any, name: str, *, heads: int) -> Any:
    from keras import layers

    width = x.shape[-1]
    x = layers.Add(name=f"{name}_place")([x, layers.DepthwiseConv2D(3, padding="same", name=f"{name}_place_conv")(x)])
    attended = _attention(x, name, heads=heads)
    x = layers.Add(name=f"{name}_mix")([x, _linear(attended, f"{name}_project", width)])
    y = _linear(x, f"{name}_expand", _EXPANSION * width)
    y = layers.ReLU(name=f"{name}_relu")(y)
    return layers.Add(name=f"{name}_add")([x, _linear(y, f"{name}_reduce", width)])


def _attention(x: Any, name: str, *, heads: int) -> Any:
    """Let every place of the grid (N, H, W, width) look at every other."""
    from keras import layers, ops

    _, height, width, channels = x.shape
    size = channels // heads

    def split(part: str, order: tuple[int, int, int], gamma: float = 1.0) -> Any:
        tokens = _linear(x, f"{name}_{part}", channels, gamma=gamma)
        tokens = layers.Reshape((height * width, heads, size), name=f"{name}_{part}_heads")(tokens)
        return layers.Permute(order, name=f"{name}_{part}_order")(tokens)

    # 1 / √size belongs to the product of query and key; as the scale of a BatchNorm it is folded away.
    query, key, value = split("query", (2, 1, 3), size**-0.5), split("key", (2, 3, 1)), split("value", (2, 1, 3))
    weights = layers.Softmax(name=f"{name}{_ATTENTION}")(ops.matmul(query, key))
    mixed = layers.Permute((2, 1, 3), name=f"{name}_mixed_order")(ops.matmul(weights, value))
    return layers.Reshape((height, width, channels), name=f"{name}_mixed")(mixed)


def _linear(x: Any, name: str, width: int, *, gamma: float = 1.0) -> Any:
    from keras import layers

    return _normalized(layers.Conv2D(width, 1, use_bias=False, name=f"{name}_conv")(x), name, gamma=gamma)


def _normalized(x: Any, name: str, *, gamma: float = 1.0) -> Any:
    from keras import initializers, layers

    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, gamma_initializer=initializers.Constant(gamma), name=f"{name}_bn"
    )(x)
