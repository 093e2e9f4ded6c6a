"""What several commands make of their parsed arguments."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edgeclf_device.errors import UsageError


def options_given(options: argparse.Namespace) -> dict[str, str]:
    """The options of an engine that were given."""
    given = {"delegate": options.delegate, "provider": options.provider}
    return {name: value for name, value in given.items() if value is not None}


def token_given(file: Path | None) -> str | None:
    """The page's token in ``file``, else in ``EDGECLF_TOKEN``; None where neither gives one.

    Raises:
        UsageError: the file can't be read.
    """
    if file is None:
        return os.environ.get("EDGECLF_TOKEN") or None
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The token file {file} can't be read ({error}); name a text file.") from error
