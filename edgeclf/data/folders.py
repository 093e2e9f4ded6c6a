"""A folder with one subfolder per class, or with train, val and test folders of those, becomes entries."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edgeclf.data.entries import Entry
from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES

PART_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a folder of a part may be called, and which part it is."""


def read_folder(root: Path) -> tuple[list[Entry], Counter[str]]:
    """Find the images below ``root``, in the order of their paths.

    Hidden files and folders are passed over. Where every visible subfolder bears the name of a part, train is among
    them and holds folders itself, these are the parts; otherwise each subfolder is a class.

    Returns:
        the images, and how many other files there are by their suffixes.

    Raises:
        DataError: two folders of one part.
        OSError: a folder can't be read.
    """
    entries: list[Entry] = []
    ignored: Counter[str] = Counter()
    for part, folder in _class_folders(root):
        label = unicodedata.normalize("NFC", folder.name)
        for path in files_below(folder):
            if path.suffix.lower() not in SUFFIXES:
                ignored[path.suffix.lower()] += 1
            elif path.is_file():
                entries.append(Entry(path=path.relative_to(root).as_posix(), label=label, split=part))
    return entries, ignored


def _class_folders(root: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield (part or None, folder of a class)."""
    folders = _subfolders(root)
    parts = {folder: PART_FOLDERS.get(folder.name.lower()) for folder in folders}
    train = [folder for folder in folders if parts[folder] == "train"]
    if None in parts.values() or not train or not _subfolders(train[0]):
        yield from ((None, folder) for folder in folders)
        return
    for folder, part in parts.items():
        same = [other.name for other in folders if parts[other] == part]
        if len(same) > 1:
            raise DataError(f"{root} must have one folder for {part}, but has {' and '.join(same)}; join them.")
        yield from ((part, inner) for inner in _subfolders(folder))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())


def files_below(folder: Path) -> list[Path]:
    """Every visible file below ``folder``, sorted by the parts of its path."""
    found: list[Path] = []
    for inner, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(Path(inner, name) for name in files if not name.startswith("."))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error
