"""The ``edgeclf`` command line."""

from __future__ import annotations

import os

from edgeclf.cli import commands, device
from edgeclf.cli.app import app

__all__ = ["app", "commands", "device", "main"]


def main() -> None:
    """Run the command line."""
    # TensorFlow reads it when it is imported; its own lines would bury the progress bars.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()
