"""Lets the pixels of a quantized .tflite model be its first layer's input, where the float arithmetic between cancels.

A float network begins with cast, scale and shift of its uint8 pixels, and int8 quantization ends it with a QUANTIZE. If
the range of the result is that of the pixels, all of it together turns pixel p into p - 128: one operator says so too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.tflite_file import Operator, operators, packed, read_file

_ARITHMETIC = {"MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "DIV": np.divide}


def pixels_first(model: bytes) -> bytes:
    """The model with one QUANTIZE in the place of all arithmetic on its pixels; as it is where that changes a value.

    The uint8 input then states the scale and zero point that make a pixel the float value it stands for.

    Args:
        model: .tflite bytes of an int8 model with one uint8 input.

    Raises:
        DependencyError: ai-edge-litert is not installed.
        ModelError: the bytes are no TensorFlow Lite model.
    """
    file = read_file(model)
    (graph,) = file.subgraphs
    chain = _chain(operators(file), graph.tensors[graph.inputs[0]].name.decode())
    if not chain or not _cancels(chain, file):
        return model
    last, image = chain[-1].outputs[0].index, graph.inputs[0]
    stated = graph.tensors[last].quantization
    like = type(stated)()
    like.scale, like.zeroPoint = stated.scale, [int(stated.zeroPoint[0]) + 128]
    graph.tensors[image].quantization = like
    graph.operators[len(chain) - 1].inputs = [image]
    del graph.operators[: len(chain) - 1]
    return packed(file)


def _chain(steps: tuple[Operator, ...], image: str) -> tuple[Operator, ...]:
    """The operators that the pixels alone pass, up to the QUANTIZE to int8; empty where there is no such beginning."""
    chain: list[Operator] = []
    for step in steps:
        varying = [tensor.name for tensor in step.inputs if tensor.values is None]
        constants = [tensor.values for tensor in step.inputs if tensor.values is not None]
        expected = chain[-1].outputs[0].name if chain else image
        known = step.kind in {"CAST", "QUANTIZE"} or (step.kind in _ARITHMETIC and len(constants) == 1)
        if varying != [expected] or not known or any(one.size != 1 for one in constants):
            return ()
        chain.append(step)
        if step.kind == "QUANTIZE":
            read = {tensor.name for other in steps[len(chain) :] for tensor in other.inputs}
            alone = len(chain) > 1 and not read & {tensor.name for one in chain[:-1] for tensor in one.outputs}
            return tuple(chain) if alone and image not in read else ()
    return ()


def _cancels(chain: tuple[Operator, ...], file: Any) -> bool:
    """Whether each of the 256 pixel values p becomes p - 128."""
    from ai_edge_litert.schema_py_generated import TensorType

    (graph,) = file.subgraphs
    last = graph.tensors[chain[-1].outputs[0].index]
    if last.type != TensorType.INT8 or len(last.quantization.scale) != 1:
        return False
    values: NDArray[Any] = np.arange(256, dtype=np.float32)
    for step in chain[:-1]:
        if step.kind != "CAST":
            first, second = (values if tensor.values is None else tensor.values for tensor in step.inputs)
            values = np.asarray(_ARITHMETIC[step.kind](first, second), np.float32).reshape(-1)
    made = np.rint(values / np.float32(last.quantization.scale[0])) + int(last.quantization.zeroPoint[0])
    return bool(np.array_equal(np.clip(made, -128, 127), np.arange(-128, 128)))
