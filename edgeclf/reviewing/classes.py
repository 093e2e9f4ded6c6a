"""Which classes there are to sort into, and which names one may have: each becomes a folder that ``train`` reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeclf.data.folders import PART_FOLDERS, training_classes
from edgeclf_device.errors import DataError

MAX_NAME_BYTES = 200
"""File systems take 255."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a folder of training images.

    Attributes:
        home: the folder that a further class's folder belongs in.
        folders: of each class by its label, those that are there first among equals; a folder need not exist yet.
    """

    home: Path
    folders: dict[str, Path]


def find_classes(out: Path, labels: Iterable[str]) -> Classes:
    """``labels``, and the classes that ``out`` has, which is a folder as ``train`` takes it, or does not exist yet.

    Raises:
        DataError: a label can't be the name of a folder.
        OSError: ``out`` can't be read.
    """
    home, there = training_classes(out) if out.exists() else (out, {})
    folders: dict[str, Path] = {}
    for label in (*labels, *there):
        name = unicodedata.normalize("NFC", label)
        problem = "" if name in there else name_problem(name, folders)
        if problem:
            raise DataError(
                f"Each class becomes a folder, but {label!r} {problem}; rename it, or name others with --labels."
            )
        folders[name] = there.get(name, home / name)
    return Classes(home=home, folders=folders)


def name_problem(label: str, known: Iterable[str]) -> str:
    """Why no class beside ``known`` may have this name, to be read after it; nothing where it may."""
    if not label or label != label.strip() or label.endswith("."):
        return "is empty, or begins or ends with a space or a dot"
    if any(character in "/\\" or unicodedata.category(character) in ("Cc", "Cs") for character in label):
        return "holds a slash or a character that no file's name should have"
    if label.startswith("."):
        return "begins with a dot, and training passes such folders over"
    if len(label.encode()) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    if label.lower() in PART_FOLDERS:
        return "is what the folder of a part of the data is called"
    like = next((one for one in known if one != label and one.casefold() == label.casefold()), None)
    return "" if like is None else f"differs from {like!r} in capital letters alone"
