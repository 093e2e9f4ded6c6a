"""The operators of a .tflite model as LiteRT's interpreter executes them: its own, and those that delegates took.

Times are not among it. TensorFlow Lite's C++ interpreter takes a profiler (tflite/core/api/profiler.h), but the Python
interpreter of ai-edge-litert and of tflite-runtime has no function that sets one: what it offers is listed in its
interpreter.py, where "profiling" stands only for a flag that changes what a profiler would see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeclf_device.engines.tflite import TFLiteEngine
from edgeclf_device.explain.explanation import ROUNDING, Numbers, Operator, Profile

DELEGATE = "DELEGATE"
_PRODUCTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "CONV_3D"})
_INTEGERS = frozenset({"int8", "uint8", "int16"})
NO_TIMES = "The {} package for Python gives no times of single operators; they are counted."


def profile_tflite(engine: TFLiteEngine) -> Profile:
    """The operators of a loaded model."""
    nodes, names = engine.nodes(), engine.tensor_names()
    taken = delegated_nodes(nodes)
    operators = tuple(
        _operator(node, names, delegated=place in taken)
        for place, node in enumerate(nodes)
        if node["op_name"] != DELEGATE
    )
    return Profile(
        operators=operators,
        runs=0,
        run_ms=None,
        partitions=sum(node["op_name"] == DELEGATE for node in nodes),
        rounding_in_file=sum(one.kind in ROUNDING for one in operators),
        notes=(NO_TIMES.format(engine.name),),
    )


def delegated_nodes(nodes: Sequence[dict[str, Any]]) -> set[int]:
    """Places of the operators that a delegate executes.

    The interpreter keeps operators that it no longer executes, and adds one for each part that a delegate took, with
    that part's ends (tflite/core/subgraph.cc, ReplaceNodeSubsetsWithDelegateKernels). What such a part computes from
    its inputs to its outputs is what it replaced.
    """
    makers = {
        int(tensor): place
        for place, node in enumerate(nodes)
        if node["op_name"] != DELEGATE
        for tensor in node["outputs"]
    }
    found: set[int] = set()
    for part in (node for node in nodes if node["op_name"] == DELEGATE):
        given = {int(tensor) for tensor in part["inputs"]}
        waiting = [int(tensor) for tensor in part["outputs"]]
        while waiting:
            place = makers.get(waiting.pop())
            if place is not None and place not in found:
                found.add(place)
                waiting += [int(tensor) for tensor in nodes[place]["inputs"] if int(tensor) not in given]
    return found


def numbers_of(kind: str, operands: Sequence[str]) -> Numbers:
    """What an operator multiplies, by its kind and the dtypes of its inputs."""
    if kind not in _PRODUCTS:
        return "none"
    # A transposed convolution's first input is the shape of its output.
    activations, weights = (operands[2], operands[1]) if kind == "TRANSPOSE_CONV" else (operands[0], operands[1])
    if activations in _INTEGERS:
        return "integer"
    return "dynamic" if weights in _INTEGERS else "float"


def _operator(node: dict[str, Any], names: dict[int, str], *, delegated: bool) -> Operator:
    operands = [np.dtype(one).name for one in node["operand_types"]]
    kind, outputs = str(node["op_name"]), [int(tensor) for tensor in node["outputs"]]
    return Operator(
        name=names.get(outputs[0], "") if outputs else "",
        kind=kind,
        provider="delegate" if delegated else "engine",
        numbers=numbers_of(kind, operands),
        activations=operands[0] if operands else "",
        mean_ms=None,
    )
