"""Static int8 for .onnx models, from ranges that were estimated here.

Form: QDQ (QuantizeLinear and DequantizeLinear pairs round float operators, which an engine fuses), uint8 activations
and int8 weights with one scale per output channel. One scale per tensor breaks networks with depthwise convolutions
(EfficientNet-Lite0: 0.41 of its labels stay). Source of the arithmetic: onnxruntime.quantization, Microsoft, MIT.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeclf_calibration._imports import import_onnx, import_onnxruntime
from edgeclf_calibration.onnx_canonical import respelled
from edgeclf_calibration.ranges import Range
from edgeclf_device.errors import ModelError, first_line

FLOAT_OPERATORS = frozenset({"Softmax"})
"""Left in float: they are a thousandth of the work, and 8 bits before an exponential cost accuracy."""

EXACT_INPUT_OPERATORS = frozenset({"Cast", "Mul", "Add", "Sub", "Div", "Transpose", "Reshape"})
"""Between the pixels and the first layer: left in float, so that the only rounding is that of the layer's input."""


def optimised(model: bytes) -> bytes:
    """The model as the quantizer wants it: constants folded, batch normalization fused, shapes inferred.

    The names of tensors change, so ranges must be observed on the result.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        ModelError: ONNX Runtime refuses the model.
    """
    onnx, onnxruntime = import_onnx(), import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Basic: standard operators alone, as in onnxruntime.quantization.quant_pre_process, which only logs a failure.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="edgeclf-") as folder:
        path = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
            raise ModelError(f"ONNX Runtime refuses the model: {first_line(error)}; export it again.") from error
        smaller = path.read_bytes()
    # Canonical, because nodes are told apart by their names below, and a converter may leave them without.
    named = onnx.load_from_string(respelled(smaller, like=onnx.load_from_string(model)))
    result: bytes = onnx.shape_inference.infer_shapes(named).SerializeToString()
    return result


def quantize_onnx(model: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Quantize an optimised fp32 model to w8a8; equal arguments give equal bytes.

    Args:
        model: result of ``optimised``, with one input and one output.
        ranges: of every float tensor a node computes, by its name in ``model``.

    Returns:
        .onnx bytes; input and output keep their names and types.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        ModelError: a tensor that must be quantized has no range.
    """
    onnx = import_onnx()
    import_onnxruntime()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    proto = onnx.load_from_string(model)
    data = {
        name: TensorData(lowest=np.float32(value.low), highest=np.float32(value.high)) for name, value in ranges.items()
    }
    quantizer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=nodes_in_float(proto),
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
        extra_options={},
    )
    try:
        quantizer.quantize_model()
    except ValueError as error:
        raise ModelError(
            f"The model can't be quantized: {error}; observe its ranges on the optimised model."
        ) from error
    return respelled(quantizer.model.model.SerializeToString(), like=proto)


def nodes_in_float(proto: Any) -> list[str]:
    """Names of the nodes that quantization leaves alone: see ``FLOAT_OPERATORS`` and ``EXACT_INPUT_OPERATORS``."""
    reached = {value.name for value in proto.graph.input}
    constants = {tensor.name for tensor in proto.graph.initializer}
    names: list[str] = []
    for node in proto.graph.node:
        from_pixels = node.op_type in EXACT_INPUT_OPERATORS and all(
            name in reached or name in constants for name in node.input
        )
        if from_pixels and not constants.issuperset(node.input):
            reached.update(node.output)
        if from_pixels or node.op_type in FLOAT_OPERATORS:
            names.append(node.name)
    return names
