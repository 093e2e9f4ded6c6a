"""edgeclf_device: open a self-describing .tflite or .onnx artifact and classify camera frames. Needs NumPy alone.

from edgeclf_device import Classifier

with Classifier.open("solar-w8a8.tflite") as classify:
    result = classify(frame)  # uint8 (H, W, 3) RGB; color="bgr" for OpenCV frames
    print(result.label, result.score, result.top(3), result.timing_ms)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from edgeclf_device.artifact import Artifact, read_artifact, write_artifact
from edgeclf_device.certificate import Certificate
from edgeclf_device.classifier import Classifier, Result
from edgeclf_device.clips import ClipSpec
from edgeclf_device.errors import (
    DataError,
    DependencyError,
    EdgeclfError,
    GateError,
    ModelError,
    SystemStateError,
    UsageError,
)
from edgeclf_device.manifest import Golden, Manifest, Tensor
from edgeclf_device.preprocess import PrepareSpec, prepare
from edgeclf_device.quantization import Quantization

if TYPE_CHECKING:
    from edgeclf_device.bundle import Bundle, read_bundle, write_bundle_index
    from edgeclf_device.decisions import Decision, Hysteresis, MajorityVote, MovingAverage, Rule, parse_rule
    from edgeclf_device.images import load
    from edgeclf_device.sources import Frame, Note, Source, SourceStatus, open_source
    from edgeclf_device.streaming import Event, Follower, stream
    from edgeclf_device.window import Stream

_LATER = {
    "bundle": ("Bundle", "read_bundle", "write_bundle_index"),
    "decisions": ("Decision", "Hysteresis", "MajorityVote", "MovingAverage", "Rule", "parse_rule"),
    "images": ("load",),
    "sources": ("Frame", "Note", "Source", "SourceStatus", "open_source"),
    "streaming": ("Event", "Follower", "stream"),
    "window": ("Stream",),
}
"""Names by their module, which is imported when one is asked for (PEP 562): 15 ms that a classifier need not wait."""
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}

__all__ = [
    "Artifact",
    "Bundle",
    "Certificate",
    "Classifier",
    "ClipSpec",
    "DataError",
    "Decision",
    "DependencyError",
    "EdgeclfError",
    "Event",
    "Follower",
    "Frame",
    "GateError",
    "Golden",
    "Hysteresis",
    "MajorityVote",
    "Manifest",
    "ModelError",
    "MovingAverage",
    "Note",
    "PrepareSpec",
    "Quantization",
    "Result",
    "Rule",
    "Source",
    "SourceStatus",
    "Stream",
    "SystemStateError",
    "Tensor",
    "UsageError",
    "__version__",
    "load",
    "open_source",
    "parse_rule",
    "prepare",
    "read_artifact",
    "read_bundle",
    "stream",
    "write_artifact",
    "write_bundle_index",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
