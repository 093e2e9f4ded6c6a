"""One spelling for equal ONNX models: converters number names and order nodes differently at each run.

Two conversions of one network then give the same bytes. The spelling: nodes in the order in which a depth-first walk
from the outputs finishes them, every node named by operator and place, its outputs and the initializers it uses
first by the node, and nothing of the producer, the time, or the shapes that can be inferred. Names of the source
can't be kept: where a converter merges equal tensors or nodes, it is chance which name survives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeclf_calibration._imports import import_onnx
from edgeclf_device.errors import ModelError

PRODUCER = "edgeclf"


def canonical(model: bytes, *, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The canonical bytes of an .onnx model.

    Args:
        model: .onnx bytes.
        inputs: new names of the model's inputs, in their order.
        outputs: new names of its outputs.

    Raises:
        ModelError: the counts of names and of inputs or outputs differ, or a node holds a graph of its own.
        DependencyError: onnx is not installed.
    """
    onnx = import_onnx()
    source = onnx.load_from_string(model)
    tensors = {tensor.name: tensor for tensor in source.graph.initializer}
    model_inputs = [value for value in source.graph.input if value.name not in tensors]
    if len(model_inputs) != len(inputs) or len(source.graph.output) != len(outputs):
        raise ModelError(
            f"The model should have {len(inputs)} input and {len(outputs)} output, but it has {len(model_inputs)} and "
            f"{len(source.graph.output)}; a classifier has one image and one row of scores."
        )
    nodes = list(_sorted_nodes(source.graph))
    ends = zip((*model_inputs, *source.graph.output), (*inputs, *outputs), strict=True)
    names = _names(nodes, tensors, {value.name: name for value, name in ends})
    result = onnx.ModelProto(ir_version=source.ir_version, producer_name=PRODUCER)
    domains = {node.domain for node in nodes} | {""}
    result.opset_import.extend(
        sorted((entry for entry in source.opset_import if entry.domain in domains), key=lambda entry: entry.domain)
    )
    graph = result.graph
    graph.name = "classifier"
    graph.node.extend(_renamed(node, place, names) for place, node in enumerate(nodes))
    graph.initializer.extend(_named(tensors[name], names[name]) for name in names if name in tensors)
    graph.input.extend(_named(value, names[value.name]) for value in model_inputs)
    graph.output.extend(_named(value, names[value.name]) for value in source.graph.output)
    canonical_bytes: bytes = result.SerializeToString(deterministic=True)
    return canonical_bytes


def respelled(model: bytes, *, like: Any) -> bytes:
    """The canonical form of ``model`` with the names of the inputs and outputs of the proto ``like``.

    Raises:
        as ``canonical``.
    """
    given = {tensor.name for tensor in like.graph.initializer}
    return canonical(
        model,
        inputs=[value.name for value in like.graph.input if value.name not in given],
        outputs=[value.name for value in like.graph.output],
    )


def _sorted_nodes(graph: Any) -> Iterator[Any]:
    """Every node that an output needs, producers before consumers."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    done: set[int] = set()
    stack = [(producer[output.name], False) for output in reversed(graph.output) if output.name in producer]
    while stack:
        index, ready = stack.pop()
        if ready:
            yield graph.node[index]
        elif index not in done:
            done.add(index)
            stack.append((index, True))
            stack += [(producer[name], False) for name in reversed(graph.node[index].input) if name in producer]


def _node_name(node: Any, place: int) -> str:
    return f"{node.op_type}_{place:03}"


def _names(nodes: Sequence[Any], tensors: Mapping[str, Any], ends: Mapping[str, str]) -> dict[str, str]:
    """New name of every tensor, initializers in the order of their first use."""
    names = {"": "", **ends}
    for place, node in enumerate(nodes):
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(
                f"A classifier's graph must be flat, but the node {node.name!r} ({node.op_type}) holds a graph of its "
                "own; unroll the layer (unroll=True) and export again."
            )
        name = _node_name(node, place)
        for slot, tensor in enumerate(node.input):
            if tensor in tensors:
                names.setdefault(tensor, f"{name}.in{slot}")
        for slot, tensor in enumerate(node.output):
            names.setdefault(tensor, f"{name}.out{slot}")
    return names


def _renamed(node: Any, place: int, names: Mapping[str, str]) -> Any:
    result = type(node)(op_type=node.op_type, domain=node.domain, name=_node_name(node, place))
    result.input.extend(names[tensor] for tensor in node.input)
    result.output.extend(names[tensor] for tensor in node.output)
    result.attribute.extend(sorted(node.attribute, key=lambda attribute: str(attribute.name)))
    return result


def _named(source: Any, name: str) -> Any:
    """A copy of a tensor or value under another name, without documentation."""
    result = type(source)()
    result.CopyFrom(source)
    result.name = name
    result.ClearField("doc_string")
    return result
