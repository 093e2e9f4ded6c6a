"""The .onnx trailer: one appended ``metadata_props`` record of ModelProto, read without protobuf or an engine.

Wire format: https://protobuf.dev/programming-guides/encoding/; field numbers: onnx/onnx.proto.
"""

from __future__ import annotations

from edgeclf_device.errors import ModelError
from edgeclf_device.manifest import MAX_MANIFEST_BYTES, Buffer

KEY = b"edgeclf.manifest"
_METADATA_PROPS, _GRAPH = 14, 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def build(model: Buffer, manifest: bytes, labels: tuple[str, ...]) -> bytes:
    """The record that follows ``model``. The labels stand in the manifest alone."""
    del labels
    _check_model(model)
    entry = b"\x0a" + _varint(len(KEY)) + KEY + b"\x12" + _varint(len(manifest)) + manifest
    return _varint(_METADATA_PROPS << 3 | _BYTES) + _varint(len(entry)) + entry


def split(data: bytes) -> tuple[int, bytes]:
    """(length of the model, manifest bytes) of a whole .onnx file.

    Raises:
        ModelError: no record of ours, or a file that does not parse.
    """
    place, found = 0, None
    while place < len(data):
        start = place
        number, kind, place = tag(data, place)
        place, begin = skip(data, place, kind)
        if number == _METADATA_PROPS and kind == _BYTES and data[begin + 2 : begin + 2 + len(KEY)] == KEY:
            found = (start, begin, place)
    if found is None:
        if KEY in data:
            raise ModelError("The file is damaged: its structure can't be followed to the manifest; copy it again.")
        raise ModelError(
            "There is no manifest in it: a plain or damaged ONNX model; make an artifact with `edgeclf export`."
        )
    start, begin, end = found
    if end != len(data):
        raise ModelError("The trailer is damaged: something follows the manifest; copy or export the file again.")
    return start, _value(data[begin:end])


def _value(entry: bytes) -> bytes:
    place = 2 + len(KEY)
    number, kind, place = tag(entry, place)
    if (number, kind) != (2, _BYTES):
        raise ModelError("The trailer is damaged: the manifest's record has no value; copy or export the file again.")
    end, begin = skip(entry, place, kind)
    if end - begin > MAX_MANIFEST_BYTES:
        raise ModelError(f"A manifest may have {MAX_MANIFEST_BYTES} bytes, but this one has {end - begin}.")
    return entry[begin:end]


def _check_model(model: Buffer) -> None:
    place, graphs = 0, 0
    while place < len(model):
        number, kind, place = tag(model, place)
        place, _ = skip(model, place, kind)
        graphs += number == _GRAPH
    if graphs != 1:
        raise ModelError(f"An ONNX model must hold one graph, but this one holds {graphs}.")


def tag(data: Buffer, place: int) -> tuple[int, int, int]:
    """(field number, wire type, next place)."""
    value, place = read_varint(data, place)
    return value >> 3, value & 7, place


def skip(data: Buffer, place: int, kind: int) -> tuple[int, int]:
    """(place after the field, place where its content begins)."""
    if kind == _VARINT:
        return read_varint(data, place)[1], place
    if kind == _BYTES:
        length, begin = read_varint(data, place)
        end = begin + length
    else:
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if size is None:
            raise _broken(place)
        begin, end = place, place + size
    if end > len(data):
        raise _broken(place)
    return end, begin


def read_varint(data: Buffer, place: int) -> tuple[int, int]:
    """(value, next place)."""
    value = 0
    for position, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, place + position + 1
    raise _broken(place)


def _broken(place: int) -> ModelError:
    return ModelError(
        f"The file is damaged or truncated: its structure breaks at byte {place}; copy or export it again."
    )


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
