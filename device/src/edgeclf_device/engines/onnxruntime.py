"""ONNX Runtime, on the CPU or on the provider that is asked for: never on another instead."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from edgeclf_device._graph_onnx import sums_fit
from edgeclf_device.engines import missing
from edgeclf_device.engines.onnx_providers import (
    CPU,
    NO_CPU,
    RECORD_ASSIGNMENT,
    Asked,
    asked,
    providers_of,
    require_built,
    require_used,
    unusable,
)
from edgeclf_device.errors import ModelError, first_line

Result = TypeVar("Result")

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}

_X86_64 = ("x86_64", "AMD64")

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}


class OnnxRuntime:
    """An .onnx model in an ONNX Runtime session."""

    name = "onnxruntime"
    transfer_ns: int | None = None

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
        output: NDArray[Any] = calling(self._session.run, self._output_names, {self.input_name: batch})[0]
        return output

    def close(self) -> None:
        """See ``Engine.close``."""
        self._session = None


def calling(function: Callable[..., Result], *arguments: Any) -> Result:
    """What ``function`` gives; whatever ONNX Runtime raises at it becomes a ModelError."""
    try:
        return function(*arguments)
    except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
        raise ModelError(f"ONNX Runtime can't run the model: {first_line(error)}; export it again.") from error


def _one_image(shape: list[int | str]) -> tuple[int, ...]:
    """The shape with a batch of 1 where the model leaves its batch open; every other side must be a number."""
    first, *others = shape
    return (1 if isinstance(first, str) else int(first), *map(int, others))


def load(model: bytes, threads: int, options: Mapping[str, str]) -> OnnxRuntime:
    """Load .onnx bytes. On a device with memory of its own, the first run, which records a CUDA graph, is over then.

    Raises:
        DependencyError: onnxruntime or the provider is not installed, does not work here or leaves nodes to the CPU.
        UsageError: ONNX Runtime knows no such provider.
        ModelError: ONNX Runtime refuses the model, or its input and output are not one each of a static shape; the
            batch alone may be open, and counts as 1.
    """
    session = open_session(model, threads, options, capture=True)
    import onnxruntime

    device = asked(options["provider"]).device
    try:
        if device is None:
            return OnnxRuntime(session, onnxruntime.__version__)
        from edgeclf_device.engines.onnx_device import OnnxDevice

        return OnnxDevice(session, onnxruntime.__version__, device)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The model needs one input and one output of static shape and a known type ({error}); export it again."
        ) from error


def open_session(
    model: bytes, threads: int, options: Mapping[str, str], *, profile: Path | None = None, capture: bool = False
) -> Any:
    """ONNX Runtime's own session for .onnx bytes with any number of inputs and outputs.

    Args:
        model: model bytes.
        threads: how many to compute with.
        options: every one of the engine's, see ``engines.chosen_options``.
        profile: how the path of the file begins into which the session's ``end_profiling()`` writes the time of every
            operator; None: they are not timed.
        capture: record the first run as a CUDA graph, where the provider can and takes the whole network; every run
            must then be with one and the same binding, or with ``SKIP_CAPTURE``.

    Raises:
        DependencyError: onnxruntime is not installed, or the provider is not there, does not work or leaves nodes to
            the CPU that was not asked for.
        UsageError: ONNX Runtime knows no such provider.
        ModelError: ONNX Runtime refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", error) from error
    wanted = asked(options["provider"])
    require_built(onnxruntime, wanted)

    def session(wanted: Asked, *, capture: bool) -> Any:
        settings = _settings(model, threads, options["optimization"], wanted, profile)
        providers = providers_of(wanted, model, capture=capture)
        # Without enable_fallback=0 a provider that fails is exchanged for the CPU, now or at some later frame.
        return onnxruntime.InferenceSession(model, settings, providers=providers, enable_fallback=0)

    opened = None
    if capture and wanted.whole:  # where TensorRT shares the network with CUDA, there is nothing to be recorded
        with contextlib.suppress(Exception):
            opened = session(wanted, capture=True)
    try:
        opened = opened or session(wanted, capture=False)
    except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
        if wanted.provider == CPU:
            raise ModelError(f"ONNX Runtime refuses the model: {first_line(error)}; export it again.") from error
        open_session(model, threads, {**options, "provider": "cpu"})  # raises where the model is at fault
        with contextlib.suppress(Exception):  # with the CPU beside it, it tells what it left
            opened = session(replace(wanted, whole=False), capture=False)
        if opened is not None:
            require_used(opened, wanted)
        raise unusable(wanted, first_line(error)) from error
    require_used(opened, wanted)
    return opened


def _settings(model: bytes, threads: int, optimization: str, wanted: Asked, profile: Path | None) -> Any:
    """ONNX Runtime's SessionOptions."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimization])
    # Threads that spin between frames halve what is left for the rest of the program, for no clear gain in latency.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # On x86-64 without VNNI the sums of uint8 times int8 saturate. This makes the weights unsigned there, in 0.1 s.
    if platform.machine() in _X86_64 and not sums_fit(model):
        settings.add_session_config_entry("session.x64quantprecision", "1")
    settings.log_severity_level = 3
    if profile is not None:
        settings.enable_profiling, settings.profile_file_prefix = True, str(profile)
    if wanted.provider != CPU:
        settings.add_session_config_entry(RECORD_ASSIGNMENT, "1")
    if wanted.whole:
        settings.add_session_config_entry(NO_CPU, "1")
    return settings
