"""The ``edgeclf`` command line."""

from __future__ import annotations

import os
import sys

from edgeclf.cli import bench, calibrate, commands, device, evaluate, parity, review, verify
from edgeclf.cli.app import app
from edgeclf_device.interrupts import kept_interrupts
from edgeclf_device.terminal import discard_stdout

__all__ = ["app", "bench", "calibrate", "commands", "device", "evaluate", "main", "parity", "review", "verify"]


def main() -> None:
    """Run the command line."""
    # TensorFlow reads it when it is imported; its own lines would bury the progress bars.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with kept_interrupts():
            app()
    except SystemExit as end:
        if _reader_went_away(end):
            from edgeclf_device.cli import BROKEN_PIPE

            raise SystemExit(BROKEN_PIPE) from None
        raise


def _reader_went_away(end: SystemExit) -> bool:
    """Whether nobody reads stdout any more (`| head`), as Typer or Rich found before it gave up, or as is found now."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
        return True
    return isinstance(end.__context__, BrokenPipeError)
