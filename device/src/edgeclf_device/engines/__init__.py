"""Engines: what executes a model. One small Protocol; each engine's package is imported when it is opened."""

from __future__ import annotations

import importlib
import importlib.util
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
"""Every engine by name and the module that holds its ``load(model, threads) -> Engine``."""

PACKAGES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}
"""The package that each engine imports."""

ENGINES_OF: dict[Container, tuple[str, ...]] = {"tflite": ("litert",), "onnx": ("onnxruntime",)}
"""Engines able to execute a container, the preferred first."""


def open_engine(model: bytes, container: Container, *, engine: str | None = None, threads: int = 1) -> Engine:
    """Load model bytes into an engine.

    Args:
        model: model bytes; a trailer behind them does no harm.
        container: what the bytes are.
        engine: its name; None takes the preferred one of the container.
        threads: how many it may compute with, at least 1.

    Raises:
        UsageError: an unknown engine, one that can't execute this container, or fewer than one thread.
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
    loaded: Engine = importlib.import_module(MODULES[name]).load(model, threads)
    return loaded


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
