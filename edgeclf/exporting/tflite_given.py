"""Makes any fp32 .tflite classifier take uint8 pixels and answer probabilities, without TensorFlow.

What stands between the pixels and the network, ``pixel * scale + offset``, is one operator that quantizes without loss:
scalar arithmetic that vanishes into the quantization of the input, or a convolution of 1×1, one weight per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.convention import Convention, require_classes, require_identity
from edgeclf_calibration.tflite_file import Operator, operators, packed, read_file
from edgeclf_device.errors import ModelError

_FLOAT, _INTEGERS = "FLOAT32", ("INT32", "INT64", "BOOL")
"""Types of tensors in an fp32 model: numbers, and counts such as shapes."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """An fp32 .tflite model whose input is what ``convention`` makes of the pixels; its outputs are probabilities.

    Attributes:
        model: .tflite bytes with a float32 input.
        shape: (height, width, channels) of the pixels.
        convention: from the pixels to that input.
        channels_first: whether the input is (1, C, H, W).
    """

    model: bytes
    shape: tuple[int, ...]
    convention: Convention
    channels_first: bool


def network_of(model: bytes, shape: tuple[int, ...], classes: int, convention: Convention) -> Network:
    """Look at a user's .tflite model, take its own arithmetic on the pixels off, and end it in probabilities.

    Args:
        model: .tflite bytes, fp32, with one input and one output; its batch becomes 1.
        shape: (height, width, channels) of the prepared images.
        classes: number of labels.
        convention: from the pixels to the model's input.

    Raises:
        ModelError: no .tflite model, or one that is quantized already, has other inputs or outputs than a classifier,
            takes another shape, or answers for another number of classes.
        DependencyError: ai-edge-litert is not installed.
    """
    file = read_file(model)
    (graph,) = file.subgraphs
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"A classifier must have one input and one output, but the model has {len(graph.inputs)} and "
            f"{len(graph.outputs)}; give a model with one of each."
        )
    channels_first = _fix_batch(file, shape)
    _check_scores(graph.tensors[graph.outputs[0]], classes)
    of_pixels = _type(graph.tensors[graph.inputs[0]]) == "UINT8"
    if of_pixels:
        require_identity(convention)
    if not channels_first:
        convention = _peeled(file, convention)
    _check_float(file)
    if convention.logits:
        _add_softmax(file, classes)
    file.signatureDefs = None  # they name tensors that are gone
    return Network(model=packed(file), shape=shape, convention=convention, channels_first=channels_first)


def from_pixels(network: Network) -> bytes:
    """The fp32 model that takes uint8 (1, H, W, C) pixels."""
    file = read_file(network.model)
    if network.convention.is_quantization and not network.channels_first:
        _prepend_arithmetic(file, network.convention)
    else:
        _prepend_convolution(file, network)
    (graph,) = file.subgraphs
    given = graph.inputs[0]
    pixels = _tensor(file, "pixels", network.shape, "UINT8")
    _prepend(file, "CAST", [pixels], given)
    graph.inputs = [pixels]
    return packed(file)


def _fix_batch(file: Any, shape: tuple[int, ...]) -> bool:
    """Make every dimension static; whether the input has its channels first."""
    (graph,) = file.subgraphs
    image = graph.tensors[graph.inputs[0]]
    given = tuple(int(side) for side in (image.shape if image.shapeSignature is None else image.shapeSignature))
    layouts = {False: shape, True: (shape[2], *shape[:2])}
    fitting = [first for first, sides in layouts.items() if given[1:] == sides]
    if len(given) != 4 or given[0] not in (-1, 1) or not fitting:
        raise ModelError(
            f"The preprocessing makes images of (1, {', '.join(map(str, shape))}), but the model's input is {given}; "
            "give its height, width and channels, and convert a model whose height and width change to one size first."
        )
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    return fitting[0]


def _check_scores(scores: Any, classes: int) -> None:
    given = tuple(int(side) for side in scores.shape)
    if len(given) != 2 or given[0] != 1:
        raise ModelError(f"A classifier's output must be (1, classes), but the model's is {given}; give such a model.")
    require_classes(given[1], classes)


def _check_float(file: Any) -> None:
    """Check that nothing in the graph is quantized or halved already."""
    (graph,) = file.subgraphs
    used = {index for step in graph.operators for index in (*step.inputs, *step.outputs) if index >= 0}
    for tensor in (graph.tensors[index] for index in sorted(used)):
        if _type(tensor) not in (_FLOAT, *_INTEGERS):
            raise ModelError(
                f"The .tflite model must be fp32, but its tensor {tensor.name.decode(errors='replace')!r} is "
                f"{_type(tensor)}: it is quantized or halved already, which can't be undone; give the float model."
            )


def _peeled(file: Any, convention: Convention) -> Convention:
    """Take scalar or per-channel arithmetic at the beginning of the graph off; ``convention`` with it."""
    (graph,) = file.subgraphs
    while True:
        image = graph.inputs[0]
        readers = [place for place, step in enumerate(graph.operators) if image in step.inputs]
        if len(readers) != 1 or image in graph.outputs:
            return convention
        step = operators(file)[readers[0]]
        effect = _effect(step, image, graph.operators[readers[0]], len(convention.scale))
        if effect is None:
            return convention
        convention = convention.then(*effect)
        del graph.operators[readers[0]]
        graph.inputs = [step.outputs[0].index]


def _effect(step: Operator, image: int, written: Any, channels: int) -> tuple[Any, Any] | None:
    """What ``step`` does to the image as (scale, offset); None where it is no such arithmetic."""
    if not step.outputs[0].is_float or getattr(written.builtinOptions, "fusedActivationFunction", None):
        return None
    if step.kind == "CAST":
        return 1.0, 0.0
    constants = [tensor.values for tensor in step.inputs if tensor.values is not None and tensor.is_float]
    if len(step.inputs) != 2 or len(constants) != 1 or constants[0].shape[-1:] not in ((), (1,), (channels,)):
        return None
    if constants[0].size not in (1, channels) or (step.kind in ("SUB", "DIV") and step.inputs[0].index != image):
        return None
    value = constants[0].reshape(-1).astype(np.float64)
    effects = {"MUL": (value, 0.0), "ADD": (1.0, value), "SUB": (1.0, -value)}
    return (1 / value, 0.0) if step.kind == "DIV" and value.all() else effects.get(step.kind)


def _prepend_arithmetic(file: Any, convention: Convention) -> None:
    """Multiply and add one number, before the graph."""
    (graph,) = file.subgraphs
    sides = tuple(graph.tensors[graph.inputs[0]].shape)[1:]
    for kind, value, nothing in (("ADD", convention.offset[0], 0), ("MUL", convention.scale[0], 1)):
        if value != nothing:
            before = _tensor(file, f"before_{kind.lower()}", sides)
            constant = _constant(file, kind.lower(), np.array([value], np.float32))
            _prepend(file, kind, [before, constant], graph.inputs[0])
            graph.inputs = [before]


def _prepend_convolution(file: Any, network: Network) -> None:
    """Scale, shift and order the channels by a convolution of 1×1, before the graph."""
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = file.subgraphs
    given = graph.inputs[0]
    if network.channels_first:
        last = _tensor(file, "channels_last", network.shape)
        order = _constant(file, "order", np.array([0, 3, 1, 2], np.int32), "INT32")
        _prepend(file, "TRANSPOSE", [last, order], given)
        given = last
    image = _tensor(file, "values", network.shape)
    weights = _constant(file, "scale", network.convention.matrix[:, np.newaxis, np.newaxis])
    bias = _constant(file, "offset", np.array(network.convention.offset, np.float32))
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.VALID, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    _prepend(file, "CONV_2D", [image, weights, bias], given, options)
    graph.inputs = [image]


def _add_softmax(file: Any, classes: int) -> None:
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = file.subgraphs
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    scores = _tensor(file, "scores", (classes,))
    graph.operators.append(_operator(file, "SOFTMAX", list(graph.outputs), scores, options))
    graph.outputs = [scores]


def _prepend(file: Any, kind: str, inputs: list[int], output: int, options: Any = None) -> None:
    (graph,) = file.subgraphs
    graph.operators.insert(0, _operator(file, kind, inputs, output, options))


_OPTIONS = {
    "ADD": "AddOptions",
    "CAST": "CastOptions",
    "CONV_2D": "Conv2DOptions",
    "MUL": "MulOptions",
    "SOFTMAX": "SoftmaxOptions",
    "TRANSPOSE": "TransposeOptions",
}


def _operator(file: Any, kind: str, inputs: list[int], output: int, options: Any = None) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = 1
    file.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(file.operatorCodes) - 1
    operator.inputs, operator.outputs = inputs, [output]
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[kind])
    operator.builtinOptions = options or getattr(schema, f"{_OPTIONS[kind]}T")()
    return operator


def _tensor(file: Any, name: str, sides: tuple[int, ...], kind: str = _FLOAT) -> int:
    """Index of a new tensor of shape (1, *sides)."""
    return _add(file, name, (1, *sides), kind, 0)


def _constant(file: Any, name: str, values: NDArray[Any], kind: str = _FLOAT) -> int:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    file.buffers.append(buffer)
    return _add(file, name, values.shape, kind, len(file.buffers) - 1)


def _add(file: Any, name: str, shape: tuple[int, ...], kind: str, buffer: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = file.subgraphs
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = f"edgeclf/{name}".encode(), list(shape), buffer
    tensor.type = getattr(schema.TensorType, kind)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _type(tensor: Any) -> str:
    """The tensor's type as the schema spells it."""
    from ai_edge_litert.schema_py_generated import TensorType

    return next((name for name, value in vars(TensorType).items() if value == tensor.type), str(tensor.type))
