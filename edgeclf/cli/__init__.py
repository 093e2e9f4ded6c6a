"""The ``edgeclf`` command line."""

from __future__ import annotations

from edgeclf.cli import commands, device
from edgeclf.cli.app import app

__all__ = ["app", "commands", "device", "main"]


def main() -> None:
    """Run the command line."""
    app()
