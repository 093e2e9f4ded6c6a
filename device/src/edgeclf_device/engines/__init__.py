"""Engines: what executes a model. One small Protocol; each engine's package is imported when it is opened."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeclf_device.errors import DependencyError, UsageError
from edgeclf_device.manifest import Container


class Engine(Protocol):
    """A loaded model. Not thread-safe: one caller at a time.

    Attributes:
        name: of the engine, a key of ``MODULES``.
        version: of the engine's package.
        open_batch: whether ``run`` takes any number of images, not one alone.
        transfer_ns: of the last run, what carrying its input to a device with memory of its own and its output back
            took, waiting included; None where the engine computes in the program's memory.
        input_name, input_dtype, input_shape: as the engine reports them, batch first.
        output_name, output_dtype, output_shape: likewise.
    """

    name: str
    version: str
    open_batch: bool
    transfer_ns: int | None
    input_name: str
    input_dtype: str
    input_shape: tuple[int, ...]
    output_name: str
    output_dtype: str
    output_shape: tuple[int, ...]

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Run ``batch`` of ``input_shape`` and ``input_dtype``; an array of ``output_shape``, new for each run.

        Where the batch is open, the first side may be any number, and is that of the output too.

        Raises:
            ModelError: the engine fails at it.
        """

    def close(self) -> None:
        """Give the engine's memory back; the engine can't be used afterwards. Closing twice does no harm."""


MODULES = {
    "litert": "edgeclf_device.engines.litert",
    "onnxruntime": "edgeclf_device.engines.onnxruntime",
    "tflite-runtime": "edgeclf_device.engines.tflite_runtime",
}
"""Every engine by name and the module that holds its ``load(model, threads, options) -> Engine``."""

PACKAGES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "tflite-runtime": "tflite_runtime"}
"""The package that each engine imports."""

ENGINES_OF: dict[Container, tuple[str, ...]] = {"tflite": ("litert", "tflite-runtime"), "onnx": ("onnxruntime",)}
"""Engines able to execute a container, the preferred first."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """What an option of an engine may be.

    Attributes:
        values: those with a meaning of their own, the default first.
        free: what any other value is taken for, for people; empty where there is no other.
    """

    values: tuple[str, ...]
    free: str = ""

    @property
    def default(self) -> str:
        """The value of an option that is not given."""
        return self.values[0]

    def takes(self, value: str) -> bool:
        """Whether ``value`` is one of ``values``, or some other where any is taken."""
        return value in self.values or bool(self.free and value)

    def __str__(self) -> str:
        return ", ".join((*self.values, *filter(None, [self.free])))


_DELEGATE = Option(values=("none",), free="a library's path")

OPTIONS: dict[str, dict[str, Option]] = {
    "litert": {"kernels": Option(values=("xnnpack", "builtin", "reference")), "delegate": _DELEGATE},
    "onnxruntime": {
        "optimization": Option(values=("all", "extended", "basic", "disabled")),
        "provider": Option(values=("cpu", "cuda", "tensorrt"), free="a provider's own name, each with +cpu or without"),
    },
    "tflite-runtime": {"delegate": _DELEGATE},
}
"""What can be chosen of each engine.

``kernels``: XNNPACK's, LiteRT's own optimized ones, or its slow ones that define what is right. ``delegate``: a library
that executes what it can of the model on other hardware, for example libedgetpu.so.1. ``optimization``: how far ONNX
Runtime rewrites the graph before it runs it. ``provider``: what ONNX Runtime computes every node with; ``+cpu`` behind
it lets the CPU compute those that it has no kernel for.
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
        engine: its name; None takes the preferred one of the container that is installed.
        threads: how many it may compute with, at least 1.
        options: of the engine, see ``OPTIONS``; what is left out has its default.

    Raises:
        UsageError: an unknown engine, one that can't execute this container, fewer than one thread, or an unknown
            option.
        DependencyError: the engine's package is not installed or does not load here, or its delegate or provider is
            not there or does not load.
        ModelError: the engine refuses the model, or the delegate takes no part of it.
    """
    usable = ENGINES_OF[container]
    name = engine or installed_engine(container) or usable[0]
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
    for name, value in options.items():
        if name not in known or not known[name].takes(value):
            allowed = "; ".join(f"{one} = {option}" for one, option in known.items())
            raise UsageError(f"The options of {engine} are {allowed}, but {name} = {value} was given.")
    return {name: options.get(name, option.default) for name, option in known.items()}


def installed(engine: str) -> bool:
    """Whether the engine's package is there to import. It is not imported, so it may still fail to load."""
    from importlib.util import find_spec

    try:
        return find_spec(PACKAGES[engine]) is not None
    except ImportError:
        return False


def installed_engine(container: Container) -> str | None:
    """The preferred engine of ``container`` whose package is there to import; None where there is none."""
    return next((name for name in ENGINES_OF[container] if installed(name)), None)


def install_command(engine: str) -> str:
    """The command that brings ``engine``'s package."""
    if engine == "tflite-runtime":  # no extra: it needs NumPy 1, which nothing else here does
        return 'pip install "tflite-runtime==2.14.0" "numpy<2"'
    return f'pip install "edgeclf-device[{engine}]"'


def missing(engine: str, error: ImportError) -> DependencyError:
    """The error that says what brings ``engine``'s package."""
    return DependencyError(f"The engine {engine} is not usable here ({error}); install it: {install_command(engine)}.")
