"""TFLITE_METADATA inside a .tflite model: what MediaPipe, ML Kit and Android Studio read to name the labels.

A buffer of the model holds a second flatbuffer, ModelMetadata. It says that the input is an image, how its pixels
become the input's numbers, and which file in the zip behind the model has the labels; ``edgeclf_device.artifact``
appends that zip. Source: metadata_schema.fbs 1.5.0 of TensorFlow Lite Support, the same in MediaPipe. No generated
writer of that schema is on a registry without a framework round it, so the few tables needed are spelled here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeclf_calibration.tflite_file import packed
from edgeclf_device.engines import missing
from edgeclf_device.errors import ModelError

ENTRY = b"TFLITE_METADATA"

_MODEL_IDENTIFIER, _METADATA_IDENTIFIER = b"TFL3", b"M001"
_PARSER_VERSION = "1.0.0"
_SLOTS: Mapping[str, tuple[str, ...]] = {
    "ModelMetadata": (
        *("name", "description", "version", "subgraph_metadata", "author", "license", "associated_files"),
        "min_parser_version",
    ),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": (
        *("name", "description", "dimension_names", "content", "process_units", "stats", "associated_files"),
    ),
    "Content": ("content_properties_type", "content_properties"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space",),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "AssociatedFile": ("name", "description", "type"),
}
"""Fields of each table in the order of the schema, which numbers them, as far as the last one written here."""

_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2  # union ContentProperties
_NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions
_TENSOR_AXIS_LABELS = 2  # enum AssociatedFileType
_COLOR_SPACE = {3: 1, 1: 2}  # enum ColorSpaceType by channels: RGB, GRAYSCALE


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A flatbuffer table: texts, one-byte enumerations, lists of floats, tables and lists of tables by field name."""

    kind: str
    values: Mapping[str, Any]


def with_metadata(
    model: bytes, *, name: str, description: str, licence: str | None = None, labels_file: str = "labels.txt"
) -> bytes:
    """The .tflite model with a TFLITE_METADATA entry, in place of the one it may have; equal input, equal bytes.

    Tensors, operators and the bytes of all weights stay as they are; every buffer begins at a multiple of 16 bytes.

    Args:
        model: .tflite bytes without a trailer, of an image classifier with one input and one output.
        name: of the model, for people.
        description: what it does, for people.
        licence: what its user is bound by, for people.
        labels_file: name, in the zip behind the model, of the file with one label a line.

    Raises:
        ModelError: not a .tflite model, not an image classifier with uint8 or float32 pixels, or weights outside
            the flatbuffer.
        DependencyError: LiteRT is not installed.
    """
    flatbuffers, schema = _modules()
    if model[4:8] != _MODEL_IDENTIFIER:
        raise ModelError("The model is not a TensorFlow Lite flatbuffer: its bytes 4 to 8 are not TFL3.")
    parsed = schema.ModelT.InitFromPackedBuf(model)
    _check_self_contained(parsed)
    metadata = _Table(
        kind="ModelMetadata",
        values={
            "name": name,
            "description": description,
            **({"license": licence} if licence else {}),
            "subgraph_metadata": [_classifier(parsed, schema, labels_file)],
            "min_parser_version": _PARSER_VERSION,
        },
    )
    builder = flatbuffers.Builder()
    builder.Finish(_pack(builder, metadata), _METADATA_IDENTIFIER)
    _put(parsed, schema, bytes(builder.Output()))
    return packed(parsed)


def _modules() -> tuple[Any, Any]:
    """The flatbuffers runtime and LiteRT's schema of .tflite models, which brings it."""
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise missing("litert", error) from error
    return flatbuffers, schema_py_generated


def _classifier(parsed: Any, schema: Any, labels_file: str) -> _Table:
    """SubGraphMetadata of a model with one image as input and one row of scores as output."""
    graph = parsed.subgraphs[0]
    if len(parsed.subgraphs) != 1 or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"An image classifier must have one graph with one input and one output, but there are "
            f"{len(parsed.subgraphs)}, {len(graph.inputs)} and {len(graph.outputs)}; export a model with one of each."
        )
    labels = _Table(
        kind="AssociatedFile",
        values={"name": labels_file, "description": "One label a line.", "type": _TENSOR_AXIS_LABELS},
    )
    scores = {
        "name": "probability",
        "description": "One score for each label, in their order.",
        "content": _content(_FEATURE_PROPERTIES, "FeatureProperties", {}),
        "associated_files": [labels],
    }
    return _Table(
        kind="SubGraphMetadata",
        values={
            "input_tensor_metadata": [_image(graph.tensors[graph.inputs[0]], schema)],
            "output_tensor_metadata": [_Table(kind="TensorMetadata", values=scores)],
        },
    )


def _image(tensor: Any, schema: Any) -> _Table:
    """TensorMetadata of the input: an image whose pixels, 0 to 255, are the tensor's values as they are.

    A reader makes (pixel - mean) / std of a pixel and, where the tensor has a quantization, quantizes that: value =
    real / scale + zero_point. So mean and std undo the tensor's quantization, or do nothing. MediaPipe looks at them
    only for float inputs, TensorFlow Lite Support and the code Android Studio generates always do.
    """
    shape = [] if tensor.shape is None else [int(side) for side in tensor.shape]
    pixels = tensor.type in {schema.TensorType.UINT8, schema.TensorType.FLOAT32}
    if len(shape) != 4 or shape[-1] not in _COLOR_SPACE or not pixels:
        raise ModelError(
            f"The input of an image classifier must be uint8 or float32 pixels (1, height, width, 1 or 3), but it has "
            f"the shape {tuple(shape)} and TensorType {tensor.type}; export a model with such an input."
        )
    quantization = tensor.quantization
    mean, std = 0.0, 1.0
    if quantization is not None and quantization.scale is not None and len(quantization.scale):
        mean, std = float(quantization.zeroPoint[0]), 1 / float(quantization.scale[0])
    normalization = _Table(kind="NormalizationOptions", values={"mean": [mean], "std": [std]})
    values = {
        "name": "image",
        "description": f"An image of {shape[2]}×{shape[1]} pixels, 0 to 255.",
        "content": _content(_IMAGE_PROPERTIES, "ImageProperties", {"color_space": _COLOR_SPACE[shape[-1]]}),
        "process_units": [
            _Table(kind="ProcessUnit", values={"options_type": _NORMALIZATION_OPTIONS, "options": normalization})
        ],
    }
    return _Table(kind="TensorMetadata", values=values)


def _content(union_type: int, kind: str, values: Mapping[str, Any]) -> _Table:
    properties = _Table(kind=kind, values=values)
    return _Table(kind="Content", values={"content_properties_type": union_type, "content_properties": properties})


def _pack(builder: Any, table: _Table) -> int:
    """Write what the table points to, then the table itself; its offset."""
    slots = _SLOTS[table.kind]
    values = {slots.index(field): value for field, value in table.values.items()}
    offsets = {slot: _pack_child(builder, value) for slot, value in values.items() if not isinstance(value, int)}
    builder.StartObject(len(slots))
    for slot, value in values.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        else:
            builder.PrependUint8Slot(slot, value, 0)
    return int(builder.EndObject())


def _pack_child(builder: Any, value: str | _Table | list[float] | list[_Table]) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, _Table):
        return _pack(builder, value)
    if isinstance(value[0], float):
        return int(builder.CreateNumpyVector(np.array(value, np.float32)))
    offsets = [_pack(builder, table) for table in value if isinstance(table, _Table)]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _put(parsed: Any, schema: Any, metadata: bytes) -> None:
    """Give the entry its buffer, the one it had or a new last one."""
    entries = parsed.metadata = list(parsed.metadata or [])
    entry = next((one for one in entries if one.name == ENTRY), None)
    if entry is None:
        entry = schema.MetadataT(name=ENTRY, buffer=len(parsed.buffers))
        entries.append(entry)
        parsed.buffers.append(schema.BufferT())
    parsed.buffers[entry.buffer].data = metadata


def _check_self_contained(parsed: Any) -> None:
    """Places counted from the start of the file would be wrong after packing."""
    operators = (one for graph in parsed.subgraphs for one in graph.operators or ())
    if (
        any(one.offset or one.size for one in parsed.buffers)
        or any(one.largeCustomOptionsOffset for one in operators)
        or parsed.externalBuffers
    ):
        raise ModelError(
            "All weights must lie inside the flatbuffer, but some lie behind it or in other files; convert a model of "
            "less than 2 GB, without buffer offsets."
        )
