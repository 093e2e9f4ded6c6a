"""Any number of images at once: an .onnx model of one image is given a batch dimension named ``batch``.

Converters write the 1 of a batch into the targets of reshapes. There it becomes 0, "as many as the input has". Every
shape is then inferred for one more batch, and the model is run, so that what mixes images, or cuts them off, is found.
A .tflite model keeps its batch of 1: LiteRT can resize one when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_calibration._imports import import_onnx, import_onnxruntime
from edgeclf_calibration.onnx_canonical import respelled
from edgeclf_device.errors import ModelError, first_line

BATCH = "batch"
"""Name of the dimension."""

_MANY = 7919
"""A batch to infer shapes for: a prime, which no other side of a tensor is."""

MAX_DIFFERENCE = 0.02
"""Of a score between an image alone and the same among others. Float sums in another order differ by 1e-6, which moves
a few roundings where layers in int8 follow; a layer that mixes images moves scores by much more."""


def dynamic_batch(model: bytes) -> bytes:
    """The model for any number of images, in any scheme; equal arguments give equal bytes.

    Args:
        model: .onnx bytes with one input, uint8 or float32 (1, H, W, C), and one output (1, classes).

    Returns:
        .onnx bytes: input ("batch", H, W, C), output ("batch", classes). Every row is what the image alone gets.

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        ModelError: a layer fits one image alone, ONNX Runtime refuses several, or the scores of one depend on others.
    """
    onnx = import_onnx()
    proto = onnx.load_from_string(model)
    (image,), (scores,) = _ends(proto)
    for value in (image, scores):
        first, *_ = value.type.tensor_type.shape.dim
        if first.dim_value != 1:
            raise ModelError(
                f"A batch can be freed in a model of one image, but {value.name!r} begins with "
                f"{first.dim_param or first.dim_value}; give the model with a batch of 1."
            )
    _free_reshapes(proto, dependent=_dependent(proto))
    _check_shapes(proto)
    _declare(proto, BATCH)
    made = respelled(proto.SerializeToString(), like=proto)
    _check_rows(model, made, image)
    return made


def _ends(proto: Any) -> tuple[list[Any], list[Any]]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    images, scores = [one for one in proto.graph.input if one.name not in constants], list(proto.graph.output)
    if len(images) != 1 or len(scores) != 1:
        raise ModelError(
            f"A classifier must have one input and one output, but the model has {len(images)} and {len(scores)}; "
            "give a model with one of each."
        )
    return images, scores


def _dependent(proto: Any) -> set[str]:
    """Names of the tensors that hold something of the images, not of their shapes alone."""
    names = {value.name for value in _ends(proto)[0]}
    for node in proto.graph.node:
        if node.op_type not in {"Shape", "Size"} and not names.isdisjoint(node.input):
            names.update(name for name in node.output if name)
    return names


def _free_reshapes(proto: Any, *, dependent: set[str]) -> None:
    """Write 0 for a leading 1 in the constant targets of reshapes."""
    onnx = import_onnx()
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for place, node in enumerate(proto.graph.node):
        if node.op_type != "Reshape" or node.input[0] not in dependent or node.input[1] not in constants:
            continue
        target = onnx.numpy_helper.to_array(constants[node.input[1]])
        if len(target) and target[0] == 1:
            name = f"edgeclf.batch.{place}"  # another node may read the same constant
            freed = np.array([0, *target[1:]], target.dtype)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(freed, name))
            node.input[1] = name
            kept = [one for one in node.attribute if one.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _declare(proto: Any, batch: str | int) -> None:
    """Set the first side of the input and the output, and forget all shapes in between."""
    for (value,) in _ends(proto):
        side = value.type.tensor_type.shape.dim[0]
        side.Clear()
        if isinstance(batch, str):
            side.dim_param = batch
        else:
            side.dim_value = batch
    del proto.graph.value_info[:]


def _check_shapes(proto: Any) -> None:
    """Check that, of many images, every result begins with as many."""
    onnx = import_onnx()
    trial = onnx.ModelProto()
    trial.CopyFrom(proto)
    _declare(trial, _MANY)
    trial.graph.output[0].type.tensor_type.ClearField("shape")  # to be inferred: the first layer to differ is named
    try:
        inferred = onnx.shape_inference.infer_shapes(trial, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises several kinds
        raise ModelError(
            f"The model's layers fit one image alone ({first_line(error)}); leave its batch as it is."
        ) from error
    dependent = _dependent(trial)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    for node in inferred.graph.node:
        for name in node.output:
            sides = shapes.get(name)
            if name not in dependent or sides is None or not all(one.HasField("dim_value") for one in sides):
                continue
            if _MANY not in (shape := tuple(one.dim_value for one in sides)):
                raise ModelError(
                    f"Every layer's result must have the batch among its sides, but for {_MANY} images that of "
                    f"{node.name!r} ({node.op_type}) is {shape}: it fits one image alone, or mixes them; leave the "
                    "model's batch as it is."
                )


def _check_rows(model: bytes, made: bytes, image: Any) -> None:
    """Check that images together get the scores that each of them gets alone."""
    images = _test_images(image)
    alone = _scores(model, (one[np.newaxis] for one in images))
    try:
        together = _scores(made, [images])
    except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
        raise ModelError(
            f"ONNX Runtime can't run the model on {len(images)} images ({first_line(error)}); leave its batch as it is."
        ) from error
    difference = float(np.abs(alone - together).max()) if alone.shape == together.shape else np.inf
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"An image's scores may not depend on the others of its batch, but they differ by {difference:.3g} (up to "
            f"{MAX_DIFFERENCE} is rounding): a layer mixes images; leave the model's batch as it is."
        )


def _test_images(image: Any) -> NDArray[Any]:
    """Black, noise and white, of the type and shape of ``image``: as unlike as images can be."""
    kind = image.type.tensor_type
    shape = tuple(side.dim_value for side in kind.shape.dim[1:])
    noise = np.random.default_rng(0).integers(0, 256, shape)
    images = np.stack([np.zeros(shape), noise, np.full(shape, 255)])
    return images.astype(import_onnx().helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _scores(model: bytes, batches: Iterable[NDArray[Any]]) -> NDArray[Any]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
