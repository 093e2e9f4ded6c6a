"""Bundles: a folder of artifacts of one run, with ``bundle.json`` as its index.

Written specification: docs/reference/artifact-format.md. A bundle is read-only on a device: nothing is written into it
but by the export that makes it. Names in the index are plain file names, so that no bundle reaches outside its folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast, get_args

from edgeclf_device.artifact import TRAILERS, container_of, read_artifact, require_artifact
from edgeclf_device.atomic import write_text
from edgeclf_device.errors import ModelError, UsageError
from edgeclf_device.manifest import Container, Scheme

INDEX = "bundle.json"
FORMAT = (1, 0)
"""Major and minor of the index this package writes; a newer major is refused, an unknown minor field ignored."""

MAX_INDEX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One artifact as the index states it: its file name, SHA-256 and size of the whole file, scheme and container."""

    file: str
    sha256: str
    size_bytes: int
    scheme: Scheme
    container: Container

    def to_json(self) -> dict[str, Any]:
        """The index's object for one artifact."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "bytes": self.size_bytes,
            "scheme": self.scheme,
            "container": self.container,
        }


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle's index. ``created`` is an ISO 8601 time; ``artifacts`` stand in the order of the index."""

    folder: Path
    name: str
    created: str
    artifacts: tuple[Entry, ...]

    def path(self, entry: Entry) -> Path:
        """Where the artifact of ``entry`` is."""
        return self.folder / entry.file

    def to_json(self) -> dict[str, Any]:
        """The content of ``bundle.json``."""
        return {
            "format": list(FORMAT),
            "name": self.name,
            "created": self.created,
            "artifacts": [entry.to_json() for entry in self.artifacts],
        }


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a folder with an index in it."""
    return (path / INDEX).is_file()


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's index. The artifacts themselves are not opened and may be missing.

    Raises:
        ModelError: no index, an index that can't be read or is of a newer format, or a file name in it that is not
            plain, is named twice, or is a symbolic link.
    """
    index = folder / INDEX
    value = _read_json(index)
    try:
        _check_format(value)
        bundle = Bundle(
            folder=folder,
            name=_text(value, "name"),
            created=_text(value, "created"),
            artifacts=tuple(_entry(item) for item in _field(value, "artifacts", list)),
        )
        _check_files(bundle)
    except ModelError as error:
        raise ModelError(f"{index}: {error}") from error
    return bundle


def write_bundle_index(
    folder: Path, *, name: str, created: str | None = None, files: Sequence[str] | None = None
) -> Bundle:
    """Write ``bundle.json`` for the artifacts in ``folder``, in one step.

    Args:
        folder: where the artifacts are.
        name: of the model, for people.
        created: ISO 8601 time; None takes the present, in UTC.
        files: names of the artifacts; None takes every .tflite and .onnx in the folder, by name.

    Raises:
        ModelError: there is no artifact, or one of them is damaged.
        SystemStateError: the system refused (disk full, permission).
    """
    found = sorted(item.name for item in folder.iterdir() if item.suffix in {f".{kind}" for kind in TRAILERS})
    names = found if files is None else list(files)
    if not names:
        raise ModelError(f"A bundle must hold at least one .tflite or .onnx artifact, but {folder} holds none.")
    bundle = Bundle(
        folder=folder,
        name=name,
        created=created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        artifacts=tuple(_index_entry(folder / item) for item in names),
    )
    _check_files(bundle)
    write_text(folder / INDEX, json.dumps(bundle.to_json(), indent=2, ensure_ascii=False) + "\n")
    return bundle


def resolve(path: Path) -> list[Path]:
    """The artifacts that ``path`` stands for: itself, or those of the bundle in the order of its index.

    Raises:
        ModelError: nothing is there, a folder that is no bundle, a damaged index, or an artifact that is missing.
        UsageError: a file whose name ends neither in .tflite nor in .onnx.
    """
    if not path.is_dir():
        require_artifact(path)
        return [path]
    bundle = read_bundle(path)
    missing = [entry.file for entry in bundle.artifacts if not bundle.path(entry).is_file()]
    if missing:
        raise ModelError(
            f"{path / INDEX} names {', '.join(missing)}, which the folder does not hold; copy the whole bundle again."
        )
    return [bundle.path(entry) for entry in bundle.artifacts]


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file, read in pieces.

    Raises:
        ModelError: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}; copy the whole bundle again.") from error
    return digest.hexdigest()


def _index_entry(path: Path) -> Entry:
    manifest = read_artifact(path).manifest
    return Entry(
        file=path.name,
        sha256=file_sha256(path),
        size_bytes=path.stat().st_size,
        scheme=manifest.scheme,
        container=manifest.container,
    )


def _read_json(index: Path) -> Any:
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise ModelError(f"{index} may have {MAX_INDEX_BYTES} bytes, but it has {index.stat().st_size}.")
        return json.loads(index.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{index.parent} is not a bundle: {INDEX} can't be read ({error.strerror}); "
            "name a folder made by `edgeclf export`, or one artifact."
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{index} is damaged: it is not JSON ({error}); copy or export the bundle again.") from error


def _check_format(value: Any) -> None:
    version = _field(value, "format", list)
    if len(version) != 2 or not all(type(part) is int for part in version):
        raise ModelError(f"format must be two integers, but it is {version!r}; export the bundle again.")
    if version[0] != FORMAT[0]:
        raise ModelError(
            f"This edgeclf-device reads bundle format {FORMAT[0]}, but the bundle has {version[0]}.{version[1]}; "
            "upgrade edgeclf-device or export the bundle again."
        )


def _entry(value: Any) -> Entry:
    scheme, container = _text(value, "scheme"), _text(value, "container")
    if scheme not in get_args(Scheme) or container not in get_args(Container):
        raise ModelError(f"the scheme {scheme!r} in a {container!r} is not known; upgrade edgeclf-device.")
    return Entry(
        file=_text(value, "file"),
        sha256=_text(value, "sha256"),
        size_bytes=_field(value, "bytes", int),
        scheme=cast("Scheme", scheme),
        container=cast("Container", container),
    )


def _check_files(bundle: Bundle) -> None:
    names = [entry.file for entry in bundle.artifacts]
    if not names:
        raise ModelError("it must name at least one artifact; export the bundle again.")
    if len(set(names)) != len(names):
        raise ModelError("it names a file twice; export the bundle again.")
    for entry in bundle.artifacts:
        plain = entry.file not in ("", ".", "..") and not set(entry.file) & set("/\\\0")
        if not plain:
            raise ModelError(f"a file in a bundle must have a plain name, but {entry.file!r} is a path; don't use it.")
        if _container(entry.file) != entry.container:
            raise ModelError(f"{entry.file!r} is said to be a {entry.container} artifact; export the bundle again.")
        if bundle.path(entry).is_symlink():
            raise ModelError(
                f"a file in a bundle must be a real file, but {entry.file} is a link; copy the file itself."
            )


def _container(name: str) -> str | None:
    try:
        return container_of(Path(name))
    except UsageError:
        return None


def _text(value: Any, key: str) -> str:
    return str(_field(value, key, str))


def _field(value: Any, key: str, kind: type) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(key), kind) or isinstance(value[key], bool):
        raise ModelError(f"the field {key!r} is missing or of the wrong type; export the bundle again.")
    return value[key]
