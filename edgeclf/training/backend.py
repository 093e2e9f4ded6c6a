"""The Keras backend: found or explained, seeded, made deterministic, and used as the machine allows."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeclf_device.errors import DependencyError, UsageError

if TYPE_CHECKING:
    import keras

MIXED = {"tensorflow": "mixed_float16", "jax": "mixed_bfloat16"}
"""What ``train.precision=auto`` means on an accelerator."""


def require_keras() -> None:
    """Check that Keras, its backend and TensorBoard's writer are installed, without importing them.

    Raises:
        UsageError: Keras is set to a backend that nothing here was tried with.
        DependencyError: one of them is not installed.
    """
    backend = _backend()
    if backend not in MIXED:
        raise UsageError(
            f"The Keras backend must be one of {', '.join(MIXED)}, but it is {backend!r}; set KERAS_BACKEND=tensorflow."
        )
    for package in ("keras", backend, "tensorboard"):
        if importlib.util.find_spec(package) is None:
            extra = "jax" if backend == "jax" else "tensorflow"
            raise DependencyError(
                f"Training needs {package}, which is not installed; install edgeclf[{extra}], in a checkout with "
                f'pip install ./device ./calibration ".[{extra}]".'
            )


def _backend() -> str:
    """What Keras will choose when it is imported: KERAS_BACKEND, else its own file of settings, else TensorFlow."""
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    settings = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        return str(json.loads(settings.read_text(encoding="utf-8")).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seed Python, NumPy and the backend; with ``deterministic``, forbid operations whose result varies.

    TensorFlow's switch holds for the rest of the process. JAX is deterministic on a CPU without one.
    """
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.get_logger().setLevel(logging.ERROR)  # its advice on retracing is for whoever writes the functions
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def accelerated() -> bool:
    """Whether the backend computes on a GPU or TPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return str(jax.default_backend()) != "cpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def precision(wanted: str) -> str:
    """The name of the Keras dtype policy that ``train.precision`` stands for on this machine."""
    import keras

    if wanted != "auto":
        return wanted
    return MIXED[keras.backend.backend()] if accelerated() else "float32"


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Let the layers that are built meanwhile compute in ``name``."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def compile_options() -> dict[str, Any]:
    """What every ``compile`` here takes: TensorFlow's XLA makes convolutions 15 times slower on a CPU.

    JAX has nothing but XLA: without it every operation is dispatched by itself.
    """
    import keras

    return {"jit_compile": False if keras.backend.backend() == "tensorflow" and not accelerated() else "auto"}


def reseed(model: keras.Model, *key: int) -> None:
    """Let the random layers of ``model`` go on from ``key``, two numbers, whatever came before."""
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            variable.assign(key)
