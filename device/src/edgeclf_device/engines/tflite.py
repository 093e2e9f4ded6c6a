"""What the engines that execute .tflite models share: LiteRT and its predecessor have the same interpreter."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import DependencyError, ModelError, first_line

_UNKNOWN_OPERATOR = re.compile(r"builtin opcode '(\w+)' version '(\d+)'")
_DELEGATE_FUNCTIONS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A package with an interpreter of .tflite models.

    Attributes:
        name: of the engine.
        title: of the package, for people.
        version: of the package.
        new: makes an interpreter of a list of delegates, its tensors not yet allocated.
        load_delegate: the package's function of this name.
    """

    name: str
    title: str
    version: str
    new: Callable[[Sequence[Any]], Any] = field(repr=False)
    load_delegate: Callable[[str], Any] = field(repr=False)


class TFLiteEngine:
    """A .tflite model in an interpreter."""

    open_batch = False
    transfer_ns: int | None = None

    def __init__(self, interpreter: Any, runtime: Runtime) -> None:
        self._interpreter = interpreter
        self._title = runtime.title
        self.name, self.version = runtime.name, runtime.version
        # The details are dictionaries built anew at each call (3.7 µs): ask once.
        (input_details,) = interpreter.get_input_details()
        (output_details,) = interpreter.get_output_details()
        self._input, self._output = input_details["index"], output_details["index"]
        self.input_name, self.output_name = str(input_details["name"]), str(output_details["name"])
        self.input_dtype = np.dtype(input_details["dtype"]).name
        self.output_dtype = np.dtype(output_details["dtype"]).name
        self.input_shape = tuple(int(side) for side in input_details["shape"])
        self.output_shape = tuple(int(side) for side in output_details["shape"])

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """See ``Engine.run``.

        The batch is copied (20 µs for 224×224 pixels, even with cold caches): writing into the interpreter's own memory
        instead gains nothing that can be measured, and an exception that holds a view of it would block the next call.
        """
        try:
            self._interpreter.set_tensor(self._input, batch)
            self._interpreter.invoke()
            output: NDArray[Any] = self._interpreter.get_tensor(self._output)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self._title} can't run the model: {first_line(error)}; export it again.") from error
        return output

    def nodes(self) -> list[dict[str, Any]]:
        """The model's operators in the file's order, then one named ``DELEGATE`` for each part that a delegate took.

        Each has ``op_name``, ``inputs`` and ``outputs`` (numbers of tensors), and ``operand_types``, dtypes.
        """
        found: list[dict[str, Any]] = self._interpreter._get_ops_details()  # noqa: SLF001  (no public function)
        # tflite-runtime tells no types there; an input that is left out has the number -1.
        types = {int(one["index"]): one["dtype"] for one in self._interpreter.get_tensor_details()}
        of_inputs = ([types[int(tensor)] for tensor in node["inputs"] if int(tensor) in types] for node in found)
        return [{"operand_types": operands, **node} for node, operands in zip(found, of_inputs, strict=True)]

    def tensor_names(self) -> dict[int, str]:
        """The name of every tensor that has one, by its number."""
        return {int(one["index"]): str(one["name"]) for one in self._interpreter.get_tensor_details()}

    def close(self) -> None:
        """See ``Engine.close``."""
        self._interpreter = None


def version_of(package: ModuleType, distribution: str) -> str:
    """What the package says itself; what pip knows, which takes 15 ms to read, only where it says nothing."""
    if hasattr(package, "__version__"):
        return str(package.__version__)
    from importlib.metadata import version

    return version(distribution)


def engine_of(interpreter: Any, runtime: Runtime) -> TFLiteEngine:
    """The engine of an interpreter whose tensors are allocated.

    Raises:
        ModelError: the model has more than one input or output.
    """
    try:
        return TFLiteEngine(interpreter, runtime)
    except ValueError as error:
        raise ModelError(f"The model needs one input and one output ({error}); export it again.") from error


def build(runtime: Runtime, delegate: str) -> Any:
    """An interpreter of ``runtime`` with its tensors allocated, and with ``delegate`` where it is not ``none``.

    Raises:
        DependencyError: the delegate is not there, or does not load.
        ModelError: the runtime refuses the model, or the delegate refuses it or takes no part of it.
    """
    try:
        interpreter = runtime.new([])
        if delegate != "none":
            interpreter = _delegated(runtime, delegate, operations=_nodes(interpreter))
        interpreter.allocate_tensors()
    except ModelError:
        raise
    except (ValueError, RuntimeError) as error:
        raise _refusal(runtime, error) from error
    return interpreter


def _delegated(runtime: Runtime, path: str, *, operations: int) -> Any:
    loaded = _load_delegate(runtime, path)
    try:
        interpreter = runtime.new([loaded])
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"The delegate {path} must take the model, but it says: {first_line(error)}; make the model for it, or run "
            "it without the delegate."
        ) from error
    # A delegate adds a node of its own for each part that it takes; those that it replaces still count.
    if _nodes(interpreter) == operations:
        raise ModelError(
            f"The delegate {path} must take a part of the model, but it takes none of its {operations} operations; "
            "make the model for it (an Edge TPU needs its own compiler), or run it without the delegate."
        )
    return interpreter


def _nodes(interpreter: Any) -> int:
    return len(interpreter._get_ops_details())  # noqa: SLF001  (no public function counts them)


def _load_delegate(runtime: Runtime, path: str) -> Any:
    # Looked at first: the package's own object, where it fails half-way, has a destructor that writes to stderr.
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise _unusable(path, first_line(error)) from error
    for name in _DELEGATE_FUNCTIONS:
        if not hasattr(library, name):
            raise _unusable(path, f"it has no {name}")
    try:
        return runtime.load_delegate(path)
    except (ValueError, RuntimeError) as error:
        said = str(error).partition("\n")[2].strip()
        raise _unusable(path, f"it says: {said}" if said else "it finds no device") from error


def _unusable(path: str, reason: str) -> DependencyError:
    return DependencyError(
        f"The delegate {path} must be a library that loads here, but {reason}; install it and connect its device, or "
        "leave the delegate out."
    )


def _refusal(runtime: Runtime, error: Exception) -> ModelError:
    unknown = _UNKNOWN_OPERATOR.search(str(error))
    if unknown is None:
        return ModelError(f"{runtime.title} refuses the model: {first_line(error)}; export it again.")
    operator, number = unknown.groups()
    return ModelError(
        f"{runtime.title} must know every operator of the model, but {runtime.version} is too old for {operator} of "
        f"version {number} (w8a32 files have such ones); run a w8a8 or fp32 file, or install a newer engine."
    )
