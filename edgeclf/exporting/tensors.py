"""What goes into and comes out of a converted model, read from the model itself, and what conversion must not leave."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from edgeclf_calibration.tflite_file import operators, read_file
from edgeclf_device.clips import ClipSpec
from edgeclf_device.engines import missing, open_engine
from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import IMAGES, VIDEO, Container, Scheme, Tensor
from edgeclf_device.quantization import Quantization

HEAVY_OPERATORS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"})
"""Nearly all of a .tflite network's multiplications."""


def tensors_of(
    model: bytes, container: Container, scheme: Scheme, *, clip: ClipSpec | None = None, in_float: Collection[str] = ()
) -> tuple[Tensor, Tensor]:
    """The manifest's input and output of a model; the input's values are the pixels as they are, in float32 for w8a16.

    ``clip`` is the window of a video model; ``in_float`` names the layers that were left in float on purpose.

    Raises:
        ModelError: the input is of another type, or a static int8 .tflite model still multiplies in float.
        DependencyError: the container's engine is not installed.
    """
    if container == "tflite" and scheme == "w8a8" and not in_float:
        _check_integers(model)
    image, scores = _tflite(model) if container == "tflite" else _other(model, container)
    wanted = "float32" if scheme == "w8a16" else "uint8"
    if image.dtype != wanted:
        raise ModelError(f"The model must take pixels as {wanted}, but the converter made its input {image.dtype}.")
    if clip is not None:
        image = replace(image, layout=VIDEO, window=clip.window, stride=clip.stride, fps=clip.fps)
    return image, scores


def _other(model: bytes, container: Container) -> tuple[Tensor, Tensor]:
    engine = open_engine(model, container)
    try:
        image = Tensor(name=engine.input_name, dtype=engine.input_dtype, shape=engine.input_shape, layout=IMAGES)
        scores = Tensor(name=engine.output_name, dtype=engine.output_dtype, shape=engine.output_shape, layout="NC")
    finally:
        engine.close()
    return image, scores


def _tflite(model: bytes) -> tuple[Tensor, Tensor]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing("litert", error) from error
    # The plain kernels: a delegate would hide tensors of the graph.
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=_plain_kernels())
    interpreter.allocate_tensors()
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    quantized = np.issubdtype(scores["dtype"], np.integer)
    return _tensor(image, IMAGES, None), _tensor(scores, "NC", _quantization(scores) if quantized else None)


def _check_integers(model: bytes) -> None:
    """Check that whatever multiplies by weights does so in integers; sums before it or beside it may stay in float."""
    heavy = [step for step in operators(read_file(model)) if step.kind in HEAVY_OPERATORS]
    floats = [step.outputs[0].name for step in heavy if step.outputs[0].is_float]
    if floats:
        raise ModelError(
            f"The convolutions and products of a w8a8 model must be in integers, but the quantizer left {len(floats)} "
            f"of {len(heavy)} in float (the first is {floats[0]}); leave w8a8 out."
        )


def _plain_kernels() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def _quantization(details: Any) -> Quantization:
    scale, zero_point = details["quantization"]
    return Quantization(scale=float(scale), zero_point=int(zero_point))


def _tensor(details: Any, layout: str, quantization: Quantization | None) -> Tensor:
    return Tensor(
        name=str(details["name"]),
        dtype=np.dtype(details["dtype"]).name,
        shape=tuple(int(side) for side in details["shape"]),
        layout=layout,
        quantization=quantization,
    )
