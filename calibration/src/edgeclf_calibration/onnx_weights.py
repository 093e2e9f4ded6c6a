"""Smaller weights for .onnx models that still compute in float: float16, and int8 with one scale per output channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeclf_calibration._imports import import_onnx, import_onnxruntime
from edgeclf_calibration.bias_correction import rounded
from edgeclf_calibration.onnx_canonical import respelled

OUTPUT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
"""The axis of an operator's second input that counts its output channels; a transposed Gemm has it first."""

LEAST_VALUES = 256
"""Smaller tensors stay as they are: scales and operators would outweigh what is saved."""


def half_precision(model: bytes) -> bytes:
    """The model with weights and arithmetic in float16; input and output keep their types.

    Casts stay in float32, because pixels reach the network through one, and so does Softmax. Source:
    onnxruntime.transformers.float16, Microsoft, MIT.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
    """
    onnx = import_onnx()
    import_onnxruntime()
    from onnxruntime.transformers import float16

    proto = onnx.load_from_string(model)
    block = [*float16.DEFAULT_OP_BLOCK_LIST, "Cast", "Softmax"]
    smaller = float16.convert_float_to_float16(proto, keep_io_types=True, op_block_list=block)
    return respelled(smaller.SerializeToString(), like=proto)


def quantize_weights(model: bytes) -> bytes:
    """The model with int8 weights, symmetric, one scale per output channel, which are turned into float32 to compute.

    Nothing is calibrated. What is smaller is the file: ONNX Runtime multiplies constants out when it loads them, and
    then computes as in fp32. (It would not do so for DequantizeLinear: EfficientNet-Lite0 became 2.4 times slower.)

    Raises:
        DependencyError: onnx is not installed.
    """
    onnx = import_onnx()
    proto = onnx.load_from_string(model)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    axes = {
        node.input[1]: _axis(node, weights[node.input[1]])
        for node in proto.graph.node
        if node.op_type in OUTPUT_AXES and node.input[1] in weights
    }
    nodes = []
    for name, axis in axes.items():
        tensor = weights[name]
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LEAST_VALUES:
            continue
        whole, scale = rounded(values, axis=axis)
        tensor.CopyFrom(onnx.numpy_helper.from_array(whole, f"{name}.int8"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
        nodes += [
            onnx.helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]),
        ]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
    return respelled(proto.SerializeToString(), like=onnx.load_from_string(model))


def _axis(node: Any, weights: Any) -> int:
    is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    axis = 0 if node.op_type == "Gemm" and is_transposed else OUTPUT_AXES[node.op_type]
    return axis % len(weights.dims)
