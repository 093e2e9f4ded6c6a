"""What an image file states about itself before it is decoded: its size, and whether a JPEG has its end.

A few bytes can state billions of pixels, and a decoder allocates what is stated: so it is read first. Sources: the
PNG, GIF89a, BMP (BITMAPINFOHEADER), WebP container, TIFF 6.0 and BigTIFF, and JPEG (ITU-T T.81) specifications.
"""

from __future__ import annotations

import struct

Size = tuple[int, int]

_JPEG_END = b"\xff\xd9"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers SOF0 to SOF15, without DHT, JPG and DAC."""
_JPEG_WITHOUT_LENGTH = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
"""TEM, fill bytes, RST0 to RST7 and SOI."""
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


def stated_size(data: bytes) -> Size | None:
    """(height, width) as the file states it, or None where the format is another one or the header is damaged."""
    for signature, read in _READERS.items():
        if data.startswith(signature):
            try:
                return read(data)
            except struct.error:
                return None
    return None


def lacks_its_end(data: bytes) -> bool:
    """Whether it is a JPEG cut off within its picture: a thumbnail before that has an end marker of its own.

    OpenCV before 4.11 decodes such a file without a word and makes up the rest.
    """
    frame = _jpeg_frame(data) if data.startswith(b"\xff\xd8") else None
    return frame is not None and data.rfind(_JPEG_END, frame) < 0


def _jpeg_frame(data: bytes) -> int | None:
    """Where the picture's frame header begins, found by stepping over the segments before it."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            return at
        if marker in _JPEG_WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _jpeg_size(data: bytes) -> Size | None:
    frame = _jpeg_frame(data)
    return None if frame is None else struct.unpack_from(">HH", data, frame + 5)


def _png_size(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _gif_size(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _bmp_size(data: bytes) -> Size:
    """Sides of an OS/2 or a Windows bitmap; a negative height means rows from the top."""
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), abs(width)


def _webp_size(data: bytes) -> Size | None:
    """The canvas of an extended file; in the two plain kinds the sides have 14 bits and can't be too large."""
    if data[8:16] != b"WEBPVP8X":
        return None
    width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
    return (height_high << 16) + height + 1, (width_high << 16) + width + 1


def _tiff_size(data: bytes) -> Size | None:
    """The width and height entries of the first directory, in either byte order, also of a BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version == 43:
        (directory,) = struct.unpack_from(f"{order}Q", data, 8)
        (count,) = struct.unpack_from(f"{order}Q", data, directory)
        first, length, value = directory + 8, 20, 12
    else:
        (directory,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, directory)
        first, length, value = directory + 2, 12, 8
    found = {}
    for at in range(first, first + min(count, 1000) * length, length):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in {_TIFF_WIDTH, _TIFF_HEIGHT}:
            (found[tag],) = struct.unpack_from(order + {3: "H", 16: "Q"}.get(kind, "I"), data, at + value)
    return (found[_TIFF_HEIGHT], found[_TIFF_WIDTH]) if len(found) == 2 else None


_READERS = {
    b"\xff\xd8": _jpeg_size,
    b"\x89PNG\r\n\x1a\n": _png_size,
    b"GIF8": _gif_size,
    b"BM": _bmp_size,
    b"RIFF": _webp_size,
    b"II": _tiff_size,
    b"MM": _tiff_size,
}
"""By the first bytes of a file."""
