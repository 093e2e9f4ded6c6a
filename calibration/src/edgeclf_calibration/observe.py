"""Runs an fp32 .onnx model over calibration images and shows every float tensor inside it to observers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_onnx, import_onnxruntime
from edgeclf_calibration.ranges import Observer
from edgeclf_device.errors import DataError
from edgeclf_device.progress import Progress, no_progress


def anchored(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of uint8 (N, H, W, C), or (N, T, H, W, C), whose first image begins with a 0 and ends with a 255.

    With it the range of the image itself is exactly 0 to 255 whatever the images show, so the input's scale is that
    of the pixels and the input loses nothing.

    Raises:
        DataError: ``pixels`` is of another kind, or without images.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in {4, 5} or 0 in pixels.shape:
        raise DataError(
            "Calibration images must be uint8 (N, H, W, C), or clips (N, T, H, W, C), with N at least 1, "
            f"but they are {pixels.dtype} {pixels.shape}."
        )
    copy = pixels.copy()
    first = copy[0].reshape(-1, copy.shape[-1])
    first[0], first[-1] = 0, 255
    return copy


def observe(
    model: bytes,
    pixels: NDArray[np.uint8],
    *observers: Observer,
    threads: int = 1,
    progress: Progress = no_progress,
) -> None:
    """Run ``model`` on each image and show all its float tensors to the observers, one image at a time.

    Args:
        model: fp32 .onnx bytes with one uint8 input of static shape (1, H, W, C).
        pixels: uint8 (N, H, W, C), prepared images.
        *observers: are shown the tensors under their names in the graph.
        threads: how many to compute with.
        progress: shows one step for each image.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        ModelError: a tensor holds a NaN or an infinity.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Fusing would hide the tensors between two fused nodes.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(_exposed(model), options, providers=["CPUExecutionProvider"])
    (model_input,) = session.get_inputs()
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    for image in progress(pixels, "Observing ranges", len(pixels)):
        values: list[NDArray[Any]] = session.run(names, {model_input.name: image[np.newaxis]})
        tensors = dict(zip(names, values, strict=True))
        for observer in observers:
            observer.update(tensors)


def _exposed(model: bytes) -> bytes:
    """The model with every float tensor that a node computes among its outputs."""
    onnx = import_onnx()
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    graph = proto.graph
    outputs = {output.name for output in graph.output}
    computed = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    for value in graph.value_info:
        is_float = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        if is_float and value.name in computed and value.name not in outputs:
            graph.output.append(value)
    exposed: bytes = proto.SerializeToString()
    return exposed
