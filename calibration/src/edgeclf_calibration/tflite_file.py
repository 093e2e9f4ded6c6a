"""Reads .tflite files through TensorFlow Lite's schema: operators, tensors, constants. Lays buffers as it asks."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.engines import missing
from edgeclf_device.errors import ModelError, first_line

ALIGNMENT = 16
"""Of every buffer's first byte, in bytes: schema.fbs demands it and TensorFlow's own converter does not keep to it."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a .tflite file.

    Attributes:
        name: unique in the file.
        index: the interpreter's number for it.
        is_float: whether it is float32.
        values: of a constant; None where an operator or the caller gives them.
    """

    name: str
    index: int
    is_float: bool
    values: NDArray[Any] | None


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of a .tflite file, ``kind`` as the schema spells it (``CONV_2D``); optional inputs may be absent."""

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_file(model: bytes) -> Any:
    """The parsed content of .tflite bytes: a ``ModelT`` of TensorFlow Lite's schema, with one graph.

    Raises:
        DependencyError: ai-edge-litert is not installed.
        ModelError: the bytes are no TensorFlow Lite model, or it has more than one graph.
    """
    try:
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as error:
        raise missing("litert", error) from error
    try:
        file = flatbuffer_utils.read_model_from_bytearray(model)
        (_,) = file.subgraphs
    except Exception as error:  # the reader raises whatever the damaged part caused
        raise ModelError(
            f"The model must be a TensorFlow Lite file with one graph, but reading it gave: {first_line(error)}; "
            "export it again."
        ) from error
    return file


def operators(file: Any) -> tuple[Operator, ...]:
    """The operators of a parsed file, in the order in which they run."""
    from ai_edge_litert.tools import flatbuffer_utils

    (graph,) = file.subgraphs
    tensors = [_tensor(index, tensor, file.buffers) for index, tensor in enumerate(graph.tensors)]
    return tuple(
        Operator(
            kind=str(flatbuffer_utils.opcode_to_name(file, operator.opcodeIndex)),
            inputs=tuple(tensors[index] for index in operator.inputs if index >= 0),
            outputs=tuple(tensors[index] for index in operator.outputs),
        )
        for operator in graph.operators
    )


def _tensor(index: int, tensor: Any, buffers: Any) -> Tensor:
    from ai_edge_litert.schema_py_generated import TensorType

    data, is_float = buffers[tensor.buffer].data, tensor.type == TensorType.FLOAT32
    values = None if data is None or len(data) == 0 else np.frombuffer(data, np.float32 if is_float else np.uint8)
    if values is not None and is_float:
        values = values.reshape(() if tensor.shape is None else tuple(tensor.shape))
    return Tensor(name=tensor.name.decode(), index=index, is_float=is_float, values=values)


def float_tensors(graph: tuple[Operator, ...]) -> dict[str, int]:
    """Interpreter's number of every float tensor that the caller gives or an operator computes, by name."""
    tensors = (tensor for operator in graph for tensor in (*operator.inputs, *operator.outputs))
    return {tensor.name: tensor.index for tensor in tensors if tensor.is_float and tensor.values is None}


def add_constant(file: Any, like: Tensor, values: NDArray[np.float32]) -> int:
    """Put a constant into a parsed file, named after another; its index. Converters let equal constants share one."""
    from ai_edge_litert.schema_py_generated import BufferT

    (graph,) = file.subgraphs
    tensor = copy(graph.tensors[like.index])
    tensor.name = f"{like.name}#{len(graph.tensors)}".encode()
    tensor.buffer, tensor.shape = len(file.buffers), list(values.shape)
    buffer = BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    file.buffers.append(buffer)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


@dataclass(frozen=True, kw_only=True)
class _AlignedBuffer:
    """Stands for the schema's BufferT, whose Pack lets data begin anywhere."""

    data: bytes | None

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's classes call it
        """Write the buffer; its offset."""
        vector = None
        if self.data is not None:
            builder.Prep(ALIGNMENT, len(self.data))
            vector = builder.CreateByteVector(self.data)
        builder.StartObject(1)
        if vector is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return int(builder.EndObject())


def packed(file: Any) -> bytes:
    """The bytes of a parsed file, all weights inside the flatbuffer, each buffer aligned. Replaces its buffers.

    Tensors that no operator reads or writes, and buffers that no tensor has, are left out.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    _drop_unused_tensors(file)
    _drop_unused_buffers(file)
    file.buffers = [_AlignedBuffer(data=None if one.data is None else bytes(one.data)) for one in file.buffers]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file))


def _drop_unused_tensors(file: Any) -> None:
    (graph,) = file.subgraphs
    used = {*graph.inputs, *graph.outputs}
    for step in graph.operators:
        used |= {index for index in (*step.inputs, *step.outputs, *(step.intermediates or ())) if index >= 0}
    place = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    for ends in (graph, *graph.operators):
        ends.inputs, ends.outputs = ([place[old] for old in many] for many in (ends.inputs, ends.outputs))
    for step in graph.operators:
        step.intermediates = None if step.intermediates is None else [place[old] for old in step.intermediates]
    for signature in file.signatureDefs or ():
        for end in (*signature.inputs, *signature.outputs):
            end.tensorIndex = place[end.tensorIndex]


def _drop_unused_buffers(file: Any) -> None:
    (graph,) = file.subgraphs
    holders = [*graph.tensors, *(file.metadata or ())]
    used = sorted({0, *(holder.buffer for holder in holders)})
    place = {old: new for new, old in enumerate(used)}
    file.buffers, file.metadataBuffer = [file.buffers[old] for old in used], None  # a field given up for metadata
    for holder in holders:
        holder.buffer = place[holder.buffer]
