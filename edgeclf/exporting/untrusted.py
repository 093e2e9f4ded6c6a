"""Reads files that may be damaged or made to do harm, before an engine or a framework opens them."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeclf_device.artifact import MAX_ARTIFACT_BYTES
from edgeclf_device.errors import DataError, ModelError, first_line

MAX_TEXT_BYTES = 16 << 20
_CONFIG = "config.json"
_CODE = {"Lambda", "__lambda__", "TFSMLayer"}
"""Of Keras, what holds Python code or loads a graph from elsewhere."""


def read_bytes(path: Path, *, limit: int = MAX_ARTIFACT_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        ModelError: there is none, it is a folder, a device or a pipe, empty, or above ``limit`` bytes.
    """
    try:
        # Without waiting: opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ModelError(f"{path} must be a regular file, but it is {_named(state.st_mode)}; name a file.")
            if not 0 < state.st_size <= limit:
                raise ModelError(
                    f"{path} must have 1 to {limit} bytes, but it has {state.st_size}; copy or download it again."
                )
            return file.read(limit + 1)
    except IsADirectoryError as error:
        raise ModelError(f"{path} must be a regular file, but it is a folder; name a file.") from error
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}; name an existing file.") from error


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file, without a byte order mark.

    Raises:
        DataError: as ``read_bytes``, or it is not UTF-8.
    """
    try:
        return read_bytes(path, limit=MAX_TEXT_BYTES).decode("utf-8-sig")
    except ModelError as error:
        raise DataError(str(error)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8, but byte {error.start} is not; save it as UTF-8.") from error


def check_keras_file(path: Path) -> None:
    """Check that a ``.keras`` file is whole, of a sane size, and made of Keras' own layers alone.

    Nothing of it is executed or imported, and Keras is not needed.

    Raises:
        ModelError: it is damaged, unpacks to more than ``MAX_ARTIFACT_BYTES``, or names code: a Lambda layer, a class
            of another package.
    """
    read_bytes(path)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            is_sane = unpacked <= MAX_ARTIFACT_BYTES and archive.getinfo(_CONFIG).file_size <= MAX_TEXT_BYTES
            damaged = archive.testzip() if is_sane else None
            config = json.loads(archive.read(_CONFIG)) if is_sane else None
    except Exception as error:  # zipfile and json raise whatever the damaged part caused
        raise ModelError(
            f"{path} must be a file that Keras 3 saved, but reading it gave: {first_line(error)}; it is damaged or of "
            "another kind: copy or download it again."
        ) from error
    if not is_sane:
        raise ModelError(
            f"{path} may unpack to {MAX_ARTIFACT_BYTES} bytes, {MAX_TEXT_BYTES} of them {_CONFIG}, but it states "
            f"{unpacked}; get the file from where it comes from."
        )
    if damaged is not None:
        raise ModelError(f"{path} is damaged: {damaged} in it does not match its checksum; copy or download it again.")
    for one in _objects(config):
        _check_object(path, one)


def check_saved_model(folder: Path) -> None:
    """Check that a SavedModel folder holds regular files alone, of a sane size.

    Raises:
        ModelError: it has no ``saved_model.pb``, holds a link, a device or a pipe, or is too large.
    """
    read_bytes(folder / "saved_model.pb")
    total = 0
    for file in sorted(folder.rglob("*")):
        state = file.lstat()
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise ModelError(
                f"A SavedModel must hold regular files alone, but {file} is {_named(state.st_mode)}; copy its content."
            )
        total += state.st_size
    if total > MAX_ARTIFACT_BYTES:
        raise ModelError(f"{folder} may have {MAX_ARTIFACT_BYTES} bytes, but it has {total}; export a smaller model.")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in ``value``, at any depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _check_object(path: Path, one: dict[str, Any]) -> None:
    name, module = one.get("class_name"), one.get("module")
    if name in _CODE:
        raise ModelError(
            f"{path} holds code (a {name}), which could do anything and is never executed; build the model of Keras' "
            "own layers and save it again, or export it to a SavedModel where you trust it."
        )
    if isinstance(name, str) and isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins"):
        raise ModelError(
            f"{path} needs foreign code ({module}.{name}), which is never imported; build the model of Keras' own "
            "layers and save it again, or export it to a SavedModel where you trust it."
        )


def _named(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISLNK: "a symbolic link",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
    }
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")
