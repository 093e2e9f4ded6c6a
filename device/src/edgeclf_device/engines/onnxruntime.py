"""ONNX Runtime, on the CPU or on the provider that is asked for: never on another instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeclf_device.engines import missing
from edgeclf_device.errors import DependencyError, ModelError, UsageError, first_line

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

CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_HELPERS = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
"""Providers that come before the CPU for the nodes that one does not take."""
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"


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
        self.open_batch = isinstance(model_input.shape[0], str)
        self._output_names = [self.output_name]

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """See ``Engine.run``."""
        try:
            output: NDArray[Any] = self._session.run(self._output_names, {self.input_name: batch})[0]
        except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
            raise ModelError(f"ONNX Runtime can't run the model: {first_line(error)}; export it again.") from error
        return output

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
        DependencyError: onnxruntime or the provider is not installed or does not work here.
        UsageError: ONNX Runtime knows no such provider.
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


def open_session(model: bytes, threads: int, options: Mapping[str, str], *, profile: Path | None = None) -> Any:
    """ONNX Runtime's own session for .onnx bytes with any number of inputs and outputs.

    Args:
        model: model bytes.
        threads: how many to compute with.
        options: every one of the engine's, see ``engines.chosen_options``.
        profile: how the path of the file begins into which the session's ``end_profiling()`` writes the time of every
            operator; None: they are not timed.

    Raises:
        DependencyError: onnxruntime is not installed, or the provider is not there, does not work or takes no node.
        UsageError: ONNX Runtime knows no such provider.
        ModelError: ONNX Runtime refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", error) from error
    asked = options["provider"]
    provider = _PROVIDERS.get(asked, asked)
    _check_there(onnxruntime, asked, provider)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[options["optimization"]])
    # Threads that spin between frames halve what is left for the rest of the program, for no clear gain in latency.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    if profile is not None:
        settings.enable_profiling, settings.profile_file_prefix = True, str(profile)
    if provider != CPU:
        settings.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    try:
        # Without enable_fallback=0 a provider that fails is exchanged for the CPU, now or at some later frame.
        session = onnxruntime.InferenceSession(model, settings, providers=_with_helpers(provider), enable_fallback=0)
    except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
        if provider != CPU:
            open_session(model, threads, {**options, "provider": "cpu"})  # raises where the model is at fault
            raise _unusable(asked, first_line(error)) from error
        raise ModelError(f"ONNX Runtime refuses the model: {first_line(error)}; export it again.") from error
    _check_used(session, asked, provider)
    return session


def _with_helpers(provider: str) -> list[str]:
    return list(dict.fromkeys((provider, *_HELPERS.get(provider, ()), CPU)))


def _check_there(onnxruntime: Any, asked: str, provider: str) -> None:
    there = onnxruntime.get_available_providers()
    if provider in there:
        return
    known = onnxruntime.get_all_providers()
    if provider not in known:
        raise UsageError(
            f"A provider must be {', '.join(_PROVIDERS)} or one of {', '.join(known)}, but it is {asked!r}."
        )
    raise _unusable(asked, f"ONNX Runtime {onnxruntime.__version__} was built with {', '.join(there)} alone")


def _check_used(session: Any, asked: str, provider: str) -> None:
    """Check that the session has the provider, and, where ONNX Runtime tells, that it executes a part of the model."""
    if provider not in session.get_providers():
        raise _unusable(asked, "it does not load")
    if provider == CPU or not hasattr(session, "get_provider_graph_assignment_info"):
        return
    if all(part.ep_name != provider for part in session.get_provider_graph_assignment_info()):
        raise _unusable(asked, "it takes no node of this model")


def _unusable(asked: str, reason: str) -> DependencyError:
    remedy = "install its drivers and libraries and the onnxruntime that is built for it, or leave the provider out"
    if asked in {"cuda", "tensorrt"}:
        remedy = (
            "install its drivers and libraries and onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime; "
            "pip install onnxruntime-gpu), or leave the provider out"
        )
    return DependencyError(f"The provider {asked} must work here, but {reason}; {remedy}.")
