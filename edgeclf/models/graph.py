"""Walking a Keras graph and naming its parts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def nodes(model: Any) -> list[Any]:
    """Return the calls in the graph of ``model``, from the image upwards: ``operation``, ``input_tensors`` of each."""
    by_depth = model._nodes_by_depth  # noqa: SLF001 - Keras has no public way to walk a graph
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def origin(tensor: Any) -> tuple[Any, int, int]:
    """Return the operation that made ``tensor``, the number of its call, and that of its output.

    Tells tensors apart where Keras holds one of them as several objects.
    """
    operation, call, output = tensor._keras_history  # noqa: SLF001 - see above
    return operation, call, output


def producer(tensor: Any) -> Any:
    """Return the operation that made ``tensor``."""
    return origin(tensor)[0]


def has_graph(model: Any) -> bool:
    """Whether ``model`` is one of Keras's own two kinds, whose graph says all that it computes."""
    import keras

    return isinstance(model, keras.Model) and type(model).__module__.startswith("keras.")


def spread(model: keras.Model, tensors: Any) -> Any:
    """Call the layers of ``model``, and of the models inside it, one by one on ``tensors``."""
    import keras

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        return spread(layer, arguments[0]) if has_graph(layer) else layer(*arguments, **options)

    # Keras has no public way to run a graph on tensors of our own without leaving a cast before them.
    graph = model._functional if isinstance(model, keras.Sequential) else model  # noqa: SLF001
    outputs = graph._run_through_graph([tensors], call_fn=call)  # noqa: SLF001
    return outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs


def stable_names(operations: Iterable[Any], *, reserved: Collection[str] = ()) -> dict[int, str]:
    """Return a name for each operation by its ``id``: its own, or a new one where Keras numbered it.

    Keras counts layers over the whole process, so that the second network built in it has other names than the first.
    Here the first ReLU of a graph is always "re_lu" and the second "re_lu_1". No two names are equal, none is
    ``reserved``, and none begins with an underscore, which a converter would not take.
    """
    taken = set(reserved)
    names: dict[int, str] = {}
    for operation in sorted(operations, key=_is_numbered):  # names that mean something come first
        base = _kind(operation) if _is_numbered(operation) else operation.name.lstrip("_") or "layer"
        candidates = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(1)))
        names[id(operation)] = next(name for name in candidates if name not in taken)
        taken.add(names[id(operation)])
    return names


def _is_numbered(operation: Any) -> bool:
    return re.fullmatch(rf"{_kind(operation)}(_\d+)?", operation.name) is not None


def _kind(operation: Any) -> str:
    """The name that Keras gives an operation of this class, before it numbers it."""
    spaced = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(operation).__name__)
    return re.sub("([a-z])([A-Z])", r"\1_\2", spaced).lower()
