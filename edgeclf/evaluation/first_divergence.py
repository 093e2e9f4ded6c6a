"""Finds the layer where two executions that should agree begin to differ: two engine variants, or two model files.

Every tensor that a layer computes becomes an output of the model, so that delegates and fused kernels must give it out;
of a quantized ONNX model only those that are rounded to integers, because exposing what lies between them would turn
integer kernels back into float ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration.observe_tflite import counterparts
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_device.engines import chosen_options, missing
from edgeclf_device.engines.litert import open_interpreter
from edgeclf_device.engines.onnxruntime import open_session
from edgeclf_device.errors import DataError, ModelError, first_line
from edgeclf_device.manifest import Container
from edgeclf_device.quantization import Quantization, dequantize

_NOISE = 0.02
"""Share of the tolerance below which the growth of an error means nothing."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model and how it is to be executed.

    Attributes:
        model: model bytes.
        container: what they are.
        options: of the engine, see ``edgeclf_device.engines.OPTIONS``.
        threads: how many to compute with.
    """

    model: bytes = field(repr=False)
    container: Container
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer gave: ``values`` are float32, dequantized; ``tensor`` is their name in the file."""

    name: str
    kind: str
    tensor: str
    values: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The layer, in the first network's order of execution, with which its values become others than was allowed.

    Attributes:
        layer: its name in the first network: of the node, or of the tensor that it gives.
        kind: its operator, as the file's format spells it.
        place: its number among the ``layers`` that could be seen, from 1.
        layers: how many could be seen.
        error: root of the mean squared difference over that of the values; None between files whose tensors have
            other names, where a layer diverges if no tensor of the other file is equal to it.
        after: the layer before it, which still agrees; None: it is the first.
    """

    layer: str
    kind: str
    place: int
    layers: int
    error: float | None
    after: str | None

    def to_json(self) -> dict[str, Any]:
        """As ``parity --json`` writes it."""
        return asdict(self)


def first_divergence(
    first: Network, second: Network, image: NDArray[np.uint8], *, tolerance: float
) -> Divergence | None:
    """The first layer of ``first`` whose values ``second`` does not give, or None where all agree.

    Files whose layers give tensors of equal names are compared name by name. Otherwise, between formats, the tensors
    of ``second`` are searched for equal values (``edgeclf_calibration.counterparts``), which serves models that
    compute in float alone: ``tolerance`` is then its own.

    Args:
        first: taken as right.
        second: compared with it.
        image: uint8 (H, W, C), prepared for both.
        tolerance: relative error (root mean square) that a layer may have.

    Raises:
        DependencyError: an engine, or onnx for an .onnx model, is not installed.
        ModelError: an engine refuses a model.
    """
    expected, found = list(layers(first, image)), list(layers(second, image))
    others = {layer.tensor: layer.values for layer in found}
    if {layer.tensor for layer in expected} == set(others):
        return _by_name(expected, others, tolerance)
    return _by_values(expected, found)


def layers(network: Network, image: NDArray[np.uint8]) -> Iterator[Layer]:
    """What every layer of ``network`` gives for ``image``, in the order of execution.

    Raises:
        as ``first_divergence``.
    """
    run = _tflite_layers if network.container == "tflite" else _onnx_layers
    return run(network, image[np.newaxis])


def relative_error(expected: NDArray[np.floating[Any]], found: NDArray[np.floating[Any]]) -> float:
    """Root of the mean squared difference, over that of ``expected``; infinite where that is 0 and they differ.

    Raises:
        DataError: they are of different shapes.
    """
    if expected.shape != found.shape:
        raise DataError(
            f"Layers can be compared if their shapes are equal, but they are {expected.shape} and {found.shape}."
        )
    difference = float(np.sqrt(np.mean(np.square(np.subtract(expected, found, dtype=np.float64)))))
    if difference == 0:
        return 0.0
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    return difference / size if size else float("inf")


def _by_name(expected: list[Layer], others: Mapping[str, NDArray[np.float32]], tolerance: float) -> Divergence | None:
    """Of the layers up to the first that is beyond ``tolerance``, the one where the error grew most.

    Where numbers are rounded every layer differs a little, and a fault may cross the tolerance only layers later.
    """
    growth, largest = [], max(tolerance * _NOISE, np.finfo(np.float64).tiny)
    for layer in expected:
        error = relative_error(layer.values, others[layer.tensor])
        growth.append((error, error / largest))
        if not error <= tolerance:  # NaN diverges too
            place = int(np.argmax([factor for _, factor in growth]))
            return _divergence(expected, place, growth[place][0])
        largest = max(largest, error)
    return None


def _by_values(expected: list[Layer], found: list[Layer]) -> Divergence | None:
    """The first layer without an equal, where the other file has a layer of its size without an equal too.

    A layer that only one of the formats has (the other fuses it into its neighbour) is so passed over: between the
    equals of its neighbours the other file has nothing.
    """
    ours, others = ({layer.tensor: layer.values for layer in side} for side in (expected, found))
    equals = counterparts(ours, others)
    order = {tensor: place for place, tensor in enumerate(others)}
    places = [order[equals[tensor]] if tensor in equals else None for tensor in ours]
    before = -1
    for place, layer in enumerate(expected):
        there = places[place]
        if there is not None:
            before = max(before, there)
            continue
        behind = (one for one in places[place + 1 :] if one is not None and one > before)
        between = found[before + 1 : next(behind, len(found))]
        if any(other.values.size == layer.values.size for other in between):
            return _divergence(expected, place, None)
    return None


def _divergence(expected: list[Layer], place: int, error: float | None) -> Divergence:
    return Divergence(
        layer=expected[place].name,
        kind=expected[place].kind,
        place=place + 1,
        layers=len(expected),
        error=error,
        after=expected[place - 1].name if place else None,
    )


def _tflite_layers(network: Network, batch: NDArray[np.uint8]) -> Iterator[Layer]:
    file = read_file(network.model)
    (graph,) = file.subgraphs
    computed = [(operator.kind, tensor) for operator in operators(file) for tensor in operator.outputs]
    outputs = list(graph.outputs)
    graph.outputs = np.array([*outputs, *(one.index for _, one in computed if one.index not in outputs)], np.int32)
    file.signatureDefs = None  # a signature names the outputs that there were
    interpreter = open_interpreter(packed(file), network.threads, chosen_options("litert", network.options))
    (model_input,) = interpreter.get_input_details()
    try:
        interpreter.set_tensor(model_input["index"], batch.astype(model_input["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"LiteRT can't run the model: {first_line(error)}; export it again.") from error
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    for kind, tensor in computed:
        steps = details[tensor.index]["quantization_parameters"]
        values = interpreter.get_tensor(tensor.index)
        if len(steps["scales"]) == 1:
            (scale,), (zero_point,) = steps["scales"], steps["zero_points"]
            values = dequantize(values, Quantization(scale=float(scale), zero_point=int(zero_point)))
        yield Layer(name=tensor.name, kind=kind, tensor=tensor.name, values=values.astype(np.float32))


def _onnx_layers(network: Network, batch: NDArray[np.uint8]) -> Iterator[Layer]:
    try:
        import onnx
    except ImportError as error:
        raise missing("onnxruntime", error) from error
    proto = onnx.load_from_string(network.model)
    graph = proto.graph
    seen = _visible(list(_computed(graph)), {one.name for one in graph.output})
    there = {one.name for one in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in seen if node.output[0] not in there)
    session = open_session(proto.SerializeToString(), network.threads, chosen_options("onnxruntime", network.options))
    (model_input,) = session.get_inputs()
    names = [node.output[0] for node in seen]
    dtype = np.float32 if model_input.type == "tensor(float)" else np.uint8
    try:
        values = session.run(names, {model_input.name: batch.astype(dtype)})
    except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
        raise ModelError(f"ONNX Runtime can't run the model: {first_line(error)}; export it again.") from error
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node, value in zip(seen, values, strict=True):
        layer, real = node, value
        if node.op_type == "QuantizeLinear":
            layer = producers.get(node.input[0], node)
            scale, zero_point = (float(constants[name]) for name in node.input[1:3])
            real = dequantize(value, Quantization(scale=scale, zero_point=int(zero_point)))
        name = layer.name or layer.output[0]
        yield Layer(name=name, kind=layer.op_type, tensor=node.output[0], values=np.asarray(real, np.float32))


def _computed(graph: Any) -> Iterator[Any]:
    """The nodes that the image reaches; the others compute constants."""
    reached = {one.name for one in graph.input} - {one.name for one in graph.initializer}
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            yield node


def _visible(nodes: list[Any], outputs: set[str]) -> list[Any]:
    """The nodes whose first output can be looked at without changing how the others are calculated."""
    rounding = [node for node in nodes if node.op_type == "QuantizeLinear" or node.output[0] in outputs]
    return rounding if any(node.op_type == "QuantizeLinear" for node in rounding) else nodes
