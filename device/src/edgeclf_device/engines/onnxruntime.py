"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.engines import missing
from edgeclf_device.errors import ModelError, first_line

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}


class OnnxRuntime:
    """An .onnx model in an ONNX Runtime session."""

    name = "onnxruntime"

    def __init__(self, session: Any, version: str) -> None:
        self._session = session
        self.version = version
        (model_input,), (model_output,) = session.get_inputs(), session.get_outputs()
        self.input_name, self.output_name = str(model_input.name), str(model_output.name)
        self.input_dtype, self.output_dtype = _DTYPES[model_input.type], _DTYPES[model_output.type]
        self.input_shape, self.output_shape = _one_image(model_input.shape), _one_image(model_output.shape)
        self._output_names = [self.output_name]

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """See ``Engine.run``."""
        try:
            (output,) = self._session.run(self._output_names, {self.input_name: batch})
        except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
            raise ModelError(f"ONNX Runtime can't run the model: {first_line(error)}; export it again.") from error
        return np.asarray(output)

    def close(self) -> None:
        """See ``Engine.close``."""
        self._session = None


def _one_image(shape: list[int | str]) -> tuple[int, ...]:
    """The shape with a batch of 1 where the model leaves its batch open; every other side must be a number."""
    first, *others = shape
    return (1 if isinstance(first, str) else int(first), *map(int, others))


def load(model: bytes, threads: int, options: Mapping[str, str]) -> OnnxRuntime:
    """Load .onnx bytes.

    Raises:
        DependencyError: onnxruntime is not installed or does not load.
        ModelError: ONNX Runtime refuses the model, or its input and output are not one each of a static shape; the
            batch alone may be open, and counts as 1.
    """
    session = open_session(model, threads, options)
    import onnxruntime

    try:
        return OnnxRuntime(session, onnxruntime.__version__)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The model needs one input and one output of static shape and a known type ({error}); export it again."
        ) from error


def open_session(model: bytes, threads: int, options: Mapping[str, str]) -> Any:
    """ONNX Runtime's own session for .onnx bytes with any number of inputs and outputs.

    Raises:
        DependencyError: onnxruntime is not installed or does not load.
        ModelError: ONNX Runtime refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", error) from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[options["optimization"]])
    # Threads that spin between frames halve what is left for the rest of the program, for no clear gain in latency.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
        raise ModelError(f"ONNX Runtime refuses the model: {first_line(error)}; export it again.") from error
