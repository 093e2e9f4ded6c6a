"""Artifacts: one deployable model file with its manifest inside, which still opens in any stock engine.

Model bytes as the converter left them, then a trailer. Which trailer is the container's business: ``_trailer_tflite``
appends a zip, ``_trailer_onnx`` a protobuf record. Written specification: docs/reference/artifact-format.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from edgeclf_device import _trailer_onnx, _trailer_tflite
from edgeclf_device.errors import ModelError, UsageError
from edgeclf_device.manifest import Buffer, Container, Manifest, own_digest, parse, seal

MAX_ARTIFACT_BYTES = 2 << 30


class Trailer(Protocol):
    """How one container carries a manifest behind its model bytes."""

    def build(self, model: Buffer, manifest: bytes, labels: tuple[str, ...]) -> bytes:
        """The trailer's bytes."""

    def split(self, data: bytes) -> tuple[int, bytes]:
        """Find the trailer in a whole file: (length of the model bytes, manifest bytes).

        Raises:
            ModelError: there is none, or it is damaged.
        """


TRAILERS: dict[Container, Trailer] = {"tflite": _trailer_tflite, "onnx": _trailer_onnx}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An artifact's content.

    Attributes:
        manifest: what it says of itself.
        content: the whole file. Engines open it as it is, which saves them a copy without the trailer.
        raw: the manifest object as it stands in the file, unknown fields included.
    """

    manifest: Manifest
    content: bytes = field(repr=False)
    raw: dict[str, Any]

    @cached_property
    def model(self) -> bytes:
        """The model bytes as the converter left them: a copy, made when it is first asked for."""
        return self.content[: self.raw["model_bytes"]]

    @property
    def digest(self) -> str:
        """SHA-256 of the model bytes, as the manifest states it."""
        return str(self.raw["model_sha256"])


def write_artifact(path: Path, model: bytes, manifest: Manifest) -> None:
    """Write ``model`` with ``manifest`` embedded to ``path``, in one step.

    Raises:
        ModelError: the manifest disagrees with itself, or the model is not of the manifest's container.
        UsageError: ``path`` does not end in the container's name.
        SystemStateError: the system refused (disk full, permission).
    """
    if container_of(path) != manifest.container:
        raise UsageError(f"A {manifest.container} artifact must be named *.{manifest.container}, not {path.name}.")
    from edgeclf_device.atomic import write_bytes  # which who only reads need not load

    write_bytes(path, artifact_bytes(model, manifest))


def artifact_bytes(model: bytes, manifest: Manifest) -> bytes:
    """The bytes of the artifact: the model, then the trailer with the sealed manifest."""
    return model + TRAILERS[manifest.container].build(model, seal(manifest, model), manifest.labels)


def read_artifact(path: Path) -> Artifact:
    """Read an artifact and check every byte of it.

    Raises:
        ModelError: no such file, empty, truncated, without a manifest, of a newer format, or damaged; the message
            names the part (model, manifest or trailer) that is.
        UsageError: the name ends neither in .tflite nor in .onnx.
    """
    container = container_of(path)
    data = _file_bytes(path)
    trailer = TRAILERS[container]
    try:
        length, manifest_bytes = trailer.split(data)
        model, raw = memoryview(data)[:length], parse(manifest_bytes)
        _check_digests(raw, model)
        manifest = Manifest.from_json(raw)
        _check_container(manifest, container)
        _check_trailer(data, length, trailer.build(model, manifest_bytes, manifest.labels))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return Artifact(manifest=manifest, content=data, raw=raw)


def container_of(path: Path) -> Container:
    """The container that the file's name ends in.

    Raises:
        UsageError: it ends in neither.
    """
    for container in TRAILERS:
        if path.suffix == f".{container}":
            return container
    raise UsageError(f"An artifact must be a .tflite or .onnx file, but {path} was given.")


def require_artifact(path: Path) -> Container:
    """Check that there is something at ``path``, and that its name is an artifact's: which container it ends in.

    Raises:
        ModelError: nothing is there.
        UsageError: the name ends neither in .tflite nor in .onnx.
    """
    if not path.exists():
        raise ModelError(f"{path} does not exist; name an artifact (.tflite, .onnx) or a bundle folder.")
    return container_of(path)


def _file_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_ARTIFACT_BYTES else None
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}; name an existing .tflite or .onnx file.") from error
    if data is None:
        raise ModelError(f"{path}: an artifact may have {MAX_ARTIFACT_BYTES} bytes, but this file has {size}.")
    if not data:
        raise ModelError(f"{path} is empty (0 bytes); copy or export it again.")
    return data


def _check_digests(raw: dict[str, Any], model: Buffer) -> None:
    if raw.get("manifest_sha256") != own_digest(raw):
        raise ModelError("The manifest is damaged: its SHA-256 does not match; copy or export the file again.")
    if raw.get("model_bytes") != len(model):
        raise ModelError(
            f"The model is damaged: the manifest states {raw.get('model_bytes')} bytes, but there are {len(model)}; "
            "copy or export the file again."
        )
    if raw.get("model_sha256") != hashlib.sha256(model).hexdigest():
        raise ModelError("The model is damaged: its SHA-256 does not match the manifest; copy or export it again.")


def _check_container(manifest: Manifest, container: Container) -> None:
    if manifest.container != container:
        raise ModelError(f"The manifest speaks of a {manifest.container} model, but the file is a .{container}.")


def _check_trailer(data: bytes, length: int, expected: bytes) -> None:
    found = memoryview(data)[length:]
    if found == expected:
        return
    differing = (place for place, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
    place = length + next(differing, min(len(found), len(expected)))
    raise ModelError(
        f"The trailer is damaged: byte {place} is not what the manifest says it must be; copy or export the file again."
    )
