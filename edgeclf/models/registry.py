"""The backbones by name: one table that the command line, the configuration and the documentation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeclf.models import efficientnet_lite, pytorch_file
from edgeclf_device.errors import UsageError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """How to build one network, load its published weights and cut it into a frozen and a trained part.

    ``build`` takes image_size, channels, classes and dropout by keyword. ``freeze_points`` are names of blocks,
    from the image upwards; ``fine_tune_from`` is the lowest block that fine-tuning changes,
    ``weights_licence`` that of the published weights.
    """

    image_size: int
    build: Callable[..., keras.Model]
    load_imagenet: Callable[[keras.Model], None]
    freeze_points: tuple[str, ...]
    fine_tune_from: str
    weights_licence: str


def _efficientnet_lite(variant: efficientnet_lite.Variant, fine_tune_from: str) -> Backbone:
    def build(**arguments: Any) -> keras.Model:
        return efficientnet_lite.build(variant, **arguments)

    def load_imagenet(model: keras.Model) -> None:
        state = pytorch_file.read_packaged(variant.package, variant.file_name, variant.sha256)
        efficientnet_lite.load_imagenet(model, variant, state)

    return Backbone(
        image_size=variant.image_size,
        build=build,
        load_imagenet=load_imagenet,
        freeze_points=efficientnet_lite.freeze_points(variant),
        fine_tune_from=fine_tune_from,
        weights_licence="Apache-2.0",
    )


BACKBONES: Mapping[str, Backbone] = {
    "efficientnet_lite0": _efficientnet_lite(efficientnet_lite.LITE0, "block05"),
}


def backbone(name: str) -> Backbone:
    """Look ``name`` up.

    Raises:
        UsageError: there is no such backbone; the message lists those there are.
    """
    if name not in BACKBONES:
        raise UsageError(f"The backbone must be one of {', '.join(sorted(BACKBONES))}, but {name!r} was given.")
    return BACKBONES[name]


def require_weights(weights: str) -> None:
    """Check that ``weights`` is one of the words for them.

    Raises:
        UsageError: it is not.
    """
    if weights not in ("imagenet", "none"):
        raise UsageError(f"The weights must be imagenet or none, but {weights!r} was given.")


def build(name: str, *, image_size: int, channels: int, classes: int, dropout: float, weights: str) -> keras.Model:
    """Build a classifier: uint8 (N, size, size, channels) "image" to float32 softmax (N, classes) "scores".

    ``weights`` is ``imagenet`` (the backbone's published weights) or ``none`` (random).

    Raises:
        UsageError: unknown backbone or weights.
        DependencyError: the package with the weights is not installed.
    """
    chosen = backbone(name)
    require_weights(weights)
    model = chosen.build(image_size=image_size, channels=channels, classes=classes, dropout=dropout)
    if weights == "imagenet":
        chosen.load_imagenet(model)
    return model


def block_output(model: keras.Model, block: str) -> Any:
    """Return the symbolic output of the last layer whose name begins with ``block``: where to cut ``model``.

    Raises:
        UsageError: no layer's name begins so.
    """
    names = [layer.name for layer in model.layers if layer.name.startswith(f"{block}_")]
    if not names:
        raise UsageError(f"The model has no block named {block!r}.")
    return model.get_layer(names[-1]).output
