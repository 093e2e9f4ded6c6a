"""The first layer of an artifact that does not compute what the same layer of the fp32 model does, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.first_divergence import Layer, Network, layers, relative_error
from edgeclf_calibration.onnx_int8 import optimised
from edgeclf_device.manifest import Container

IMAGES = 8
"""That layers are compared on."""

DIVERGED = 0.6
"""Relative error (root mean square) of a layer beyond which int8 does not explain it; see docs/reference/parity.md."""

_CLIPPED = 0.02
"""Share of a layer's float values that lie beyond what its int8 tensor can hold, from which its range is too narrow."""

_MARGIN = 0.1
"""Of the int8 tensor's own range, that float values may lie beyond it: rounding moves them so far."""

_MELTING = frozenset({"Relu", "Clip", "QuantizeLinear", "DequantizeLinear"})
"""Operators of .onnx that are part of the layer they follow."""

_LINEAR = 0.05
"""Relative error up to which a layer counts as the right one times a factor, plus a term."""

_STILL = 1e-3
"""Spread of a channel over places and images, in shares of its largest value, below which it depends on neither."""

Values = NDArray[np.float32]


def layer_fault(model: bytes, fp32: bytes, container: Container, pixels: NDArray[np.uint8], *, rounded: bool) -> str:
    """A sentence on the first layer, in the order of execution, that is wrong.

    Args:
        model: of the artifact, of any scheme.
        fp32: the sound model in the same format, whose layers have the same names.
        container: of both.
        pixels: uint8 (N, H, W, C), prepared images, of which ``IMAGES`` are run.
        rounded: whether activations are integers, which have a range each.

    Raises:
        DependencyError: an engine, or onnx for .onnx models, is not installed.
        ModelError: an engine refuses a model.
    """
    given = _by_name(model, container, pixels)
    # An int8 .onnx is made from the optimised model, which has fewer layers.
    sound = _by_name(optimised(fp32) if container == "onnx" and rounded else fp32, container, pixels)
    same = [name for name in given if name in sound and sound[name].shape == given[name].shape]
    for name in same:
        if fault := _fault(sound[name], given[name], rounded=rounded):
            return f"the first faulty layer is {name}: {fault}"
    return f"none of the {len(same)} layers that could be compared is at fault by itself"


def _by_name(model: bytes, container: Container, pixels: NDArray[np.uint8]) -> dict[str, Values]:
    """What each layer gives for the images, (N, …), by its name, in the order of execution."""
    network = Network(model=model, container=container)
    names = _onnx_names(model) if container == "onnx" else {}
    rows = []
    for image in pixels[:IMAGES]:
        given = _numbers(layers(network, image))
        rows.append(
            {names.get(layer.name, layer.name): layer.values.reshape(layer.values.shape[1:]) for layer in given}
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _onnx_names(model: bytes) -> dict[str, str]:
    """A name for each node that it keeps when the model is rounded: what it does, and how many did so before it.

    A rectifier has that of the layer it follows, which it melts into.
    """
    import onnx

    proto = onnx.load_from_string(model)
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    of_tensor: dict[str, str] = {}
    for node in proto.graph.node:
        kind, before = node.op_type, of_tensor.get(node.input[0], "") if node.input else ""
        if before and kind in _MELTING:
            name = before
        else:
            counts[kind] += 1
            name = f"{kind} {counts[kind]}"
        names[node.name or node.output[0]] = name
        of_tensor.update(dict.fromkeys(node.output, name))
    return names


def _numbers(given: Iterator[Layer]) -> Iterator[Layer]:
    """Layers that give numbers for each image, in a batch of one; shapes and indices are none."""
    return (layer for layer in given if layer.values.ndim > 1 and layer.values.shape[0] == 1)


def _fault(expected: Values, found: Values, *, rounded: bool) -> str:
    """What is wrong with a layer; empty where it is sound."""
    if _still(expected):
        return ""
    if _still(found):
        return "it gives the same for every image: its weights are zero"
    factor, term = np.polyfit(expected.ravel(), found.ravel(), 1)
    error = relative_error(found, (factor * expected + term).astype(np.float32))
    if error < _LINEAR and max(abs(factor - 1), abs(term) / float(np.abs(expected).max())) > 2 * _LINEAR:
        return f"wrong scale: it gives {factor:.3g} times what it should, {term:+.3g}"
    low, high = float(found.min()), float(found.max())
    room = _MARGIN * (high - low)
    clipped = float(np.mean((expected < low - room) | (expected > high + room)))
    if rounded and clipped > _CLIPPED:
        return (
            f"its values are cut off at {low:.3g} and {high:.3g}, and {100 * clipped:.1f} % of the float ones lie "
            "beyond: its range is of other images, so the calibration is stale"
        )
    error = relative_error(expected, found)
    if error > DIVERGED:
        return f"its values differ (relative error {error:.2g}): its weights, or the scale of what it reads, are others"
    return ""


def _still(values: Values) -> bool:
    """Whether no channel depends on image or place; channels are the last axis, or of .onnx the second."""
    size = float(np.abs(values).max()) or 1.0
    return any(
        float(values.std(axis=tuple(one for one in range(values.ndim) if one != axis)).max()) <= _STILL * size
        for axis in {1, values.ndim - 1}
    )
