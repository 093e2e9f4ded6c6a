"""The TensorFlow Lite runtime (tflite-runtime), LiteRT's predecessor: for boards that stay on an old Python.

Its last release, 2.14.0, needs Python 3.11 or older and NumPy 1. Under NumPy 2 it can be imported, but not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeclf_device.engines import install_command, missing
from edgeclf_device.engines.tflite import Runtime, TFLiteEngine, build, engine_of, version_of
from edgeclf_device.errors import DependencyError


def load(model: bytes, threads: int, options: Mapping[str, str]) -> TFLiteEngine:
    """Load .tflite bytes.

    Raises:
        DependencyError: tflite-runtime or the delegate is not there or does not load, or NumPy is not of version 1.
        ModelError: tflite-runtime refuses the model (dynamic-range files are too new for it), it has more than one
            input or output, or the delegate takes no part of it.
    """
    try:
        import tflite_runtime
        from tflite_runtime.interpreter import Interpreter, load_delegate
    except ImportError as error:
        raise missing("tflite-runtime", error) from error
    if not np.__version__.startswith("1."):
        raise DependencyError(
            f"tflite-runtime needs NumPy 1, but NumPy {np.__version__} is installed; make an environment of its own "
            f"for it ({install_command('tflite-runtime')}), or use the engine litert."
        )

    def new(delegates: Sequence[Any]) -> Any:
        return Interpreter(model_content=model, experimental_delegates=delegates, num_threads=threads)

    runtime = Runtime(
        name="tflite-runtime",
        title="tflite-runtime",
        version=version_of(tflite_runtime, "tflite-runtime"),
        new=new,
        load_delegate=load_delegate,
    )
    return engine_of(build(runtime, options["delegate"]), runtime)
