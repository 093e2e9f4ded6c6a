"""Runs an fp32 .tflite model over calibration images and shows every float tensor inside it to observers.

And finds which tensors of two files of one network are the same, so that one set of ranges quantizes both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.ranges import Observer
from edgeclf_calibration.tflite_file import float_tensors, operators, read_file
from edgeclf_device.errors import ModelError, first_line
from edgeclf_device.progress import Progress, no_progress

TOLERANCE = 1e-3
"""Two engines' values of one tensor differ by less, relative to the largest (seen: 1e-5); those of two tensors, by
more (seen: 0.07)."""


def observe_tflite(
    model: bytes,
    pixels: NDArray[np.uint8],
    *observers: Observer,
    threads: int = 1,
    progress: Progress = no_progress,
) -> None:
    """Run ``model`` on each image and show all its float tensors to the observers, one image at a time.

    Args:
        model: fp32 .tflite bytes with one input of static shape (1, H, W, C), uint8 or float32 holding 0 to 255.
        pixels: uint8 (N, H, W, C), prepared images.
        *observers: are shown the tensors under their names in the file; a float32 input is one of them.
        threads: how many to compute with.
        progress: shows one step for each image.

    Raises:
        DependencyError: ai-edge-litert is not installed.
        ModelError: LiteRT refuses the model or the images' shape, or a tensor holds a NaN or an infinity.
    """
    places = float_tensors(operators(read_file(model)))
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        # A delegate would hide the tensors between two operators.
        interpreter = Interpreter(
            model_content=model,
            num_threads=threads,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        (model_input,) = interpreter.get_input_details()
        for image in progress(pixels, "Observing ranges", len(pixels)):
            interpreter.set_tensor(model_input["index"], image[np.newaxis].astype(model_input["dtype"]))
            interpreter.invoke()
            tensors = {name: interpreter.get_tensor(index) for name, index in places.items()}
            for observer in observers:
                observer.update(tensors)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"LiteRT can't run the model: {first_line(error)}; export it again.") from error


class LastTensors:
    """Keeps the tensors of the last image: an ``Observer``."""

    def __init__(self) -> None:
        self.tensors: dict[str, NDArray[np.floating[Any]]] = {}

    def update(self, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """See ``Observer.update``."""
        self.tensors = dict(tensors)


def counterparts(
    tensors: Mapping[str, NDArray[np.floating[Any]]], others: Mapping[str, NDArray[np.floating[Any]]]
) -> dict[str, str]:
    """Which of ``others`` is the same tensor of the network, by its name in ``tensors``.

    Two converters name tensors differently and order their axes differently (NHWC, NCHW), but one image gives the
    same values in both files: sorted, they are compared. A tensor that only one of the files has (a convolution
    before its activation is fused into it) has no counterpart and is left out.

    Args:
        tensors: of one image in one file, of any shapes.
        others: of the same image in the other file.
    """
    by_size: dict[int, dict[str, NDArray[Any]]] = defaultdict(dict)
    for name, values in others.items():
        by_size[values.size][name] = np.sort(values, axis=None)
    found: dict[str, str] = {}
    for name, values in tensors.items():
        ordered = np.sort(values, axis=None)
        distances = {other: float(np.abs(ordered - those).max()) for other, those in by_size[values.size].items()}
        nearest = min(distances, key=lambda other: distances[other], default=None)
        if nearest is not None and distances[nearest] <= TOLERANCE * float(np.abs(ordered).max()):
            found[name] = nearest
    return found
