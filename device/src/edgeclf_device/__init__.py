"""edgeclf_device: open a self-describing .tflite or .onnx artifact and classify camera frames. Needs NumPy alone."""

from __future__ import annotations

__version__ = "0.1.0"
