"""LiteRT (ai-edge-litert), the successor of the TensorFlow Lite runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeclf_device.engines import missing
from edgeclf_device.engines.tflite import Runtime, TFLiteEngine, build, engine_of, version_of

_RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


def load(model: bytes, threads: int, options: Mapping[str, str]) -> TFLiteEngine:
    """Load .tflite bytes.

    Raises:
        DependencyError: ai-edge-litert or the delegate is not there or does not load.
        ModelError: LiteRT refuses the model, it has more than one input or output, or the delegate takes no part of it.
    """
    runtime = _runtime(model, threads, options)
    return engine_of(build(runtime, options["delegate"]), runtime)


def open_interpreter(model: bytes, threads: int, options: Mapping[str, str]) -> Any:
    """LiteRT's own interpreter for .tflite bytes with any number of inputs and outputs, its tensors allocated.

    Raises:
        as ``load``.
    """
    return build(_runtime(model, threads, options), options["delegate"])


def _runtime(model: bytes, threads: int, options: Mapping[str, str]) -> Runtime:
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate
    except ImportError as error:
        raise missing("litert", error) from error
    resolver = OpResolverType[_RESOLVERS[options["kernels"]]]

    def new(delegates: Sequence[Any]) -> Any:
        return Interpreter(
            model_content=model,
            experimental_delegates=delegates,
            num_threads=threads,
            experimental_op_resolver_type=resolver,
        )

    return Runtime(
        name="litert",
        title="LiteRT",
        version=version_of(ai_edge_litert, "ai-edge-litert"),
        new=new,
        load_delegate=load_delegate,
    )
