"""Why a video file can't be opened, as far as its first bytes and its boxes tell: OpenCV gives no reason."""

from __future__ import annotations

import struct
from pathlib import Path

HEAD_BYTES = 4096
_EBML = b"\x1a\x45\xdf\xa3"
_BEGINNINGS = (_EBML, b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x47", b"\xff\xd8")
"""Of Matroska and WebM, MPEG program and elementary streams, MPEG transport streams and Motion JPEG."""


def why_not(path: Path) -> str:
    """What is wrong with a file that a decoder does not open, and the remedy."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    is_avi, is_mp4 = head[:4] == b"RIFF" and head[8:12] == b"AVI ", head[4:8] == b"ftyp"
    if not is_avi and not is_mp4 and not head.startswith(_BEGINNINGS):
        return "is no video file, whatever its name says; give a video, or remove it."
    if is_mp4 and not _has_index(path):
        return "is cut off: the index at its end is missing; copy it again."
    if is_avi and (whole := 8 + int.from_bytes(head[4:8], "little")) > path.stat().st_size:
        return f"is cut off: it holds {path.stat().st_size} of its {whole} bytes; copy it again."
    codec = _avi_codec(head) if is_avi else ""
    named = f"in the codec {codec}, which is not known here, or damaged" if codec else "damaged, or in an unknown codec"
    return f"is {named}; copy it again, or convert it to H.264 or Motion JPEG."


def _avi_codec(head: bytes) -> str:
    """The four characters of the codec of an AVI's video stream; empty where there are none."""
    _, _, behind = head.partition(b"vids")
    name = behind[:4].decode("latin-1")
    return name if len(name) == 4 and name.isascii() and name.isprintable() else ""


def _has_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has its box ``moov``, which is written last."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind == b"moov":
                return bool(at + length <= size)
            if length == 1:  # a length of 64 bits follows
                (length,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
            if length < 8:
                return False
            at += length
    return False
