"""The backbones by name: one table that the command line, the configuration and the documentation share.

Every model that ``build`` returns is one flat functional graph, named "classifier":

- input "image": uint8 (N, size, size, channels), the prepared pixels; of clips (N, window, size, size, channels);
- first layer "rescale": a Rescaling of one scale and one offset, whose zero point (-offset / scale) is a whole number
  from 0 to 255;
- "features": float32 (N, width) (a user's own model need not have it);
- "hidden" (where ``model.hidden`` is above 0), "dropout", "logits", and the output "scores", float32 (N, classes):
  see ``edgeclf.models.head``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeclf.models import (
    applications,
    cnn,
    cnn_lstm,
    download,
    efficientnet_lite,
    keras_file,
    pytorch_file,
    user_model,
    vit_tiny,
)
from edgeclf.models.architecture import BATCH_NORM_MOMENTUM, Architecture, ModelConfig
from edgeclf_device.errors import UsageError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Published:
    """ImageNet weights that others trained.

    Attributes:
        licence: theirs.
        suffix: of their file.
        require: raises DependencyError where they can't be had.
        load: writes the weights of a file, or where there is None of the package or cache, into a fresh model.
    """

    licence: str
    suffix: str
    require: Callable[[], object]
    load: Callable[[keras.Model, Path | None], None]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One network.

    Attributes:
        build: from an architecture to a model with fresh weights.
        require: raises UsageError where there is nothing to build.
        fits: raises UsageError where images of such a side, with such options, can't be taken.
        defaults: overrides of ``edgeclf.training.config.TrainConfig()``, those that differ from it.
        blocks: name of every block and of its last layer, from the image upwards; empty where no part of the network
            is ever frozen.
        published: ImageNet weights, where there are any.
        video: whether it sees clips and not single images.
    """

    build: Callable[[Architecture], keras.Model]
    require: Callable[[], object] = lambda: None
    fits: Callable[[int, ModelConfig], object] = lambda _image_size, _options: None
    defaults: tuple[str, ...] = ()
    blocks: Mapping[str, str] = field(default_factory=dict)
    published: Published | None = None
    video: bool = False

    @property
    def has_imagenet(self) -> bool:
        """Whether there are published weights."""
        return self.published is not None

    @property
    def weights_licence(self) -> str:
        """Licence of the published weights; empty where there are none."""
        return "" if self.published is None else self.published.licence


def _efficientnet_lite(variant: efficientnet_lite.Variant, *defaults: str) -> Backbone:
    def load(model: keras.Model, file: Path | None) -> None:
        state = efficientnet_lite.read_published(variant, file)
        efficientnet_lite.load_published(model, variant, state)

    return Backbone(
        build=lambda architecture: efficientnet_lite.build(variant, architecture),
        defaults=defaults,
        blocks=efficientnet_lite.block_ends(variant),
        published=Published(
            licence="Apache-2.0",
            suffix=".pth",
            require=lambda: pytorch_file.packaged(variant.package, variant.file_name),
            load=load,
        ),
    )


def _application(network: applications.Network, licence: str, *defaults: str) -> Backbone:
    def load(model: keras.Model, file: Path | None) -> None:
        applications.load_published(model, network, applications.read_published(network, file))

    return Backbone(
        build=lambda architecture: applications.build(network, architecture),
        fits=lambda image_size, _options: applications.require_size(image_size),
        defaults=defaults,
        blocks=network.block_ends,
        published=Published(
            licence=licence,
            suffix=".h5",
            require=lambda: download.fetched(network.url, network.md5),
            load=load,
        ),
    )


_UNTRAINED = ("weights=none", "train.fine_tune_from=all", "train.batch_norm=trained", "train.learning_rate=1e-3")

BACKBONES: Mapping[str, Backbone] = {
    "cnn": Backbone(
        build=cnn.build,
        defaults=(
            *_UNTRAINED,
            "image_size=64",
            "train.epochs=30",
            "train.batch_size=64",
            "model.hidden=128",
            "model.dropout=0.0",
            "model.batch_norm=true",
        ),
    ),
    "cnn_lstm": Backbone(
        build=lambda architecture: cnn_lstm.build(architecture, _frame_backbone(architecture.options).build),
        fits=lambda image_size, options: _frame_backbone(options).fits(image_size, options),
        defaults=(
            *_UNTRAINED,
            "image_size=32",
            "train.epochs=20",
            "augment.flip_horizontal=false",
            "clip.window=8",
            "clip.stride=4",
            "model.filters=8",
            "model.batch_norm=true",
        ),
        video=True,
    ),
    "efficientnet_lite0": _efficientnet_lite(efficientnet_lite.LITE0),
    "efficientnet_lite1": _efficientnet_lite(efficientnet_lite.LITE1, "image_size=240", "train.fine_tune_from=block07"),
    "efficientnet_lite2": _efficientnet_lite(efficientnet_lite.LITE2, "image_size=260", "train.fine_tune_from=block07"),
    "efficientnet_v2_b0": _application(applications.EFFICIENTNET_V2_B0, "Apache-2.0", "train.fine_tune_from=block5a"),
    "mobilenet_v2": _application(applications.MOBILENET_V2, "Apache-2.0", "train.fine_tune_from=block_6"),
    "mobilenet_v3_large": _application(applications.MOBILENET_V3_LARGE, "Apache-2.0", "train.fine_tune_from=block_6"),
    "mobilenet_v3_small": _application(applications.MOBILENET_V3_SMALL, "Apache-2.0", "train.fine_tune_from=block_4"),
    "resnet50": _application(applications.RESNET50, "MIT", "train.fine_tune_from=conv4_block1"),
    "vgg16": _application(applications.VGG16, "CC-BY-4.0", "train.fine_tune_from=block3", "train.learning_rate=5e-5"),
    "vit_tiny": Backbone(
        build=vit_tiny.build,
        fits=vit_tiny.require_whole_patches,
        defaults=(
            *_UNTRAINED,
            "image_size=64",
            "train.epochs=60",
            "train.batch_size=64",
            "model.patch_size=8",
            "model.width=96",
            "model.depth=6",
            "model.dropout=0.1",
        ),
    ),
}


def _frame_backbone(options: ModelConfig) -> Backbone:
    """The image network that sees the frames of a clip.

    Raises:
        UsageError: there is none of that name.
    """
    images = [name for name, one in BACKBONES.items() if not one.video]
    if options.frame_backbone not in images:
        raise UsageError(
            f"model.frame_backbone must be one of {', '.join(images)}, but it is {options.frame_backbone!r}."
        )
    return BACKBONES[options.frame_backbone]


def backbone(name: str) -> Backbone:
    """Look ``name`` up; ``module:function`` is a user's own, which is not imported before it is built.

    Raises:
        UsageError: there is no such backbone; the message lists those there are.
    """
    if ":" in name:
        return Backbone(
            build=lambda architecture: user_model.build(name, architecture),
            require=lambda: user_model.function(name),
            defaults=_UNTRAINED,
        )
    if name not in BACKBONES:
        raise UsageError(
            f"The backbone must be one of {', '.join(BACKBONES)}, or module:function for a network of your own, "
            f"but {name!r} was given."
        )
    return BACKBONES[name]


def require_weights(name: str, weights: str) -> None:
    """Check that the backbone can be built with ``weights``, before any data is read.

    Published weights that are not here yet are fetched.

    Raises:
        UsageError: unknown backbone, a user's function that can't be imported, or ``weights`` that this backbone
            does not have or can't read.
        DependencyError: the published weights can't be had; the message says what to do.
    """
    chosen = backbone(name)
    chosen.require()
    if weights == "none":
        return
    published = chosen.published
    if weights == "imagenet" and published is not None:
        published.require()
        return
    suffixes = [".keras"] if published is None else [".keras", published.suffix]
    words = [*(["imagenet"] if chosen.has_imagenet else []), "none"]
    if not weights.endswith(tuple(suffixes)):
        raise UsageError(
            f"The weights of {name} must be {', '.join(words)} or a file that ends in {' or '.join(suffixes)}, "
            f"but {weights!r} was given."
        )
    if not Path(weights).is_file():
        raise UsageError(f"The weights must be a file, but there is none at {weights}; give its path.")


def build(name: str, architecture: Architecture, *, weights: str) -> keras.Model:
    """Build a classifier in the form that this module describes. The caller has seeded Keras.

    Args:
        name: see ``backbone``.
        architecture: what to build.
        weights: ``imagenet`` (published weights), ``none`` (random), the published file itself (.pth or .h5), or the
            .keras file of an earlier run with this backbone.

    Raises:
        UsageError, DependencyError: see ``require_weights``; or this backbone can't be built so.
        ModelError: the weights are damaged or of another network, or a user's own model can't be used.
    """
    require_weights(name, weights)
    chosen = backbone(name)
    model = chosen.build(architecture)
    if weights.endswith(".keras"):
        keras_file.take_over(model, Path(weights))
    elif weights != "none" and chosen.published is not None:
        chosen.published.load(model, None if weights == "imagenet" else Path(weights))
    elif chosen.published is not None or chosen.video:
        _settle_soon(model)
    return model


def _settle_soon(model: keras.Model) -> None:
    """Let statistics of normalization that begin at random follow the data within tens of steps."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, BATCH_NORM_MOMENTUM)


def block_below(model: keras.Model, name: str, block: str) -> Any:
    """Return the symbolic output of the block below ``block``: where to cut ``model``, which ``build`` made.

    Below the first block that is the rescaled image.

    Raises:
        UsageError: the backbone has no such block; the message lists those it has.
    """
    ends = backbone(name).blocks
    if block not in ends:
        raise UsageError(
            f"The blocks of {name} are {', '.join(ends) or 'not named: it is never frozen'}, but {block!r} was given."
        )
    layers = ["rescale", *ends.values()]
    return model.get_layer(layers[list(ends).index(block)]).output
