"""Takes weights over from the .keras file of an earlier run of the same backbone, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeclf.models.head import HEAD_LAYERS
from edgeclf_device.errors import ModelError, first_line

if TYPE_CHECKING:
    import keras

_ENOUGH = 0.5
"""Share of the layers that must fit: with fewer the file is of another network, and a training would start nowhere."""


def take_over(model: keras.Model, path: Path) -> None:
    """Give each layer of ``model`` the weights of the layer of the same name in the file, where their shapes agree.

    The head keeps its fresh weights. No code in the file is run.

    Raises:
        ModelError: the file can't be read, scales its pixels otherwise, or under half of the layers fit.
    """
    import keras

    try:
        source = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged part caused
        raise ModelError(f"{path} can't be loaded as a Keras model ({first_line(error)}); copy it again.") from error
    named = {layer.name: layer for layer in source.layers}
    _require_rescaling(model, named, path)
    wanted = [layer for layer in model.layers if layer.weights and layer.name not in HEAD_LAYERS]
    fitting = [layer for layer in wanted if layer.name in named and _shapes(layer) == _shapes(named[layer.name])]
    if len(fitting) < _ENOUGH * len(wanted) or not fitting:
        raise ModelError(
            f"{path} must be of the same backbone, but only {len(fitting)} of {len(wanted)} layers fit by name and "
            "shape; give the model.keras of a run with this backbone and these options, or --weights none."
        )
    for layer in fitting:
        layer.set_weights(named[layer.name].get_weights())


def _require_rescaling(model: keras.Model, named: Mapping[str, Any], path: Path) -> None:
    import keras

    ours, theirs = model.get_layer("rescale"), named.get("rescale")
    given = (theirs.scale, theirs.offset) if isinstance(theirs, keras.layers.Rescaling) else "no such layer"
    if given != (ours.scale, ours.offset):
        raise ModelError(
            f"{path} must scale its pixels in a first layer named rescale by {(ours.scale, ours.offset)}, as this "
            f"backbone does, but has {given}; give the model.keras of a run with this backbone, or --weights none."
        )


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in layer.weights]
