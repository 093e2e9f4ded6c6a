"""Scores of an artifact on its engine for prepared pixels, and the Keras model of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.classifier import as_batch, scores_of
from edgeclf_device.engines import Engine
from edgeclf_device.errors import ModelError, first_line
from edgeclf_device.manifest import Tensor
from edgeclf_device.progress import Progress, no_progress

if TYPE_CHECKING:
    import keras

Scores = NDArray[np.float32]


class Pixels(Sized, Iterable[NDArray[np.uint8]], Protocol):
    """Prepared images, each uint8 (H, W, C): an array of them, or a part of a data set."""


def engine_scores(
    engine: Engine,
    tensors: tuple[Tensor, Tensor],
    pixels: Pixels,
    *,
    description: str,
    progress: Progress = no_progress,
) -> Scores:
    """Run images that are prepared already through an engine.

    Args:
        engine: with the model loaded.
        tensors: its input and output as the manifest states them.
        pixels: as the model's preprocessing makes them.
        description: what the progress is of.

    Returns:
        float32 (N, classes), dequantized.
    """
    image_tensor, scores_tensor = tensors
    steps = progress(pixels, description, len(pixels))
    return np.stack([scores_of(engine.run(as_batch(image, image_tensor)), scores_tensor) for image in steps])


def read_keras(model_file: Path) -> keras.Model:
    """The model of a run's ``.keras`` file.

    Raises:
        DependencyError: Keras is not installed.
        ModelError: the file is damaged, or holds code, which is never executed.
    """
    from edgeclf.training.backend import require_keras

    require_keras()
    import keras

    try:
        return keras.saving.load_model(model_file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged part caused
        raise ModelError(
            f"{model_file} can't be loaded as a Keras model ({first_line(error)}); train again."
        ) from error


def keras_scores(model_file: Path, pixels: NDArray[np.uint8], *, progress: Progress = no_progress) -> Scores:
    """Run prepared images through a ``.keras`` file: float32 (N, classes).

    Raises:
        DependencyError, ModelError: as ``read_keras``.
    """
    from edgeclf.training.train import predict

    return predict(read_keras(model_file), pixels, np.arange(len(pixels)), progress=progress)
