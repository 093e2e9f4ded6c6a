"""Static int8 for .tflite models without TensorFlow, from ranges that were estimated here.

Form: int8 activations, int8 weights with one scale per output channel, int32 biases, uint8 at both ends. Source of
the arithmetic and of the rewriting: ai-edge-quantizer, Google, Apache-2.0, which takes ranges as it takes those of its
own calibration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_quantizer
from edgeclf_calibration.mixed_precision import Layer, layers_named
from edgeclf_calibration.ranges import Range
from edgeclf_calibration.tflite_file import Operator, float_tensors, operators, packed, read_file
from edgeclf_device.errors import ModelError, first_line

EXACT_INPUT_OPERATORS = frozenset({"CAST", "MUL", "ADD", "SUB", "DIV", "TRANSPOSE", "RESHAPE"})
"""Between the pixels and the first layer: left in float, so that the only rounding is that of the layer's input."""

FOLLOWERS = frozenset(
    {
        *("RELU", "RELU6", "SOFTMAX"),
        *("AVERAGE_POOL_2D", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "MAX_POOL_2D", "MIRROR_PAD", "PAD", "PADV2"),
        *("RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE"),
        *("STRIDED_SLICE", "TRANSPOSE", "UNPACK"),
    }
)
"""Part of the layer they follow: they have its scale, or, as softmax, are worth no float if their input is int8."""

CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""The axis of the weights that counts the output channels."""

MAX_BIAS_STEPS = 1 << 30
"""A bias may be this many of its steps, as in TensorFlow's converter: half of what int32 holds."""

LEAST_WIDTH = 1e-9
"""ai-edge-quantizer takes no range to be narrower."""


def quantize_tflite(model: bytes, ranges: Mapping[str, Range], *, in_float: Collection[str] = ()) -> bytes:
    """Quantize an fp32 model to w8a8; equal arguments give equal bytes.

    Operators for which ai-edge-quantizer has no int8 form stay in float. An operator that only moves values (a
    reshape, a maximum of neighbours) has the range of its input, and softmax and logistic have 0 to 1, whatever
    ``ranges`` says.

    Args:
        model: fp32 .tflite bytes with one input and one output.
        ranges: of every float tensor that the caller gives or an operator computes, by its name in ``model``.
        in_float: layers that stay in float32, by their names in ``layers_of``.

    Returns:
        .tflite bytes with uint8 at both ends.

    Raises:
        DependencyError: ai-edge-quantizer is not installed.
        ModelError: a tensor has no range, or the model is no float model or can't be quantized.
        UsageError: ``in_float`` names what is no layer.
    """
    file = read_file(model)
    graph = operators(file)
    layers = layers_of(graph)
    kept = layers_named(in_float, layers)
    names = float_tensors(graph)
    missing = sorted(set(names) - set(ranges))
    if missing or not names:
        what = f"the tensor {missing[0]!r} has none" if missing else "it has no float tensor"
        raise ModelError(
            f"Every float tensor of an fp32 model needs a range, but {what}; observe its ranges on this very model."
        )
    statistics: dict[str, dict[str, NDArray[Any]]] = {
        # float64, in which onnxruntime.quantization divides too: one range has one scale in both formats.
        name: {"min": np.array([ranges[name].low]), "max": np.array([ranges[name].high])}
        for name in names
    }
    for name, largest in weight_bounds(graph, ranges).items():
        statistics[name] = {"min": -largest, "max": largest}
    for operator in graph:
        if operator.kind == "SOFTMAX":  # uint8 scores have one scale, whether softmax itself is int8 or float
            statistics[operator.outputs[0].name] = {"min": np.zeros(1), "max": np.full(1, 255 / 256)}
    floats = [tensor.name for name in kept for operator in layers[name] for tensor in operator.outputs]
    return _written(file, _recipe([*tensors_in_float(graph), *floats]), statistics)


def tensors_in_float(graph: tuple[Operator, ...]) -> list[str]:
    """Names of what the operators between the pixels and the first layer compute: see ``EXACT_INPUT_OPERATORS``."""
    computed = {tensor.name for operator in graph for tensor in operator.outputs}
    names: list[str] = []
    for operator in graph:
        varying = [tensor.name for tensor in operator.inputs if tensor.values is None]
        from_pixels = all(name in names or name not in computed for name in varying)
        if operator.kind in EXACT_INPUT_OPERATORS and varying and from_pixels:
            names += [tensor.name for tensor in operator.outputs]
    return names


def layers_of(graph: tuple[Operator, ...]) -> dict[str, list[Operator]]:
    """What is quantized or left in float as a whole: the operators of each layer, by the name of the tensor it gives.

    A layer is an operator that quantization gives a scale of its own, and after it its ``FOLLOWERS``; its tensor is
    what the first of them gives. Layers are in the order in which they run.

    Raises:
        DependencyError: ai-edge-quantizer is not installed.
    """
    manager = _manager(_recipe([]))
    left_out = set(tensors_in_float(graph))
    layers: list[list[Operator]] = []
    owner: dict[str, list[Operator]] = {}
    for operator in graph:
        varying = [tensor.name for tensor in operator.inputs if tensor.values is None]
        names = [tensor.name for tensor in operator.outputs if tensor.is_float]
        if not varying or not names or names[0] in left_out or not _has_int8(operator, manager):
            continue
        layer = owner.get(varying[0]) if operator.kind in FOLLOWERS else None
        if layer is None:
            layer = []
            layers.append(layer)
        layer.append(operator)
        owner.update(dict.fromkeys(names, layer))
    return {layer[0].outputs[0].name: layer for layer in layers}


def tflite_layers(model: bytes) -> tuple[Layer, ...]:
    """The layers of a .tflite model, in the order in which they run.

    Args:
        model: fp32 .tflite bytes.

    Raises:
        DependencyError: ai-edge-quantizer is not installed.
        ModelError: the bytes are no TensorFlow Lite model.
    """
    file = read_file(model)
    (graph,) = file.subgraphs
    shapes = {tensor.name.decode(): tuple(map(int, tensor.shape)) for tensor in graph.tensors}
    return tuple(
        Layer(name=name, kind=layer[0].kind, multiply_accumulates=_multiply_accumulates(layer[0], shapes))
        for name, layer in layers_of(operators(file)).items()
    )


def _multiply_accumulates(operator: Operator, shapes: Mapping[str, tuple[int, ...]]) -> int:
    inputs, result = [shapes[tensor.name] for tensor in operator.inputs], shapes[operator.outputs[0].name]
    if operator.kind in CHANNEL_AXES:
        return math.prod(result) * math.prod(inputs[1]) // inputs[1][CHANNEL_AXES[operator.kind]]
    if operator.kind == "TRANSPOSE_CONV":  # reads the result's shape, the weights (out, height, width, in), the data
        return math.prod(inputs[2]) * math.prod(inputs[1][:3])
    return math.prod(inputs[0]) * result[-1] if operator.kind == "BATCH_MATMUL" else 0


def _has_int8(operator: Operator, manager: Any) -> bool:
    """Whether ai-edge-quantizer has an int8 form of the operator."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    kinds = import_quantizer("utils.tfl_flatbuffer_utils").TFL_OP_CODE_TO_NAME
    kind = kinds.get(getattr(BuiltinOperator, operator.kind, None))
    if kind is None:
        return False
    algorithm, _ = manager.get_quantization_configs(kind, f"{operator.outputs[0].name};")
    return bool(algorithm != "no_quantize")


def weight_bounds(graph: tuple[Operator, ...], ranges: Mapping[str, Range]) -> dict[str, NDArray[np.float32]]:
    """Largest absolute weight that each output channel's int8 weights must hold, by name of the weights.

    A bias is an int32 that counts steps of the input's scale times the channel's scale. In a channel whose weights
    are all but zero that step is so small that the bias does not fit; ai-edge-quantizer saturates it, which can even
    change its sign. There the bound is wider than the weights, as in TensorFlow's converter.

    Returns:
        float32, with the weights' number of axes, 1 long but for that of the output channels.
    """
    bounds: dict[str, NDArray[np.float32]] = {}
    for operator in graph:
        if operator.kind not in CHANNEL_AXES or len(operator.inputs) != 3:
            continue
        data, weights, bias = operator.inputs
        if data.name not in ranges or weights.values is None or bias.values is None:
            continue
        axis = CHANNEL_AXES[operator.kind]
        others = tuple(one for one in range(weights.values.ndim) if one != axis)
        largest = np.abs(weights.values).max(axis=others, keepdims=True)
        width = max(ranges[data.name].high, 0.0) - min(ranges[data.name].low, 0.0)
        step = max(width, LEAST_WIDTH) / 255
        needed = np.abs(bias.values.astype(np.float64)) * 127 / (step * MAX_BIAS_STEPS)
        bounds[weights.name] = np.maximum(largest, needed.reshape(largest.shape)).astype(np.float32)
    return bounds


def _recipe(in_float: list[str]) -> list[dict[str, Any]]:
    """ai-edge-quantizer's recipe: later entries take precedence, an operator is known by the names of its outputs."""
    weights = {"num_bits": 8, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"}
    inside = {"num_bits": 8, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}
    at_the_ends = {**inside, "dtype": "UINT"}

    def entry(operation: str, activations: dict[str, Any]) -> dict[str, Any]:
        config = {
            "activation_tensor_config": activations,
            "weight_tensor_config": weights,
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
        }
        return {
            "regex": ".*",
            "operation": operation,
            "algorithm_key": "min_max_uniform_quantize",
            "op_config": config,
        }

    left_out = [
        {"regex": f"^{re.escape(name)};?$", "operation": "*", "algorithm_key": "no_quantize"} for name in in_float
    ]
    ends = [entry("INPUT", at_the_ends), entry("OUTPUT", at_the_ends)]
    # Under another pattern, for entries of one pattern count as one; last, for the output has the name of its operator.
    return [entry("*", inside), *left_out, *({**end, "regex": "^"} for end in ends)]


def _manager(recipe: list[dict[str, Any]]) -> Any:
    manager = import_quantizer("recipe_manager").RecipeManager()
    manager.load_quantization_recipe(recipe)
    return manager


def _written(file: Any, recipe: list[dict[str, Any]], statistics: dict[str, dict[str, NDArray[Any]]]) -> bytes:
    """Do what ``ai_edge_quantizer.Quantizer.quantize`` does, but silently, and for files without signatures too."""
    manager = _manager(recipe)
    file.signatureDefs = file.signatureDefs or []
    try:
        parameters = (
            import_quantizer("params_generator")
            .ParamsGenerator(file)
            .generate_quantization_parameters(manager, statistics, enable_progress_bar=False)
        )
        modifier = import_quantizer("model_modifier").ModelModifier(file)
        quantized = read_file(bytes(modifier.modify_model(parameters, enable_progress_bar=False)))
        _split_wholly(quantized)
        return packed(quantized)  # it lays weights behind the flatbuffer, where other tools lose them
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"The model can't be quantized: {first_line(error)}; export it again.") from error


def _split_wholly(file: Any) -> None:
    """Give every part of an int8 split the split's type: ai-edge-quantizer leaves what nobody reads in float.

    Such a part is the forget gate of an LSTM's first step. LiteRT's XNNPACK refuses a split into int8 and float.
    """
    (graph,) = file.subgraphs
    tensors = {tensor.name.decode(): tensor for tensor in graph.tensors}
    for operator in operators(file):
        if operator.kind == "SPLIT":
            whole = tensors[operator.inputs[1].name]
            for part in (tensors[output.name] for output in operator.outputs):
                part.type, part.quantization = whole.type, whole.quantization
