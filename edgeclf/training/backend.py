"""The Keras backend: found or explained, seeded, and made deterministic where it can be."""

from __future__ import annotations

import importlib.util
import logging
import os

from edgeclf_device.errors import DependencyError


def require_keras() -> None:
    """Check that Keras and its backend are installed, without importing them.

    Raises:
        DependencyError: one of them is not.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            raise DependencyError(
                f'Training needs {package}, which is not installed; run pip install "edgeclf[tensorflow]".'
            )


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
