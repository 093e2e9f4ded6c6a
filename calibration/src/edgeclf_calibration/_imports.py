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


def import_quantizer(module: str) -> Any:
    """Import a module of ai-edge-quantizer.

    Raises:
        DependencyError: it is not installed.
    """
    return _import(f"ai_edge_quantizer.{module}", extra="litert")


def _import(name: str, *, extra: str = "onnxruntime") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"Quantizing this kind of model needs {name}, which does not import here ({error}): "
            f'pip install "edgeclf-calibration[{extra}]".'
        ) from error
