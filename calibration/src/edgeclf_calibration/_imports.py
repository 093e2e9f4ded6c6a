"""Imports the packages that only some calls need, or says which extra brings them."""

from __future__ import annotations

import importlib
from typing import Any

from edgeclf_device.errors import DependencyError


def import_onnx() -> Any:
    """Import onnx.

    Raises:
        DependencyError: it is not installed.
    """
    return _import("onnx")


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        DependencyError: it is not installed.
    """
    return _import("onnxruntime")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"Quantizing an ONNX model needs {name}, which does not import here ({error}): "
            'pip install "edgeclf-calibration[onnxruntime]".'
        ) from error
