"""Static int8 for .onnx models, from ranges that were estimated here.

Form: QDQ (QuantizeLinear and DequantizeLinear pairs round float operators, which an engine fuses), activations as the
target wants them, and int8 weights with one scale per output channel. One scale per tensor breaks networks with
depthwise convolutions (EfficientNet-Lite0: 0.41 of its labels stay). Source of the arithmetic:
onnxruntime.quantization, Microsoft, MIT.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeclf_calibration._imports import import_onnx, import_onnxruntime
from edgeclf_calibration.mixed_precision import Layer, layers_named
from edgeclf_calibration.onnx_canonical import respelled
from edgeclf_calibration.ranges import Range
from edgeclf_calibration.targets import DEFAULT, Target
from edgeclf_device.errors import ModelError, first_line

FLOAT_OPERATORS = frozenset({"Softmax"})
"""Left in float: they are a thousandth of the work, and 8 bits before an exponential cost accuracy."""

EXACT_INPUT_OPERATORS = frozenset({"Cast", "Mul", "Add", "Sub", "Div", "Transpose", "Reshape"})
"""Between the pixels and the first layer: left in float, so that the only rounding is that of the layer's input."""

FOLLOWERS = frozenset(
    {
        *("Relu", "Clip"),
        *("AveragePool", "Flatten", "Gather", "GatherElements", "MaxPool", "Pad", "Reshape", "Resize", "Slice"),
        *("Split", "Squeeze", "TopK", "Transpose", "Unsqueeze"),
    }
)
"""Part of the layer they follow: rectifiers, which melt into it, and what has its input's scale and so none without."""


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


WEIGHTED_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What they give is not rounded where a target's form is ``inputs_only``."""


def quantize_onnx(
    model: bytes, ranges: Mapping[str, Range], *, in_float: Collection[str] = (), target: Target = DEFAULT
) -> bytes:
    """Quantize an optimised fp32 model to w8a8; equal arguments give equal bytes.

    Args:
        model: result of ``optimised``, with one input.
        ranges: of every float tensor a node computes, by its name in ``model``.
        in_float: layers that stay in float32, by their names in ``layers_of``.
        target: what the model is to run on.

    Returns:
        .onnx bytes; input and outputs keep their names and types.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        ModelError: a tensor that must be quantized has no range.
        UsageError: ``in_float`` names what is no layer.
    """
    onnx = import_onnx()
    import_onnxruntime()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    proto = onnx.load_from_string(model)
    layers = layers_of(proto)
    kept = layers_named(in_float, layers)
    data = {
        name: TensorData(lowest=np.float32(value.low), highest=np.float32(value.high)) for name, value in ranges.items()
    }
    quantizer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=target.weight_limit == 64,  # of the weights alone: -64 to 64, not -127 to 127
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if target.activations == "int8" else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[*nodes_in_float(proto), *(node.name for name in kept for node in layers[name])],
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
        extra_options={
            "ActivationSymmetric": target.symmetric,
            "QuantizeBias": not target.inputs_only,
            "DedicatedQDQPair": target.inputs_only,
            "OpTypesToExcludeOutputQuantization": list(WEIGHTED_OPERATORS) if target.inputs_only else [],
        },
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


def layers_of(proto: Any) -> dict[str, list[Any]]:
    """What is quantized or left in float as a whole: the nodes of each layer, by the name of the tensor it gives.

    A layer is a node that quantization gives a scale of its own, and after it its ``FOLLOWERS``. Its tensor is the one
    behind its rectifier, and before anything else that follows. Layers are in the order in which they run.

    Args:
        proto: result of ``optimised``, parsed.

    Raises:
        DependencyError: onnxruntime is not installed.
    """
    import_onnxruntime()
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    left_out = set(nodes_in_float(proto))
    layers: list[list[Any]] = []
    owner: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        if node.name in left_out or node.op_type not in {*QDQRegistry, *QLinearOpsRegistry}:
            continue
        layer = owner.get(node.input[0]) if node.op_type in FOLLOWERS else None
        if layer is None:
            layer = []
            layers.append(layer)
        layer.append(node)
        owner.update(dict.fromkeys(node.output, layer))
    return {_given_by(layer): layer for layer in layers}


def _given_by(layer: list[Any]) -> str:
    name = str(layer[0].output[0])
    rectified = {node.input[0]: str(node.output[0]) for node in layer[1:] if node.op_type in {"Relu", "Clip"}}
    return rectified.get(name, name)


def onnx_layers(model: bytes) -> tuple[Layer, ...]:
    """The layers of an .onnx model, in the order in which they run.

    Args:
        model: result of ``optimised``.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
    """
    proto = import_onnx().load_from_string(model)
    graph = proto.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
    return tuple(
        Layer(name=name, kind=nodes[0].op_type, multiply_accumulates=_multiply_accumulates(nodes[0], shapes))
        for name, nodes in layers_of(proto).items()
    )


def _multiply_accumulates(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return 0
    data, weights, result = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weights[1:])
    return math.prod(data) * result[-1]
