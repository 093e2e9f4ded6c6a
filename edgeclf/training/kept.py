"""JSON files of a run, each with a version of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgeclf_device.errors import ModelError

Made = TypeVar("Made")


def read_versioned(path: Path, make: Callable[[Any], Made], *, newest: tuple[int, int], remedy: str) -> Made:
    """What ``make`` makes of the JSON at ``path``.

    Args:
        path: of the file, an object with ``format``, (major, minor).
        make: from the object; may raise what damaged values raise.
        newest: format that ``make`` knows.
        remedy: what to do about a damaged file.

    Raises:
        ModelError: it is damaged, or of a newer major format.
    """
    try:
        value = json.loads(path.read_bytes())
        major, _minor = value["format"]
        if major > newest[0]:
            raise ModelError(f"{path} has format {major}, but this edgeclf reads up to {newest[0]}; update edgeclf.")
        return make(value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({error}); {remedy}.") from error


def read_kept(path: Path, make: Callable[[Any], Made], *, newest: tuple[int, int], remedy: str) -> Made | None:
    """``read_versioned``, of a file that a run may lack: None where it does."""
    return read_versioned(path, make, newest=newest, remedy=remedy) if path.is_file() else None
