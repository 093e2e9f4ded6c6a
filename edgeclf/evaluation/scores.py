"""Scores of any model for prepared pixels: an artifact on its engine, or a Keras model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.classifier import Classifier, as_batch, scores_of
from edgeclf_device.errors import ModelError, first_line
from edgeclf_device.progress import Progress, no_progress

Scores = NDArray[np.float32]


def artifact_scores(classify: Classifier, pixels: NDArray[np.uint8], *, progress: Progress = no_progress) -> Scores:
    """Run prepared images through an opened artifact.

    Args:
        classify: the opened artifact; its engine is called directly, for the pixels are prepared already.
        pixels: uint8 (N, height, width, channels), as the artifact's preprocessing makes them.

    Returns:
        float32 (N, classes).
    """
    (tensor,), (output,) = classify.manifest.inputs, classify.manifest.outputs
    steps = progress(pixels, f"Running {classify.path.name}", len(pixels))
    return np.stack([scores_of(classify.engine.run(as_batch(image, tensor)), output) for image in steps])


def keras_scores(model_file: Path, pixels: NDArray[np.uint8], *, progress: Progress = no_progress) -> Scores:
    """Run prepared images through a ``.keras`` file: float32 (N, classes).

    Raises:
        DependencyError: Keras is not installed.
        ModelError: the file is damaged, or holds code, which is never executed.
    """
    from edgeclf.training.backend import require_keras
    from edgeclf.training.train import predict

    require_keras()
    import keras

    try:
        model = keras.saving.load_model(model_file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged part caused
        raise ModelError(
            f"{model_file} can't be loaded as a Keras model ({first_line(error)}); train again."
        ) from error
    return predict(model, pixels, np.arange(len(pixels)), progress=progress)
