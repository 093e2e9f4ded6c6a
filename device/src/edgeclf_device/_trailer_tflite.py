"""The .tflite trailer: a zip of stored entries, as TFLITE_METADATA's associated files are kept.

Written and found by hand, for it has one form alone: ``zipfile`` and what it imports take longer to load than an
artifact takes to read. Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import struct
from binascii import crc32

from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import MAX_MANIFEST_BYTES, Buffer

MANIFEST, LABELS = "manifest.json", "labels.txt"
_IDENTIFIER = b"TFL3"
_LOCAL, _LOCAL_MARK = struct.Struct("<4s5H3I2H"), b"PK\x03\x04"
_CENTRAL, _CENTRAL_MARK = struct.Struct("<4s6H3I5H2I"), b"PK\x01\x02"
_END, _END_MARK = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
_ZIP_2_0, _UNIX = 20, 3 << 8
_FIRST_DAY = 1 << 5 | 1  # 1 January 1980 at midnight, the first time that a zip can state
_READABLE = 0o644 << 16
_MAX_TRAILER_BYTES = 3 * MAX_MANIFEST_BYTES


def build(model: Buffer, manifest: bytes, labels: tuple[str, ...]) -> bytes:
    """The zip that follows ``model``; its offsets count from the start of the model, as zip readers expect.

    There is nothing of the time, the machine or the user in it.
    """
    if model[4:8] != _IDENTIFIER:
        raise ModelError("The model is not a TensorFlow Lite flatbuffer: its bytes 4 to 8 are not TFL3.")
    local, central = b"", b""
    for name, content in ((MANIFEST, manifest), (LABELS, "".join(f"{label}\n" for label in labels).encode("utf-8"))):
        size, place = len(content), len(model) + len(local)
        common = (_ZIP_2_0, 0, 0, 0, _FIRST_DAY, crc32(content), size, size, len(name), 0)
        local += _LOCAL.pack(_LOCAL_MARK, *common) + name.encode() + content
        central += _CENTRAL.pack(_CENTRAL_MARK, _UNIX | _ZIP_2_0, *common, 0, 0, 0, _READABLE, place) + name.encode()
    return local + central + _END.pack(_END_MARK, 0, 0, 2, 2, len(central), len(model) + len(local), 0)


def split(data: bytes) -> tuple[int, bytes]:
    """(length of the model, manifest bytes) of a whole file; the rest is the reader's to compare with ``build``.

    Raises:
        ModelError: no trailer, or one that can't be read.
    """
    if data[-_END.size :][:4] != _END_MARK:
        raise _missing_or_damaged(data)
    try:
        central = _END.unpack(data[-_END.size :])[6]
        mark, *_, length = _CENTRAL.unpack_from(data, central)
        found, _, flags, method, _, _, _, _, size, name, extra = _LOCAL.unpack_from(data, length)
    except struct.error as error:
        raise _damaged("its entries are not where it says") from error
    if (mark, found) != (_CENTRAL_MARK, _LOCAL_MARK) or len(data) - length > _MAX_TRAILER_BYTES:
        raise _damaged("its entries are not where it says, or larger than allowed")
    if flags or method:
        raise _damaged("its entries are compressed or encrypted")
    begin = length + _LOCAL.size + name + extra
    return length, data[begin : begin + size]


def _damaged(reason: str) -> ModelError:
    return ModelError(f"The trailer is damaged: {reason}; copy or export the file again.")


def _missing_or_damaged(data: bytes) -> ModelError:
    if MANIFEST.encode() in data[-_MAX_TRAILER_BYTES:]:
        return ModelError("The trailer is damaged: its last 22 bytes are not a zip's end; copy or export it again.")
    if data[4:8] != _IDENTIFIER:
        return ModelError("The model is damaged or no TensorFlow Lite file: it lacks the mark TFL3; export it again.")
    return ModelError(
        "There is no manifest in it: a plain or truncated TensorFlow Lite model; "
        "make an artifact with `edgeclf export`."
    )
