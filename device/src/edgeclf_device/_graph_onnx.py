"""What an .onnx graph is made of, read without protobuf or an engine: kinds of nodes, element types of constants.

Field numbers: onnx/onnx.proto (ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.op_type 4;
TensorProto.data_type 2).
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeclf_device._trailer_onnx import read_varint, skip, tag

FLOAT16 = 10
"""TensorProto.DataType."""

_GRAPH, _NODE, _INITIALIZER, _OP_TYPE, _DATA_TYPE = 7, 1, 5, 4, 2


def operator_kinds(model: bytes) -> frozenset[str]:
    """The kinds of the graph's nodes, as ONNX spells them.

    Raises:
        ModelError: the bytes do not parse.
    """
    kinds = (_within(model, node, _OP_TYPE) for node in _parts(model, _NODE))
    return frozenset(model[begin:end].decode("utf-8", "replace") for found in kinds for begin, end in found)


def element_types(model: bytes) -> frozenset[int]:
    """The element types of the graph's constants, as TensorProto.DataType numbers them.

    Raises:
        ModelError: the bytes do not parse.
    """
    types = (_within(model, tensor, _DATA_TYPE) for tensor in _parts(model, _INITIALIZER))
    return frozenset(read_varint(model, begin)[0] for found in types for begin, _ in found)


def _parts(model: bytes, number: int) -> Iterator[tuple[int, int]]:
    for graph in _within(model, (0, len(model)), _GRAPH):
        yield from _within(model, graph, number)


def _within(data: bytes, part: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of each field with the number ``wanted`` between the two places of ``part``."""
    place, last = part
    while place < last:
        number, kind, place = tag(data, place)
        place, begin = skip(data, place, kind)
        if number == wanted:
            yield begin, place
