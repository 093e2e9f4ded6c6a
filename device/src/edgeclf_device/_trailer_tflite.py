"""The .tflite trailer: a zip of stored entries, as TFLITE_METADATA's associated files are kept."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    import zipfile

MANIFEST, LABELS = "manifest.json", "labels.txt"
_IDENTIFIER = b"TFL3"
_END_RECORD = b"PK\x05\x06"
_END_RECORD_BYTES = 22
_MAX_TRAILER_BYTES = 3 * MAX_MANIFEST_BYTES


class _Behind(io.BytesIO):
    """What is written behind the first ``start`` bytes of a file, without those bytes."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def tell(self) -> int:
        return self._start + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._start + super().seek(offset - self._start if whence == io.SEEK_SET else offset, whence)


def build(model: bytes, manifest: bytes, labels: tuple[str, ...]) -> bytes:
    """The zip that follows ``model``; its offsets count from the start of the model, as zip readers expect."""
    if model[4:8] != _IDENTIFIER:
        raise ModelError("The model is not a TensorFlow Lite flatbuffer: its bytes 4 to 8 are not TFL3.")
    import zipfile  # 6 ms that an .onnx file need not pay for

    trailer = _Behind(len(model))
    with zipfile.ZipFile(trailer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(MANIFEST), manifest)
        archive.writestr(_entry(LABELS), "".join(f"{label}\n" for label in labels).encode("utf-8"))
    return trailer.getvalue()


def split(data: bytes) -> tuple[int, bytes]:
    """(length of the model, manifest bytes) of a whole .tflite file.

    Raises:
        ModelError: no trailer, or one that can't be read.
    """
    import zipfile

    if data[-_END_RECORD_BYTES:][:4] != _END_RECORD:
        raise _missing_or_damaged(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if [entry.filename for entry in entries] != [MANIFEST, LABELS]:
                raise ModelError("The trailer is damaged: it does not hold manifest.json and labels.txt alone.")
            if sum(entry.file_size for entry in entries) > _MAX_TRAILER_BYTES or any(
                entry.compress_type != zipfile.ZIP_STORED for entry in entries
            ):
                raise ModelError("The trailer is damaged: its entries are compressed or larger than allowed.")
            return entries[0].header_offset, archive.read(MANIFEST)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"The trailer is damaged ({error}); copy or export the file again.") from error


def _missing_or_damaged(data: bytes) -> ModelError:
    if MANIFEST.encode() in data[-_MAX_TRAILER_BYTES:]:
        return ModelError("The trailer is damaged: its last 22 bytes are not a zip's end; copy or export it again.")
    if data[4:8] != _IDENTIFIER:
        return ModelError("The model is damaged or no TensorFlow Lite file: it lacks the mark TFL3; export it again.")
    return ModelError(
        "There is no manifest in it: a plain or truncated TensorFlow Lite model; "
        "make an artifact with `edgeclf export`."
    )


def _entry(name: str) -> zipfile.ZipInfo:
    """A zip entry with nothing of the time, the machine or the user in it."""
    import zipfile

    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry
