"""Convolutions and dense layers of a float file in one form for both formats: what changes weights is written once.

Weights are (out, height, width, in / groups) and tensors are (…, channels) here, as .tflite files have them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_onnx
from edgeclf_calibration.tflite_file import add_constant, operators, packed, read_file

_ONNX_ACTIVATIONS = {"Relu", "Clip"}


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A convolution (a depthwise one has a group for each channel) or a dense layer, which is one of 1 × 1.

    Attributes:
        place: of its operator in the file.
        input: name of the tensor it reads.
        output: name of the tensor it gives, behind a rectifier that alone follows it.
        read_once: whether one operator alone reads ``output``.
        weights: float32 (out, height, width, in / groups).
        bias: float32 (out,); None: it has none, and there is no place for one.
        dense: whether it is a dense layer.
        groups: of channels.
        strides: down and right.
        pads: ((top, bottom), (left, right)); None: as TensorFlow's "same", by the size of the input.
        dilations: down and right.
    """

    place: int
    input: str
    output: str
    read_once: bool
    weights: NDArray[np.float32] = field(repr=False)
    bias: NDArray[np.float32] | None = field(repr=False)
    dense: bool = False
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] | None = ((0, 0), (0, 0))
    dilations: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Change:
    """New weights and bias of a layer, in the shapes of ``Weighted``; ``bias`` None leaves it as it is."""

    weights: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]] | None


def weighted_tflite(model: bytes) -> tuple[Weighted, ...]:
    """The layers of fp32 .tflite bytes with constant weights, in the order in which they run.

    Raises:
        DependencyError: ai-edge-litert is not installed.
        ModelError: the bytes are no TensorFlow Lite model.
    """
    file = read_file(model)
    (graph,) = file.subgraphs
    steps = operators(file)
    readers = Counter(tensor.name for step in steps for tensor in step.inputs)
    found = []
    for place, step in enumerate(steps):
        options = graph.operators[place].builtinOptions
        if step.kind not in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} or step.inputs[1].values is None:
            continue
        if not step.inputs[1].is_float or (step.kind == "DEPTHWISE_CONV_2D" and options.depthMultiplier != 1):
            continue
        dense = step.kind == "FULLY_CONNECTED"
        weights, groups = step.inputs[1].values, 1
        if dense:
            weights = weights[:, None, None, :]
        elif step.kind == "DEPTHWISE_CONV_2D":
            weights, groups = np.moveaxis(weights[0], 2, 0)[..., None], weights.shape[3]
        window: dict[str, Any] = {}
        if not dense:
            window = {
                "strides": (options.strideH, options.strideW),
                "dilations": (options.dilationHFactor, options.dilationWFactor),
                "pads": None if options.padding == 0 else ((0, 0), (0, 0)),  # 0 is SAME, 1 is VALID
            }
        found.append(
            Weighted(
                place=place,
                input=step.inputs[0].name,
                output=step.outputs[0].name,
                read_once=readers[step.outputs[0].name] == 1,
                weights=weights,
                bias=step.inputs[2].values if len(step.inputs) == 3 else None,
                dense=dense,
                groups=groups,
                **window,
            )
        )
    return tuple(found)


def changed_tflite(model: bytes, changes: Mapping[int, Change]) -> bytes:
    """.tflite bytes with other weights and biases, by ``Weighted.place``."""
    file = read_file(model)
    (graph,) = file.subgraphs
    steps = operators(file)
    for place, change in changes.items():
        step, weights = steps[place], change.weights.astype(np.float32)
        if step.kind == "DEPTHWISE_CONV_2D":
            weights = np.moveaxis(weights[..., 0], 0, 2)[None]
        elif step.kind == "FULLY_CONNECTED":
            weights = weights[:, 0, 0, :]
        graph.operators[place].inputs[1] = add_constant(file, step.inputs[1], weights)
        if change.bias is not None:
            graph.operators[place].inputs[2] = add_constant(file, step.inputs[2], change.bias.astype(np.float32))
    return packed(file)


def weighted_onnx(model: bytes) -> tuple[Weighted, ...]:
    """The layers of ``optimised`` fp32 .onnx bytes with constant weights, in the order in which they run.

    Raises:
        DependencyError: onnx is not installed.
    """
    onnx = import_onnx()
    proto = onnx.load_from_string(model)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    made = {place: _onnx_layer(node, constants) for place, node in enumerate(proto.graph.node)}
    found = []
    for place, parts in made.items():
        if parts is None:
            continue
        node = proto.graph.node[place]
        output, followers = node.output[0], readers.get(node.output[0], [])
        if len(followers) == 1 and followers[0].op_type in _ONNX_ACTIVATIONS:
            output = followers[0].output[0]
        alone = len(readers.get(output, [])) == 1
        found.append(Weighted(place=place, input=node.input[0], output=output, read_once=alone, **parts))
    return tuple(found)


def _onnx_layer(node: Any, constants: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or len(node.input) < 2 or node.input[1] not in constants:
        return None
    weights = constants[node.input[1]]
    has_bias = len(node.input) == 3 and node.input[2] in constants
    bias = constants[node.input[2]].reshape(-1) if has_bias else None
    chosen = {one.name: list(one.ints) or one.i for one in node.attribute}
    if node.op_type != "Conv":
        if weights.ndim != 2 or chosen.get("transA", 0):
            return None
        weights = weights if chosen.get("transB", 0) else weights.T
        return {"weights": weights[:, None, None, :], "bias": bias, "dense": True}
    if weights.ndim != 4:
        return None
    top, left, bottom, right = chosen.get("pads", [0, 0, 0, 0])
    return {
        "weights": weights.transpose(0, 2, 3, 1),
        "bias": bias,
        "groups": chosen.get("group", 1),
        "strides": tuple(chosen.get("strides", [1, 1])),
        "dilations": tuple(chosen.get("dilations", [1, 1])),
        "pads": ((top, bottom), (left, right)),
    }


def changed_onnx(model: bytes, changes: Mapping[int, Change]) -> bytes:
    """.onnx bytes with other weights and biases, by ``Weighted.place``."""
    onnx = import_onnx()
    proto = onnx.load_from_string(model)
    constants = {one.name: one for one in proto.graph.initializer}
    for place, change in changes.items():
        node = proto.graph.node[place]
        weights = change.weights.astype(np.float32, copy=False)
        if node.op_type == "Conv":
            weights = weights.transpose(0, 3, 1, 2)
        elif not any(one.name == "transB" and one.i for one in node.attribute):
            weights = weights[:, 0, 0, :].T
        _replace(node, 1, weights.reshape(tuple(constants[node.input[1]].dims)), proto, onnx)
        if change.bias is not None:
            _replace(node, 2, change.bias.astype(np.float32), proto, onnx)
    result: bytes = proto.SerializeToString()
    return result


def _replace(node: Any, number: int, values: NDArray[np.float32], proto: Any, onnx: Any) -> None:
    """Give an input of a node a constant of its own: layers may share one."""
    old = node.input[number]
    others = sum(list(other.input).count(old) for other in proto.graph.node)
    if others > 1:
        node.input[number] = f"{old}.{node.output[0]}"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, node.input[number]))
    else:
        (tensor,) = (one for one in proto.graph.initializer if one.name == old)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), old))


def channels_last(values: NDArray[Any], container: str) -> NDArray[Any]:
    """A tensor of a file of ``container`` with its channels on the last axis: images in .onnx have them second."""
    return np.moveaxis(values, 1, 3) if container == "onnx" and values.ndim == 4 else values


def patches(values: NDArray[np.float32], layer: Weighted, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """What ``layer`` multiplies with its weights at some of its output's places.

    Args:
        values: its input, (1, H, W, channels), or (…, channels) for a dense layer.
        layer: which.
        places: numbers of output places, counted row by row; taken modulo how many there are.

    Returns:
        float32 (len(places), groups, height · width · in / groups), in the order of the weights' axes.
    """
    if layer.weights.shape[1:3] == (1, 1) and layer.strides == (1, 1):
        rows = values.reshape(-1, values.shape[-1])
        chosen = rows[places % len(rows)]
        return np.ascontiguousarray(chosen.reshape(len(chosen), layer.groups, -1))
    height, width = layer.weights.shape[1:3]
    down, right = layer.dilations
    reach = ((height - 1) * down + 1, (width - 1) * right + 1)
    image = values[0]
    pads = layer.pads or tuple(_same(image.shape[axis], reach[axis], layer.strides[axis]) for axis in (0, 1))
    image = np.pad(image, (*pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(0, 1))
    windows = windows[:: layer.strides[0], :: layer.strides[1], :, ::down, ::right]
    rows, columns, channels = windows.shape[:3]
    places = places % (rows * columns)
    chosen = windows[places // columns, places % columns]  # (places, channels, height, width)
    grouped = chosen.reshape(len(places), layer.groups, channels // layer.groups, height, width)
    return np.ascontiguousarray(grouped.transpose(0, 1, 3, 4, 2).reshape(len(places), layer.groups, -1))


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding "same" on one axis."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2
