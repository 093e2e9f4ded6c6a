"""A folder with one subfolder per class, or with train, val and test folders of those, becomes entries."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from edgeclf.data.entries import Entry
from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES

PART_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a folder of a part may be called, and which part it is."""


def read_folder(root: Path, suffixes: Collection[str] = SUFFIXES) -> tuple[list[Entry], Counter[str]]:
    """Find the images below ``root``, or what else ends in one of ``suffixes``, in the order of their paths.

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
            if path.suffix.lower() not in suffixes:
                ignored[path.suffix.lower()] += 1
            elif path.is_file():
                entries.append(Entry(path=path.relative_to(root).as_posix(), label=label, split=part))
    return entries, ignored


def training_classes(root: Path) -> tuple[Path, dict[str, Path]]:
    """Where a further class of training images belongs, and the folder of each that is there by its label.

    Raises:
        OSError: a folder can't be read.
    """
    parts = _parts(root)
    home = next((folder for folder, part in parts.items() if part == "train"), root)
    return home, {unicodedata.normalize("NFC", folder.name): folder for folder in _subfolders(home)}


def _parts(root: Path) -> dict[Path, str]:
    """The folders of parts below ``root``, and which part each is; none where its subfolders are classes."""
    folders = _subfolders(root)
    parts = {folder: PART_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in PART_FOLDERS}
    train = [folder for folder, part in parts.items() if part == "train"]
    return parts if len(parts) == len(folders) and train and _subfolders(train[0]) else {}


def _class_folders(root: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield (part or None, folder of a class)."""
    parts = _parts(root)
    if not parts:
        yield from ((None, folder) for folder in _subfolders(root))
        return
    for folder, part in parts.items():
        same = [other.name for other in parts if parts[other] == part]
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
