"""What an .onnx graph is made of, read without protobuf or an engine: kinds of nodes, types and values of constants.

Field numbers: onnx/onnx.proto (ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.input 1, op_type 4;
TensorProto.data_type 2, int32_data 5, name 8, raw_data 9, external_data 13).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from edgeclf_device._trailer_onnx import read_varint, skip, tag

Place = tuple[int, int]
"""Where something begins and ends in the model."""
Fields = defaultdict[int, list[Place]]

INT8, FLOAT16 = 3, 10
"""TensorProto.DataType."""

_GRAPH, _NODE, _INITIALIZER, _INPUT, _OP_TYPE = 7, 1, 5, 1, 4
_DATA_TYPE, _INT32_DATA, _NAME, _RAW_DATA, _EXTERNAL_DATA = 2, 5, 8, 9, 13

_MOST_STEPS = 64
"""Of an int8 factor: 2 × 255 × 64 is below 2^15."""


def operator_kinds(model: bytes) -> frozenset[str]:
    """The kinds of the graph's nodes, as ONNX spells them.

    Raises:
        ModelError: the bytes do not parse.
    """
    return frozenset(kind for node in _graph(model)[_NODE] for kind in _texts(model, _within(model, node, _OP_TYPE)))


def element_types(model: bytes) -> frozenset[int]:
    """The element types of the graph's constants, as TensorProto.DataType numbers them.

    Raises:
        ModelError: the bytes do not parse.
    """
    types = (_within(model, tensor, _DATA_TYPE) for tensor in _graph(model)[_INITIALIZER])
    return frozenset(read_varint(model, begin)[0] for found in types for begin, _ in found)


def sums_fit(model: bytes) -> bool:
    """Whether the sum of two products of a uint8 and an int8 number of this graph always fits 16 bits.

    It does where every int8 constant lies within 64 steps and no activation is int8. False where constants and
    QuantizeLinear alone do not tell: with operators on integers, or constants that are nodes or lie in other files.

    Raises:
        ModelError: the bytes do not parse.
    """
    graph, small = _graph(model), set()
    for tensor in graph[_INITIALIZER]:
        fields = _fields(model, tensor)
        if [read_varint(model, begin)[0] for begin, _ in fields[_DATA_TYPE]] != [INT8]:
            continue
        if fields[_EXTERNAL_DATA] or not _are_small(model, fields):
            return False
        small.update(_texts(model, fields[_NAME]))
    for node in graph[_NODE]:
        fields = _fields(model, node)
        kind = "".join(_texts(model, fields[_OP_TYPE]))
        if kind == "Constant" or kind.startswith("QLinear") or kind.endswith("Integer"):
            return False
        if kind == "QuantizeLinear":
            zero_point = _texts(model, fields[_INPUT][2:])
            if not zero_point or zero_point[0] in small:
                return False
    return True


def _are_small(model: bytes, fields: Fields) -> bool:
    """Whether all values of an int8 constant lie within ``_MOST_STEPS``.

    They are bytes, or varints, of which those up to 127 are one byte and all others have bytes from 128.
    """
    values = [np.frombuffer(model, np.int8, end - begin, begin) for begin, end in fields[_RAW_DATA]]
    varints = [np.frombuffer(model, np.uint8, end - begin, begin) for begin, end in fields[_INT32_DATA]]
    return all(
        part.min(initial=0) >= -_MOST_STEPS and part.max(initial=0) <= _MOST_STEPS for part in (*values, *varints)
    )


def _texts(model: bytes, places: Iterable[Place]) -> list[str]:
    return [model[begin:end].decode("utf-8", "replace") for begin, end in places]


def _graph(model: bytes) -> Fields:
    """The fields of the graph, of which a file holds one; of several all."""
    found: Fields = defaultdict(list)
    for graph in _within(model, (0, len(model)), _GRAPH):
        for number, places in _fields(model, graph).items():
            found[number] += places
    return found


def _within(data: bytes, part: Place, wanted: int) -> list[Place]:
    """Each field with the number ``wanted`` in ``part``."""
    return _fields(data, part)[wanted]


def _fields(data: bytes, part: Place) -> Fields:
    """Every field in ``part``, by its number."""
    found: Fields = defaultdict(list)
    place, last = part
    while place < last:
        number, kind, place = tag(data, place)
        place, begin = skip(data, place, kind)
        found[number].append((begin, place))
    return found
