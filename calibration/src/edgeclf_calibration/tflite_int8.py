"""Static int8 for .tflite models without TensorFlow, from ranges that were estimated here.

Form: int8 activations, int8 weights with one scale per output channel, int32 biases, uint8 at both ends. Source of
the arithmetic and of the rewriting: ai-edge-quantizer, Google, Apache-2.0, which takes ranges as it takes those of its
own calibration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_quantizer
from edgeclf_calibration.ranges import Range
from edgeclf_calibration.tflite_file import Operator, float_tensors, operators, packed, read_file
from edgeclf_device.errors import ModelError, first_line

EXACT_INPUT_OPERATORS = frozenset({"CAST", "MUL", "ADD", "SUB", "DIV", "TRANSPOSE", "RESHAPE"})
"""Between the pixels and the first layer: left in float, so that the only rounding is that of the layer's input."""

CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""The axis of the weights that counts the output channels."""

MAX_BIAS_STEPS = 1 << 30
"""A bias may be this many of its steps, as in TensorFlow's converter: half of what int32 holds."""

LEAST_WIDTH = 1e-9
"""ai-edge-quantizer takes no range to be narrower."""


def quantize_tflite(model: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Quantize an fp32 model to w8a8; equal arguments give equal bytes.

    Operators for which ai-edge-quantizer has no int8 form stay in float. An operator that only moves values (a
    reshape, a maximum of neighbours) has the range of its input, and softmax and logistic have 0 to 1, whatever
    ``ranges`` says.

    Args:
        model: fp32 .tflite bytes with one input and one output.
        ranges: of every float tensor that the caller gives or an operator computes, by its name in ``model``.

    Returns:
        .tflite bytes with uint8 at both ends.

    Raises:
        DependencyError: ai-edge-quantizer is not installed.
        ModelError: a tensor has no range, or the model is no float model or can't be quantized.
    """
    file = read_file(model)
    graph = operators(file)
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
    return _written(file, _recipe(tensors_in_float(graph)), statistics)


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
    return [entry("*", inside), entry("INPUT", at_the_ends), entry("OUTPUT", at_the_ends), *left_out]


def _written(file: Any, recipe: list[dict[str, Any]], statistics: dict[str, dict[str, NDArray[Any]]]) -> bytes:
    """Do what ``ai_edge_quantizer.Quantizer.quantize`` does, but silently, and for files without signatures too."""
    manager = import_quantizer("recipe_manager").RecipeManager()
    manager.load_quantization_recipe(recipe)
    file.signatureDefs = file.signatureDefs or []
    try:
        parameters = (
            import_quantizer("params_generator")
            .ParamsGenerator(file)
            .generate_quantization_parameters(manager, statistics, enable_progress_bar=False)
        )
        modifier = import_quantizer("model_modifier").ModelModifier(file)
        quantized = bytes(modifier.modify_model(parameters, enable_progress_bar=False))
        return packed(read_file(quantized))  # it lays weights behind the flatbuffer, where other tools lose them
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"The model can't be quantized: {first_line(error)}; export it again.") from error
