"""Engines: what executes a model. One small Protocol; each engine's package is imported when it is opened."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeclf_device.errors import DependencyError, UsageError
from edgeclf_device.manifest import Container


class Engine(Protocol):
    """A loaded model. Not thread-safe: one caller at a time.

    Attributes:
        name: ``litert`` or ``onnxruntime``.
        version: of the engine's package.
        input_name, input_dtype, input_shape: as the engine reports them, batch first.
        output_name, output_dtype, output_shape: likewise.
    """

    name: str
    version: str
    input_name: str
    input_dtype: str
    input_shape: tuple[int, ...]
    output_name: str
    output_dtype: str
    output_shape: tuple[int, ...]

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Run ``batch`` of ``input_shape`` and ``input_dtype``; a new array of ``output_shape``.

        Raises:
            ModelError: the engine fails at it.
        """

    def close(self) -> None:
        """Give the engine's memory back; the engine can't be used afterwards."""


MODULES = {"litert": "edgeclf_device.engines.litert", "onnxruntime": "edgeclf_device.engines.onnxruntime"}
"""Every engine by name and the module that holds its ``load(model, threads, options) -> Engine``."""

PACKAGES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}
"""The package that each engine imports."""

ENGINES_OF: dict[Container, tuple[str, ...]] = {"tflite": ("litert",), "onnx": ("onnxruntime",)}
"""Engines able to execute a container, the preferred first."""


OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "litert": {"kernels": ("xnnpack", "builtin", "reference")},
    "onnxruntime": {"optimization": ("all", "extended", "basic", "disabled")},
}
"""What can be chosen of each engine, and the values that it may have, the default first.

``kernels``: XNNPACK's, LiteRT's own optimized ones, or its slow ones that define what is right. ``optimization``: how
far ONNX Runtime rewrites the graph before it runs it.
"""

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


def open_engine(
    model: bytes,
    container: Container,
    *,
    engine: str | None = None,
    threads: int = 1,
    options: Mapping[str, str] = NO_OPTIONS,
) -> Engine:
    """Load model bytes into an engine.

    Args:
        model: model bytes; a trailer behind them does no harm.
        container: what the bytes are.
        engine: its name; None takes the preferred one of the container.
        threads: how many it may compute with, at least 1.
        options: of the engine, see ``OPTIONS``; what is left out has its default.

    Raises:
        UsageError: an unknown engine, one that can't execute this container, fewer than one thread, or an unknown
            option.
        DependencyError: the engine's package is not installed or does not load here.
        ModelError: the engine refuses the model.
    """
    usable = ENGINES_OF[container]
    name = engine or usable[0]
    if name not in usable:
        known = name in MODULES
        raise UsageError(
            f"A .{container} model runs on {' or '.join(usable)}, but the engine {name!r} was asked for"
            + ("; name a model of its own kind." if known else f"; the engines are {', '.join(MODULES)}.")
        )
    if threads < 1:
        raise UsageError(f"threads must be at least 1, but it is {threads}.")
    loaded: Engine = importlib.import_module(MODULES[name]).load(model, threads, chosen_options(name, options))
    return loaded


def chosen_options(engine: str, options: Mapping[str, str]) -> dict[str, str]:
    """Every option of ``engine`` with the value given in ``options``, or its default.

    Raises:
        UsageError: an option that the engine does not have, or a value that the option can't have.
    """
    known = OPTIONS[engine]
    for option, value in options.items():
        if value not in known.get(option, ()):
            allowed = "; ".join(f"{name} = {', '.join(values)}" for name, values in known.items())
            raise UsageError(f"The options of {engine} are {allowed}, but {option} = {value} was given.")
    return {option: options.get(option, values[0]) for option, values in known.items()}


def installed(engine: str) -> bool:
    """Whether the engine's package is there to import. It is not imported, so it may still fail to load."""
    try:
        return importlib.util.find_spec(PACKAGES[engine]) is not None
    except ImportError:
        return False


def missing(engine: str, error: ImportError) -> DependencyError:
    """The error that says which extra brings ``engine``'s package."""
    return DependencyError(
        f'The engine {engine} is not usable here ({error}); install it: pip install "edgeclf-device[{engine}]".'
    )
