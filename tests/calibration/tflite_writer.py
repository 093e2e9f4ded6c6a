"""Writes .tflite files operator by operator, and with them the twin of the tiny .onnx classifier."""

from __future__ import annotations

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from onnx import numpy_helper

FLOAT, UINT8, INT32 = (getattr(schema.TensorType, name) for name in ("FLOAT32", "UINT8", "INT32"))
RELU6 = schema.ActivationFunctionType.RELU6
OPTIONS = {
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "MEAN": "Reducer",
    "FULLY_CONNECTED": "FullyConnected",
}
"""The schema's name of an operator's options, where it is not the operator's own."""


class Writer:
    """A .tflite file, written operator by operator."""

    def __init__(self) -> None:
        self.tensors: list = []
        self.buffers = [schema.BufferT()]
        self.codes: list = []
        self.operators: list = []

    def tensor(self, name: str, shape: tuple[int, ...], dtype: int = FLOAT) -> int:
        self.tensors.append(schema.TensorT(name=name.encode(), shape=list(shape), type=dtype, buffer=0))
        return len(self.tensors) - 1

    def constant(self, name: str, values: np.ndarray) -> int:
        place = self.tensor(name, values.shape, INT32 if values.dtype == np.int32 else FLOAT)
        self.tensors[place].buffer = len(self.buffers)
        self.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        return place

    def operator(self, kind: str, inputs: list[int], name: str, shape: tuple[int, ...], **options: int) -> int:
        result = self.tensor(name, shape)
        code = getattr(schema.BuiltinOperator, kind)
        self.codes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1))
        group = OPTIONS.get(kind, kind.title())
        one = schema.OperatorT(opcodeIndex=len(self.codes) - 1, inputs=inputs, outputs=[result])
        one.builtinOptionsType = getattr(schema.BuiltinOptions, f"{group}Options")
        one.builtinOptions = getattr(schema, f"{group}OptionsT")(**options)
        self.operators.append(one)
        return result

    def file(self, first: int, last: int, *, signature: bool) -> bytes:
        graph = schema.SubGraphT(tensors=self.tensors, operators=self.operators, inputs=[first], outputs=[last])
        ends = {
            "inputs": [schema.TensorMapT(name=b"image", tensorIndex=first)],
            "outputs": [schema.TensorMapT(name=b"scores", tensorIndex=last)],
        }
        named = [schema.SignatureDefT(signatureKey=b"serve", subgraphIndex=0, **ends)] if signature else None
        file = schema.ModelT(
            version=3, operatorCodes=self.codes, subgraphs=[graph], buffers=self.buffers, signatureDefs=named
        )
        return bytes(flatbuffer_utils.convert_object_to_bytearray(file))


def twin(fp32_model: bytes, *, input_dtype: int = UINT8, signature: bool = True, **other: np.ndarray) -> bytes:
    """The .tflite file of the network of ``fp32_model``, as a converter would write it; ``other`` replaces weights."""
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(fp32_model).graph.initializer}
    weights["w2"] = weights["w2"] * weights["gain"].reshape(8, 1, 1, 1)
    weights |= {"b2": np.zeros(8, np.float32)} | other
    write = Writer()
    plane, rgb = (1, 12, 12, 8), (1, 12, 12, 3)

    def convolution(data: int, number: int, activation: int) -> int:
        kernel = write.constant(f"w{number}", np.ascontiguousarray(weights[f"w{number}"].transpose(0, 2, 3, 1)))
        inputs = [data, kernel, write.constant(f"b{number}", weights[f"b{number}"])]
        steps = {"strideW": 1, "strideH": 1, "fusedActivationFunction": activation}
        return write.operator("CONV_2D", inputs, f"conv{number}", plane, **steps)

    image = write.tensor("image", rgb, input_dtype)
    pixels = write.operator("CAST", [image], "float", rgb) if input_dtype == UINT8 else image
    scaled = write.operator("MUL", [pixels, write.constant("scale", weights["scale"])], "scaled", rgb)
    shifted = write.operator("ADD", [scaled, write.constant("offset", weights["offset"])], "shifted", rgb)
    first = convolution(shifted, 1, RELU6)
    total = write.operator("ADD", [convolution(first, 2, 0), first], "sum", plane)
    mean = write.operator("MEAN", [total, write.constant("axes", np.array([1, 2], np.int32))], "mean", (1, 8))
    dense = write.constant("w3", np.ascontiguousarray(weights["w3"].T))
    logits = write.operator("FULLY_CONNECTED", [mean, dense, write.constant("b3", weights["b3"])], "logits", (1, 3))
    scores = write.operator("SOFTMAX", [logits], "scores", (1, 3), beta=1.0)
    return write.file(image, scores, signature=signature)
