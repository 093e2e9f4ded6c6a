"""The networks of keras.applications as flat graphs behind one Rescaling, with their published ImageNet weights.

Each network was trained on pixels prepared in its own way. What is published is folded into the first convolution
here, so that every network begins with the same kind of scalar Rescaling and an int8 export needs no other layer.
Only the padded border differs: it holds the colour of the zero point instead of the network's own mean.

Sources: MobileNetV2 (1801.04381), MobileNetV3 (1905.02244), EfficientNetV2 (2104.00298), ResNet (1512.03385),
VGG (1409.1556).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.models import download
from edgeclf.models.architecture import Architecture
from edgeclf.models.graph import stable_names
from edgeclf.models.head import classifier, rescaled_image
from edgeclf_device.errors import ModelError, UsageError, first_line

if TYPE_CHECKING:
    import keras

_SMALLEST_IMAGE = 32
_BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a published network does to a pixel first: ``pixel * scale + offset`` for each of R, G, B.

    Attributes:
        scale, offset: of red, green and blue.
        blue_first: the network takes the three in the order B, G, R.
        our_scale, our_zero_point: of the Rescaling here: a close relative, with one scale for all colours.
    """

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    blue_first: bool = False
    our_scale: float
    our_zero_point: int


_FROM_MINUS_1_TO_1 = Preparation(
    scale=(1 / 127.5, 1 / 127.5, 1 / 127.5), offset=(-1.0, -1.0, -1.0), our_scale=1 / 128, our_zero_point=127
)
# ImageNet's mean over the three colours is 114.8, its spread 57.6.
_STANDARDIZED = Preparation(
    scale=(1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
    offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
    our_scale=1 / 58,
    our_zero_point=115,
)
_CENTRED_BGR = Preparation(
    scale=(1.0, 1.0, 1.0),
    offset=(-123.68, -116.779, -103.939),
    blue_first=True,
    our_scale=1 / 58,
    our_zero_point=115,
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of keras.applications.

    Attributes:
        function: its name there.
        options: arguments of that function.
        preparation: what its published weights expect.
        first: its first convolution.
        first_mean: the layer with the moving mean that takes what has no bias to go to; empty: ``first`` has a bias.
        url, md5: of the published weights without a head; Keras publishes no digest of some.
        block_ends: name of every block and its last layer, from the image upwards.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    preparation: Preparation
    first: str
    first_mean: str = ""
    url: str
    md5: str | None
    block_ends: Mapping[str, str]


def _mobilenet_v2_blocks() -> dict[str, str]:
    residual = {2, 4, 5, 7, 8, 9, 11, 12, 14, 15}
    inner = {f"block_{n}": f"block_{n}_{'add' if n in residual else 'project_BN'}" for n in range(1, 17)}
    return {"stem": "Conv1_relu", "block_0": "expanded_conv_project_BN", **inner, "top": "out_relu"}


def _mobilenet_v3_blocks(count: int, residual: set[int], top: str) -> dict[str, str]:
    def end(number: int) -> str:
        prefix = f"expanded_conv_{number}" if number else "expanded_conv"
        return f"{prefix}_{'add' if number in residual else 'project_bn'}"

    return {"stem": "activation", **{f"block_{n}": end(n) for n in range(count)}, "top": top}


def _efficientnet_v2_b0_blocks() -> dict[str, str]:
    repeats = {"block1": 1, "block2": 2, "block3": 2, "block4": 3, "block5": 5, "block6": 8}
    inner = {
        f"{stage}{letter}": f"{stage}{letter}_{'project_bn' if letter == 'a' else 'add'}"
        for stage, count in repeats.items()
        for letter in "abcdefgh"[:count]
    }
    return {"stem": "stem_activation", **inner, "block1a": "block1a_project_activation", "top": "top_activation"}


def _resnet50_blocks() -> dict[str, str]:
    stages = {"conv2": 3, "conv3": 4, "conv4": 6, "conv5": 3}
    names = [f"{stage}_block{number}" for stage, count in stages.items() for number in range(1, count + 1)]
    return {"stem": "pool1_pool", **{name: f"{name}_out" for name in names}}


MOBILENET_V2 = Network(
    function="MobileNetV2",
    preparation=_FROM_MINUS_1_TO_1,
    first="Conv1",
    first_mean="bn_Conv1",
    url=f"{_BASE_URL}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    md5=None,
    block_ends=_mobilenet_v2_blocks(),
)
MOBILENET_V3_SMALL = Network(
    function="MobileNetV3Small",
    options={"include_preprocessing": False},
    preparation=_FROM_MINUS_1_TO_1,
    first="conv",
    first_mean="conv_bn",
    url=f"{_BASE_URL}/mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    md5="d3e8ec802a04aa4fc771ee12a9a9b836",
    block_ends=_mobilenet_v3_blocks(11, {2, 4, 5, 7, 9, 10}, "activation_17"),
)
MOBILENET_V3_LARGE = Network(
    function="MobileNetV3Large",
    options={"include_preprocessing": False},
    preparation=_FROM_MINUS_1_TO_1,
    first="conv",
    first_mean="conv_bn",
    url=f"{_BASE_URL}/mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    md5="07fb09a5933dd0c8eaafa16978110389",
    block_ends=_mobilenet_v3_blocks(15, {0, 2, 4, 5, 7, 8, 9, 11, 13, 14}, "activation_19"),
)
EFFICIENTNET_V2_B0 = Network(
    function="EfficientNetV2B0",
    options={"include_preprocessing": False},
    preparation=_STANDARDIZED,
    first="stem_conv",
    first_mean="stem_bn",
    url=f"{_BASE_URL}/efficientnet_v2/efficientnetv2-b0_notop.h5",
    md5="893217f2bb855e2983157299931e43ff",
    block_ends=_efficientnet_v2_b0_blocks(),
)
RESNET50 = Network(
    function="ResNet50",
    preparation=_CENTRED_BGR,
    first="conv1_conv",
    url=f"{_BASE_URL}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    md5="4d473c1dd8becc155b73f8504c6f6626",
    block_ends=_resnet50_blocks(),
)
VGG16 = Network(
    function="VGG16",
    preparation=_CENTRED_BGR,
    first="block1_conv1",
    url=f"{_BASE_URL}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    md5="6d6bbae143d832006294945121d1f1fc",
    block_ends={f"block{number}": f"block{number}_pool" for number in range(1, 6)},
)


def require_size(image_size: int) -> None:
    """Check that images of this side are large enough.

    Raises:
        UsageError: they are not.
    """
    if image_size < _SMALLEST_IMAGE:
        raise UsageError(
            f"image_size must be at least {_SMALLEST_IMAGE} for this backbone, but it is {image_size}; use "
            "backbone=cnn for smaller images."
        )


def build(network: Network, architecture: Architecture) -> keras.Model:
    """Build the network with fresh weights; see ``edgeclf.models.registry`` for its form.

    Raises:
        UsageError: see ``require_size``.
    """
    from keras import layers

    require_size(architecture.image_size)
    preparation = network.preparation
    image, x = rescaled_image(architecture, scale=preparation.our_scale, zero_point=preparation.our_zero_point)
    body = _body(network, (architecture.image_size, architecture.image_size, architecture.channels), x)
    names = stable_names(body.operations, reserved=("features", "dropout"))
    for operation in body.operations:
        operation.name = names[id(operation)]
    return classifier(image, layers.GlobalAveragePooling2D(name="features")(body.output), architecture)


def _body(network: Network, shape: tuple[int, int, int], tensor: Any | None = None) -> keras.Model:
    """Return keras.applications' own network without a head, on ``tensor`` or on an input of its own."""
    import keras

    function = getattr(keras.applications, network.function)
    body: keras.Model = function(
        include_top=False, weights=None, input_tensor=tensor, input_shape=shape, **network.options
    )
    return body


def read_published(network: Network, file: Path | None) -> keras.Model:
    """Return keras.applications' own network without a head, with the weights of ``file``.

    Args:
        network: which one.
        file: the published .h5 file without a head, or a .weights.h5 file that Keras wrote from the same network;
            None: fetched, once.

    Raises:
        DependencyError: the published file can't be fetched.
        ModelError: the file is damaged or of another network.
    """
    body = _body(network, (_SMALLEST_IMAGE, _SMALLEST_IMAGE, 3))
    path = file or download.fetched(network.url, network.md5)
    try:
        body.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever the damaged part caused
        raise ModelError(
            f"{path} must hold the weights of keras.applications.{network.function} without its head "
            f"({first_line(error)}); take {network.url}."
        ) from error
    return body


def load_published(model: keras.Model, network: Network, published: keras.Model) -> None:
    """Write the weights of keras.applications' own network into ``model``, its preparation into the first convolution.

    A one-channel model gets the first convolution summed over colour, so a grey image gives exactly what
    the same grey image repeated three times would give.
    """
    for layer in published.layers:
        if layer.weights and layer.name != network.first:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    first = model.get_layer(network.first)
    kernel, *biases = published.get_layer(network.first).get_weights()
    kernel, shift = _prepared(kernel, network.preparation)
    if first.kernel.shape[2] == 1:
        kernel = kernel.sum(axis=2, keepdims=True)
    first.set_weights([kernel, *(bias + shift for bias in biases)])
    if not biases:
        batch_norm = model.get_layer(network.first_mean)
        batch_norm.moving_mean.assign(published.get_layer(network.first_mean).moving_mean - shift)


def _prepared(kernel: NDArray[np.float32], preparation: Preparation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return filters that take our rescaled pixels instead of the published ones, and what to add to their output.

    Ours is x = (pixel - z) s, so pixel * scale + offset = x scale / s + (offset + z scale).

    Args:
        kernel: (height, width, 3, filters).
        preparation: what the published filters expect.
    """
    by_colour = kernel[:, :, ::-1] if preparation.blue_first else kernel
    scale, offset = np.array(preparation.scale), np.array(preparation.offset)
    gain = scale / preparation.our_scale
    shift = np.einsum("hwcf,c->f", by_colour, offset + preparation.our_zero_point * scale)
    return (by_colour * gain[:, np.newaxis]).astype(np.float32), shift.astype(np.float32)
