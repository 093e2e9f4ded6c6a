"""What a model answers, whatever its numbers are, and how far two models' answers lie apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.tflite_file import read_file
from edgeclf_device.engines import open_engine
from edgeclf_device.quantization import Quantization, dequantize


def scores_of(
    model: bytes, container: str, pixels: Iterable[NDArray[np.uint8]], *, threads: int = 1
) -> NDArray[np.float32]:
    """The scores, float32 (N, classes), that the container's engine gives for prepared images, each uint8 (H, W, C).

    Raises:
        DependencyError: the engine is not installed.
        ModelError: the engine refuses the model.
    """
    engine = open_engine(model, "tflite" if container == "tflite" else "onnx", threads=threads)
    try:
        rows = [engine.run(image[np.newaxis].astype(engine.input_dtype)) for image in pixels]
    finally:
        engine.close()
    answers = np.concatenate(rows)
    if np.issubdtype(answers.dtype, np.floating):
        return answers.astype(np.float32)
    (graph,) = read_file(model).subgraphs
    stated = graph.tensors[graph.outputs[0]].quantization
    return dequantize(answers, Quantization(scale=float(stated.scale[0]), zero_point=int(stated.zeroPoint[0])))


def distance(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Mean total variation of two models' scores, (N, classes) each: 0 is equal, 1 is certain of other classes."""
    return float(np.abs(scores - reference).sum(axis=1).mean() / 2)


def same_labels(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Share of images with the same best class."""
    return float((scores.argmax(axis=1) == reference.argmax(axis=1)).mean())
