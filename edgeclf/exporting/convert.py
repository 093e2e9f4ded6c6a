"""Keras to TensorFlow Lite and to ONNX. Imports TensorFlow: runs in the child process alone."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.exporting import keras_bias
from edgeclf.exporting.job import Job
from edgeclf_calibration.onnx_canonical import canonical
from edgeclf_device.errors import DataError, DependencyError, ModelError, first_line

ENDPOINT = "serve"
ONNX_OPSET = 17
"""The newest that both tf2onnx writes well and the ONNX Runtime of JetPack 6 reads."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A loaded Keras model, a folder for intermediate files and the pixels to calibrate with."""

    keras_model: Any
    shape: tuple[int, ...]
    folder: Path
    calibration: NDArray[np.uint8] | None


def start_tensorflow() -> None:
    """Import TensorFlow, quiet and deterministic: two exports of one model must be equal.

    Raises:
        DependencyError: TensorFlow or Keras is not installed.
    """
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise DependencyError(
            f'Export needs TensorFlow, which does not import here ({error}): pip install "edgeclf[tensorflow]".'
        ) from error
    tf.get_logger().setLevel(logging.ERROR)
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()


def load(job: Job) -> Source:
    """Load the job's model without executing any code that came with it, and its calibration pixels.

    Raises:
        DependencyError: TensorFlow or Keras is not installed.
        ModelError: the file is no Keras model, holds code (a Lambda layer), or is of another shape than the job says.
    """
    start_tensorflow()
    import keras

    try:
        model = keras.saving.load_model(job.keras_model, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged part caused
        raise ModelError(
            f"{job.keras_model} can't be loaded as a Keras model ({first_line(error)}); train again or copy it again."
        ) from error
    _check_shapes(model, job)
    calibration = None if job.calibration is None else np.load(job.calibration, allow_pickle=False)
    return Source(keras_model=model, shape=job.shape, folder=Path(job.folder), calibration=calibration)


def compiled(source: Source) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The Keras model as a function from uint8 (N, height, width, channels) to scores, float32 (N, classes).

    It takes one image at a time, so that scores do not depend on what lies in the same batch, and is traced once:
    layer by layer a network of 150 layers takes five times as long.
    """
    import tensorflow as tf

    function = tf.function(
        lambda image: source.keras_model(image, training=False), input_signature=_signature(source, "uint8")
    )

    def scores(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([function(tf.constant(image[np.newaxis])).numpy()[0] for image in pixels])

    return scores


def tflite_fp32(source: Source) -> bytes:
    """A float .tflite model: uint8 image in, float32 scores out, the cast inside."""
    return _converted(_converter(source, source.keras_model, "uint8"))


def tflite_fp16(source: Source) -> bytes:
    """A .tflite model with float16 weights; a processor computes in float32, a GPU delegate may compute in float16."""
    import tensorflow as tf

    converter = _converter(source, source.keras_model, "uint8")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return _converted(converter)


def tflite_w8a32(source: Source) -> bytes:
    """A .tflite model with int8 weights whose activations are float32, quantized as they come in its inner loops."""
    import tensorflow as tf

    converter = _converter(source, source.keras_model, "uint8")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return _converted(converter)


def tflite_w8a16(source: Source) -> bytes:
    """A .tflite model with int8 weights and int16 activations; float32 at both ends, the input holding pixels 0 to 255.

    Raises:
        DataError: there are no calibration pixels.
        ModelError: a layer has no such form.
    """
    import keras
    import tensorflow as tf

    pixels = _calibration(source)
    rescaling, network = _split_rescaling(source.keras_model)
    first = _Rescaling(scale=1.0, offset=0.0) if rescaling is None else rescaling
    network = keras_bias.corrected(network, first.of(pixels[: keras_bias.MEAN_IMAGES]))
    # A float input: a cast from uint8, which the trained network begins with, has no form with 16-bit activations.
    image = keras.Input(source.shape, dtype="float32")
    whole = keras.Model(image, network(keras.layers.Rescaling(first.scale, offset=first.offset)(image)))
    converter = _converter(source, whole, "float32")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis].astype(np.float32)] for image in pixels)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    return _converted(converter)


def _calibration(source: Source) -> NDArray[np.uint8]:
    if source.calibration is None:
        raise DataError(
            "w8a16 needs calibration images, but there are none; export from a run with images, or name some."
        )
    return source.calibration


def onnx_fp32(source: Source) -> bytes:
    """A float .onnx model: uint8 image in, float32 scores out, the cast inside; canonical bytes.

    Raises:
        DependencyError: tf2onnx is not installed.
    """
    import tensorflow as tf

    try:
        import tf2onnx
    except ImportError as error:
        raise DependencyError(
            f'Export to ONNX needs tf2onnx, which does not import here ({error}): pip install "edgeclf[onnxruntime]".'
        ) from error
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = _signature(source, "uint8")
    function = tf.function(lambda image: source.keras_model(image, training=False), input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=ONNX_OPSET, custom_op_handlers={"Erfc": (_erfc_as_erf, [])}
    )
    return canonical(proto.SerializeToString(), inputs=("image",), outputs=("scores",))


def _erfc_as_erf(graph: Any, node: Any, name: str, _arguments: list[Any]) -> None:
    """Write 1 - Erf for Erfc, which exact GELU contains and ONNX lacks; a handler of tf2onnx."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    erf = graph.make_node("Erf", node.input, name=f"{name}_erf", shapes=shapes, dtypes=dtypes)
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output, shapes=shapes, dtypes=dtypes)


CONVERTERS: dict[str, Callable[[Source], bytes]] = {
    "tflite-fp32": tflite_fp32,
    "tflite-fp16": tflite_fp16,
    "tflite-w8a32": tflite_w8a32,
    "tflite-w8a16": tflite_w8a16,
    "onnx-fp32": onnx_fp32,
}


@dataclass(frozen=True, kw_only=True)
class _Rescaling:
    """What a network does to its pixels first: ``pixel * scale + offset``."""

    scale: float
    offset: float

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return pixels.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


def _split_rescaling(model: Any) -> tuple[_Rescaling | None, Any]:
    """The Rescaling that ``model`` begins with and the network behind it, or None and the model itself."""
    import keras

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    first = layers[0]
    begins = isinstance(first, keras.layers.Rescaling) and first.input is model.inputs[0]
    if not begins or np.ndim(first.scale) or np.ndim(first.offset):
        return None, model
    try:
        network = keras.Model(first.output, model.output)
    except ValueError:  # something else reads the pixels too
        return None, model
    return _Rescaling(scale=float(first.scale), offset=float(first.offset)), network


def _signature(source: Source, dtype: str) -> list[Any]:
    """One prepared image, (1, height, width, channels), or window of them, static."""
    import tensorflow as tf

    return [tf.TensorSpec((1, *source.shape), dtype, name="image")]


def _converter(source: Source, network: Any, dtype: str) -> Any:
    """From a SavedModel: converting from a bare function drops the weights of a Keras 3 model without an error."""
    import keras
    import tensorflow as tf

    path = Path(tempfile.mkdtemp(dir=source.folder)) / "saved_model"
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        ENDPOINT, lambda image: network(image, training=False), input_signature=_signature(source, dtype)
    )
    archive.write_out(str(path), verbose=False)
    return tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[ENDPOINT])


def _converted(converter: Any) -> bytes:
    model: bytes = converter.convert()
    return model


def _check_shapes(model: Any, job: Job) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"A classifier must have one input and one output, but the model has {len(model.inputs)} and "
            f"{len(model.outputs)}; wrap it in a model with one of each."
        )
    image, scores = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    if image != job.shape:
        raise ModelError(f"The preprocessing makes {job.shape} but the model's input is {image}; train again.")
    if scores != (job.classes,):
        raise ModelError(
            f"There are {job.classes} labels but the model's output is {scores}; give one label for each output."
        )
