"""The operators of a .tflite model as LiteRT's interpreter executes them: its own, and those that delegates took.

Which these are the interpreter tells; times it does not: its C++ class takes a profiler (tflite/core/api/profiler.h),
but no function of the Python class sets one. ``litert_times`` asks the same package's C interface for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeclf_device.engines.tflite import TFLiteEngine
from edgeclf_device.explain.explanation import ROUNDING, Numbers, Operator, OperatorKind, Profile
from edgeclf_device.explain.litert_times import Times

DELEGATE = "DELEGATE"
_PRODUCTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "CONV_3D"})
_INTEGERS = frozenset({"int8", "uint8", "int16"})
NO_TIMES = "This engine, with these options, gives no times of single operators here; they are counted."
TIMES = (
    "The times are of LiteRT's CompiledModel in a process of its own, which has the same kernels; they are whole "
    "microseconds at each run, and delegates name and fuse operators their own way."
)


def profile_tflite(engine: TFLiteEngine, times: Times | None, runs: int) -> Profile:
    """The operators of a loaded model.

    Args:
        engine: that it is loaded in.
        times: of its operators, believed if they are of just those that the interpreter executes itself.
        runs: how many they were taken in.
    """
    nodes, names = engine.nodes(), engine.tensor_names()
    taken = delegated_nodes(nodes)
    own = {
        place: str(node["op_name"])
        for place, node in enumerate(nodes)
        if node["op_name"] != DELEGATE and place not in taken
    }
    if times is None or {place: kind for place, (kind, _) in times.builtin.items()} != own:
        times = None
    operators = tuple(
        _operator(
            node,
            names,
            delegated=place in taken,
            mean_ms=None if times is None or place in taken else times.builtin[place][1],
        )
        for place, node in enumerate(nodes)
        if node["op_name"] != DELEGATE
    )
    inside = {} if times is None else times.delegate
    return Profile(
        operators=operators,
        inside=tuple(
            OperatorKind(kind=kind, nodes=number, delegated=number, mean_ms=mean_ms)
            for kind, (number, mean_ms) in sorted(inside.items(), key=lambda pair: -pair[1][1])
        ),
        runs=0 if times is None else runs,
        run_ms=None,
        partitions=sum(node["op_name"] == DELEGATE for node in nodes),
        rounding_in_file=sum(one.kind in ROUNDING for one in operators),
        notes=(NO_TIMES if times is None else TIMES,),
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


def _operator(node: dict[str, Any], names: dict[int, str], *, delegated: bool, mean_ms: float | None) -> Operator:
    operands = [np.dtype(one).name for one in node["operand_types"]]
    kind, outputs = str(node["op_name"]), [int(tensor) for tensor in node["outputs"]]
    return Operator(
        name=names.get(outputs[0], "") if outputs else "",
        kind=kind,
        provider="delegate" if delegated else "engine",
        numbers=numbers_of(kind, operands),
        activations=operands[0] if operands else "",
        mean_ms=mean_ms,
    )
