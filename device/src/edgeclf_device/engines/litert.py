"""LiteRT (ai-edge-litert), the successor of the TensorFlow Lite runtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.engines import missing
from edgeclf_device.errors import ModelError, first_line

_RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


class LiteRT:
    """A .tflite model in a LiteRT interpreter."""

    name = "litert"

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self.version = version("ai-edge-litert")
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
        """See ``Engine.run``."""
        try:
            self._interpreter.set_tensor(self._input, batch)
            self._interpreter.invoke()
            output: NDArray[Any] = self._interpreter.get_tensor(self._output)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"LiteRT can't run the model: {first_line(error)}; export it again.") from error
        return output

    def close(self) -> None:
        """See ``Engine.close``."""
        self._interpreter = None


def load(model: bytes, threads: int, options: Mapping[str, str]) -> LiteRT:
    """Load .tflite bytes.

    Raises:
        DependencyError: ai-edge-litert is not installed or does not load.
        ModelError: LiteRT refuses the model, or it has more than one input or output.
    """
    interpreter = open_interpreter(model, threads, options)
    try:
        return LiteRT(interpreter)
    except ValueError as error:
        raise ModelError(f"The model needs one input and one output ({error}); export it again.") from error


def open_interpreter(model: bytes, threads: int, options: Mapping[str, str]) -> Any:
    """LiteRT's own interpreter for .tflite bytes with any number of inputs and outputs, its tensors allocated.

    Raises:
        DependencyError: ai-edge-litert is not installed or does not load.
        ModelError: LiteRT refuses the model.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise missing("litert", error) from error
    resolver = OpResolverType[_RESOLVERS[options["kernels"]]]
    try:
        interpreter = Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"LiteRT refuses the model: {first_line(error)}; export it again.") from error
    return interpreter
