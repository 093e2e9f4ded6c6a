"""An image put into the folder of its class: whole, under a name that is free, never over another file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from edgeclf_device.atomic import os_errors_explained, write_bytes
from edgeclf_device.images import load, png, read_bytes


@dataclass(frozen=True, kw_only=True)
class Filed:
    """Where an image lies now.

    Attributes:
        path: of the file.
        sha256: of its bytes, hexadecimal.
        made: whether it was put there; else a file of equal bytes had lain there before.
    """

    path: Path
    sha256: str
    made: bool


def file_image(image: Path, folder: Path) -> Filed:
    """Copy an image into ``folder``, byte for byte; a ``.npy`` frame, which ``train`` does not read, becomes a PNG.

    Raises:
        DataError: it can't be read.
        SystemStateError: the system refused (disk full, permission).
    """
    if image.suffix.lower() == ".npy":
        data, suffix = png(load(image), "rgb"), ".png"
    else:
        data, suffix = read_bytes(image), image.suffix
    stem = os.fsencode(image.stem).decode("utf-8", "replace").replace("\ufffd", "_")  # ``train`` wants names to be text
    with os_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return _put(data, folder, stem, suffix)


def _put(data: bytes, folder: Path, stem: str, suffix: str) -> Filed:
    sha256 = hashlib.sha256(data).hexdigest()
    for number in count(1):
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        try:
            with os_errors_explained(path):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            if path.is_file() and read_bytes(path) == data:
                return Filed(path=path, sha256=sha256, made=False)
            continue
        try:
            write_bytes(path, data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Filed(path=path, sha256=sha256, made=True)
    raise AssertionError
