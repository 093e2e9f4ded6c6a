"""Makes any fp32 .onnx classifier take uint8 pixels and answer probabilities; reads its weights wherever they may lie.

The one who made the file says where weights outside it lie, so nothing is opened before that place is checked.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting.convention import Convention, require_classes, require_identity
from edgeclf.exporting.untrusted import read_bytes
from edgeclf_calibration.onnx_canonical import canonical
from edgeclf_device.artifact import MAX_ARTIFACT_BYTES
from edgeclf_device.errors import DependencyError, ModelError, first_line

_QUANTIZED = re.compile("QuantizeLinear|^QLinear|Integer$")

LEAST_OPSET, OPSET = 13, 17
"""Older models are converted to the opset that edgeclf writes: int8 with one scale per channel needs the least."""


def read_onnx(path: Path) -> bytes:
    """The .onnx bytes of ``path`` with all weights inside.

    Raises:
        ModelError: no ONNX model, damaged, or with weights in a file that is not a regular one of one name in the
            model's own folder.
        DependencyError: onnx is not installed.
    """
    onnx = _onnx()
    proto = _parsed(path, read_bytes(path))
    total = 0
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            data = _external(path, {entry.key: entry.value for entry in tensor.external_data})
            total += len(data)
            if total > MAX_ARTIFACT_BYTES:
                raise ModelError(
                    f"The weights beside {path} may have {MAX_ARTIFACT_BYTES} bytes; give a smaller model."
                )
            tensor.raw_data = data
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
        _check_size(path, tensor)
    try:
        whole: bytes = proto.SerializeToString()
    except Exception as error:  # protobuf's own exceptions: above 2 GiB
        raise ModelError(f"{path} is too large with its weights ({first_line(error)}); give a smaller one.") from error
    return whole


def from_pixels(model: bytes, shape: tuple[int, ...], classes: int, convention: Convention) -> bytes:
    """The model with one input ``image``, uint8 (1, H, W, C), and one output ``scores``; canonical bytes.

    Args:
        model: .onnx bytes, fp32, with one input (N, C, H, W) or (N, H, W, C) and one output (N, classes); its batch
            becomes 1, and a height and width that change become those of ``shape``.
        shape: (height, width, channels) of the prepared images.
        classes: number of labels.
        convention: from the pixels to the model's input.

    Raises:
        ModelError: the model is not of that kind, or answers for another number of classes.
        DependencyError: onnx is not installed.
    """
    onnx = _onnx()
    proto = _modern(onnx.load_from_string(model))
    graph = proto.graph
    _check_float(graph)
    constants = {tensor.name for tensor in graph.initializer}
    images = [value for value in graph.input if value.name not in constants]
    if len(images) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"A classifier must have one input and one output, but the model has {len(images)} and "
            f"{len(graph.output)}; give a model with one of each."
        )
    (image,), (scores,) = images, graph.output
    _check_classes(scores, classes)
    _lead_in(graph, image, shape, convention)
    if convention.logits:
        graph.node.append(onnx.helper.make_node("Softmax", [scores.name], ["edgeclf.scores"], axis=-1))
        scores.name = "edgeclf.scores"
    _declare(scores, onnx.TensorProto.FLOAT, (1, classes))
    del graph.value_info[:]  # shapes with the old batch
    try:
        made = canonical(proto.SerializeToString(), inputs=("image",), outputs=("scores",))
        onnx.checker.check_model(made, full_check=True)
    except ModelError:
        raise
    except Exception as error:  # onnx raises several kinds
        raise ModelError(f"The .onnx model contradicts itself: {first_line(error)}; export it again.") from error
    return made


def _onnx() -> Any:
    try:
        import onnx
        import onnx.inliner
        import onnx.version_converter
    except ImportError as error:
        raise DependencyError(
            f'An .onnx model needs onnx, which does not import here ({error}): pip install "edgeclf[onnxruntime]".'
        ) from error
    return onnx


def _parsed(path: Path, data: bytes) -> Any:
    onnx = _onnx()
    try:
        proto = onnx.load_from_string(data)  # opens no other file
    except Exception as error:  # protobuf's own exceptions
        raise ModelError(
            f"{path} must be an ONNX model, but reading it gave: {first_line(error)}; it is damaged or of another "
            "kind: copy or download it again."
        ) from error
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{path} must be an ONNX model with a graph, but it has none; copy or download it again.")
    return proto


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor anywhere in a protobuf message, at any depth."""
    tensor_type = _onnx().TensorProto
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tensor_type):
            yield one
            continue
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting += [value] if hasattr(value, "ListFields") else list(value)


def _external(path: Path, entry: dict[str, str]) -> bytes:
    """The bytes that a tensor keeps in another file."""
    location, folder = entry.get("location", ""), path.resolve().parent
    file = folder / location
    if not location or "\0" in location or Path(location).is_absolute() or file.resolve() != file:
        raise ModelError(
            f"The weights of {path} must lie in a file of its own folder, but it names {location!r}; save it with its "
            "weights inside, or beside it under a plain name."
        )
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
                raise ModelError(
                    f"The weights of {path} must be a regular file with one name, but {location!r} is a link to "
                    "another file, a folder or a device; copy the weights' content beside the model."
                )
            offset = int(entry.get("offset") or 0)
            length = int(entry.get("length") or state.st_size - offset)
            if offset < 0 or length < 0 or offset + length > state.st_size:
                raise ModelError(
                    f"{location!r} must hold {offset + length} bytes of weights for {path}, but it has "
                    f"{state.st_size}: it is truncated or of another model; copy both again."
                )
            opened.seek(offset)
            return opened.read(length)
    except OSError as error:
        raise ModelError(f"The weights {location!r} of {path} can't be read: {error.strerror}; copy both.") from error
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"The place of the weights {location!r} of {path} must be numbers: {error}.") from error


def _check_size(path: Path, tensor: Any) -> None:
    """Check that a tensor holds as many bytes as its shape says, before anything is set aside for it."""
    onnx = _onnx()
    if not tensor.HasField("raw_data"):
        return
    values = int(np.prod([int(side) for side in tensor.dims], dtype=object))
    bits = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4}.get(tensor.data_type)
    try:
        bits = bits or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: the tensor {tensor.name!r} is of the unknown type {tensor.data_type}.") from error
    if min(tensor.dims, default=0) < 0 or (values * bits + 7) // 8 != len(tensor.raw_data):
        raise ModelError(
            f"{path}: the tensor {tensor.name!r} of shape {list(tensor.dims)} must have {(values * bits + 7) // 8} "
            f"bytes, but it has {len(tensor.raw_data)}; the file is damaged: copy or download it again."
        )


def _modern(proto: Any) -> Any:
    """The model without functions of its own, in an opset that can be quantized."""
    onnx = _onnx()
    try:
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
        opset = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), OPSET)
        return proto if opset >= LEAST_OPSET else onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # onnx raises several kinds
        raise ModelError(
            f"The .onnx model can't be brought to opset {OPSET}: {first_line(error)}; export it with that opset."
        ) from error


def _check_float(graph: Any) -> None:
    """Check that nothing in the graph is quantized or halved already."""
    onnx = _onnx()
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    found = [node.op_type for node in graph.node if _QUANTIZED.search(node.op_type)]
    found += [
        f"weights in {onnx.TensorProto.DataType.Name(one.data_type)}"
        for one in graph.initializer
        if one.data_type in halves
    ]
    if found:
        raise ModelError(
            f"The .onnx model must be fp32, but it has {found[0]}: it is quantized or halved already, which can't be "
            "undone; give the float model."
        )


def _check_classes(scores: Any, classes: int) -> None:
    sides = _sides(scores)
    if len(sides) != 2 or sides[0] not in (None, 1):
        raise ModelError(
            f"A classifier's output must be (1, classes), but the model's is {_shown(sides)}; give such a model."
        )
    require_classes(classes if sides[1] is None else sides[1], classes)


def _lead_in(graph: Any, image: Any, shape: tuple[int, ...], convention: Convention) -> None:
    """Put the way from the pixels to the network before the graph; ``image`` becomes the pixels."""
    onnx = _onnx()
    sides, kind = _sides(image), image.type.tensor_type.elem_type
    channels_first = _channels_first(sides, shape)
    if kind == onnx.TensorProto.UINT8 and not channels_first:
        require_identity(convention)
        _declare(image, kind, (1, *shape))
        return
    if kind != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(kind)
        raise ModelError(f"The .onnx model must take float32, or uint8 (1, H, W, C), but it takes {name}.")
    steps: list[tuple[str, tuple[NDArray[Any], ...], dict[str, Any]]] = [("Cast", (), {"to": onnx.TensorProto.FLOAT})]
    if convention.bgr:
        steps.append(("Gather", (np.array([2, 1, 0], np.int64),), {"axis": 3}))
    if set(convention.scale) != {1.0}:
        steps.append(("Mul", (np.array(convention.scale, np.float32),), {}))
    if set(convention.offset) != {0.0}:
        steps.append(("Add", (np.array(convention.offset, np.float32),), {}))
    if channels_first:
        steps.append(("Transpose", (), {"perm": [0, 3, 1, 2]}))
    before = "edgeclf.pixels"
    for place, (operator, values, attributes) in enumerate(steps):
        after = image.name if place == len(steps) - 1 else f"edgeclf.{operator}"
        names = [f"edgeclf.{operator}.{number}" for number in range(len(values))]
        graph.initializer.extend(map(onnx.numpy_helper.from_array, values, names))
        graph.node.insert(place, onnx.helper.make_node(operator, [before, *names], [after], **attributes))
        before = after
    image.name = "edgeclf.pixels"
    _declare(image, onnx.TensorProto.UINT8, (1, *shape))


def _channels_first(sides: list[int | None], shape: tuple[int, ...]) -> bool:
    layouts = {False: (1, *shape), True: (1, shape[2], *shape[:2])}
    fitting = [
        first
        for first, wanted in layouts.items()
        if len(sides) == 4 and all(side in (None, want) for side, want in zip(sides, wanted, strict=True))
    ]
    if len(fitting) != 1:
        ambiguous = " its channels may be first or last;" if fitting else ""
        raise ModelError(
            f"The preprocessing makes images of {(1, *shape)}, but the model's input is {_shown(sides)};{ambiguous} "
            "give its height, width and channels, and export it with a fixed number of channels."
        )
    return fitting[0]


def _sides(value: Any) -> list[int | None]:
    """The sides of a declared tensor; None for one that changes."""
    return [one.dim_value if one.HasField("dim_value") else None for one in value.type.tensor_type.shape.dim]


def _shown(sides: list[int | None]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in sides)})"


def _declare(value: Any, kind: int, shape: tuple[int, ...]) -> None:
    name = value.name
    value.CopyFrom(_onnx().helper.make_tensor_value_info(name, kind, shape))
