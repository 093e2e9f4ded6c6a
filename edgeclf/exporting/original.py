"""The model that an export begins with, of any kind: its scores, and what it is converted to. For the child process."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting import convert
from edgeclf.exporting.convention import Convention
from edgeclf.exporting.job import Job
from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import Container

_TOLERANCE = 1e-3
"""Scores of float arithmetic may be so far outside 0 to 1."""


class Original(Protocol):
    """A loaded model."""

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (N, classes) for uint8 (N, height, width, channels)."""

    def converted(self, conversion: str) -> bytes:
        """The bytes of one of ``Job.conversions``."""


def load(job: Job) -> Original:
    """Load the job's model without executing any code that came with it.

    Raises:
        ModelError: the model is damaged, holds code, or is no classifier of the job's shape and labels.
        DependencyError: what its kind needs is not installed.
    """
    if job.convention is None:
        return _Keras(convert.load(job))
    if job.kind == "tflite":
        return _Engine(_given_tflite(job, job.convention), "tflite")
    if job.kind == "onnx":
        return _Engine(_given_onnx(job, job.convention), "onnx")
    return _Keras(_given_keras(job, job.convention))


def require_probabilities(scores: NDArray[np.float32]) -> None:
    """Check scores, (N, classes), of a model whose outputs are said to be probabilities.

    Raises:
        ModelError: one lies outside 0 to 1, or is NaN.
    """
    low, high = float(scores.min()), float(scores.max())
    if not -_TOLERANCE <= low <= high <= 1 + _TOLERANCE:
        raise ModelError(
            f"The model must answer probabilities, but its scores lie from {low:.4g} to {high:.4g}; if its softmax is "
            'not part of it, write outputs = "logits" into the preprocessing file.'
        )


class _Keras:
    def __init__(self, source: convert.Source) -> None:
        self._source = source
        self._scores = convert.compiled(source)

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._scores(pixels)

    def converted(self, conversion: str) -> bytes:
        return convert.CONVERTERS[conversion](self._source)


def _given_keras(job: Job, convention: Convention) -> convert.Source:
    convert.start_tensorflow()
    from edgeclf.exporting import keras_given

    path = Path(job.keras_model)
    model = keras_given.load_keras(path) if job.kind == "keras" else keras_given.load_saved_model(path, job.shape)
    return convert.Source(
        keras_model=keras_given.from_pixels(model, job.shape, job.classes, convention),
        shape=job.shape,
        folder=Path(job.folder),
        calibration=_calibration(job),
    )


class _Engine:
    """A model of a container, run by the device's own engine on one thread."""

    def __init__(self, model: bytes, container: Container) -> None:
        from edgeclf.exporting.tensors import tensors_of
        from edgeclf_device.engines import open_engine

        self._model = model
        self._tensors = tensors_of(model, container, "fp32")
        self._engine = open_engine(model, container)

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        from edgeclf.evaluation.scores import engine_scores

        return engine_scores(self._engine, self._tensors, pixels, description="")

    def converted(self, conversion: str) -> bytes:
        del conversion  # fp32 is the only one: the other schemes are made from it
        return self._model


def _given_tflite(job: Job, convention: Convention) -> bytes:
    from edgeclf.exporting import tflite_given
    from edgeclf.exporting.untrusted import read_bytes

    model = read_bytes(Path(job.keras_model))
    return tflite_given.from_pixels(tflite_given.network_of(model, job.shape, job.classes, convention))


def _given_onnx(job: Job, convention: Convention) -> bytes:
    from edgeclf.exporting import onnx_given

    return onnx_given.from_pixels(onnx_given.read_onnx(Path(job.keras_model)), job.shape, job.classes, convention)


def _calibration(job: Job) -> NDArray[np.uint8] | None:
    return None if job.calibration is None else np.asarray(np.load(job.calibration, allow_pickle=False))
