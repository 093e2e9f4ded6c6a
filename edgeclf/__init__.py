"""edgeclf: a folder of labelled images becomes a verified, quantized, self-describing classifier.

The verbs of the command line are functions here: ``fetch``, ``train``, ``evaluate``, ``robustness`` (what
``evaluate --robustness`` does), ``study``, ``export`` (of a run), ``export_file`` (of a model of yours), ``parity``,
``verify``, ``bench``, ``compare`` (what ``bench A B`` does), ``recommend`` and ``review``. They are loaded when first
used, so that importing edgeclf imports no framework.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "bench": "edgeclf_device.bench",
    "compare": "edgeclf_device.bench",
    "evaluate": "edgeclf.evaluation.evaluate",
    "export": "edgeclf.exporting.export",
    "export_file": "edgeclf.exporting.file_subject",
    "fetch": "edgeclf.stock",
    "parity": "edgeclf.evaluation.parity",
    "recommend": "edgeclf.benchmarking.recommend",
    "review": "edgeclf.reviewing.review",
    "robustness": "edgeclf.evaluation.robustness",
    "study": "edgeclf.calibrating.study",
    "train": "edgeclf.training.train",
    "verify": "edgeclf_device.verify",
}

__all__ = [
    "__version__",
    "bench",
    "compare",
    "evaluate",
    "export",
    "export_file",
    "fetch",
    "parity",
    "recommend",
    "review",
    "robustness",
    "study",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_VERBS[name]), name)
