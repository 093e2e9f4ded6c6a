"""Make the tiny real models of the tests and of `edgeclf-device doctor`; needs TensorFlow and onnx.

Run it as `python tests/device/make_models.py`.

A 3×3 convolution, a mean over the image and a dense layer with softmax: uint8 (1, 16, 20, 3) to 4 scores. The same
weights in every file. Committed, so that the tests run where neither TensorFlow nor onnx is installed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH, CLASSES, FILTERS = 16, 20, 4, 6
MODELS = Path(__file__).parent / "models"
PROBES = Path(__file__).parents[2] / "device/src/edgeclf_device/engines"
OUTPUT_SCALE = 1 / 256

Weights = dict[str, NDArray[np.float32]]


def weights() -> Weights:
    """Seeded weights, large enough that different images get clearly different labels."""
    rng = np.random.default_rng(7)
    return {
        "kernel": rng.normal(0, 0.6, (3, 3, 3, FILTERS)).astype(np.float32),
        "bias": rng.normal(0, 0.1, FILTERS).astype(np.float32),
        "dense": rng.normal(0, 3.0, (FILTERS, CLASSES)).astype(np.float32),
        "dense_bias": rng.normal(0, 0.1, CLASSES).astype(np.float32),
    }


def tflite_models(values: Weights) -> dict[str, bytes]:
    """fp32 and w8a8 by TensorFlow's converter, and an identity of one float that shows whether an engine works."""
    import keras
    import tensorflow as tf

    image = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(FILTERS, 3, strides=2, padding="valid", activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(CLASSES, activation="softmax", name="head")(x)
    model = keras.Model(image, x)
    model.get_layer("conv").set_weights([values["kernel"], values["bias"]])
    model.get_layer("head").set_weights([values["dense"], values["dense_bias"]])
    rng = np.random.default_rng(3)

    def calibration() -> Any:
        for _ in range(32):
            low, high = np.sort(rng.integers(0, 256, 2))
            yield [rng.integers(low, high + 1, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)]

    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        signature = [tf.TensorSpec((1, HEIGHT, WIDTH, 3), tf.uint8)]
        archive.add_endpoint("serve", lambda frame: model(frame, training=False), input_signature=signature)
        archive.write_out(folder, verbose=False)
        plain = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serve"])
        quantized = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serve"])
        quantized.optimizations = [tf.lite.Optimize.DEFAULT]
        quantized.representative_dataset = calibration
        quantized.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        quantized.inference_input_type = quantized.inference_output_type = tf.uint8
        return {"fp32.tflite": plain.convert(), "w8a8.tflite": quantized.convert(), "probe.tflite": tflite_probe()}


def tflite_probe() -> bytes:
    """x + 1 on one float: the smallest model with an operator in it."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1,), tf.float32)])
    def add_one(x: Any) -> Any:
        return x + 1.0

    converter = tf.lite.TFLiteConverter.from_concrete_functions([add_one.get_concrete_function()])
    return bytes(converter.convert())


def onnx_models(values: Weights) -> dict[str, bytes]:
    """fp32, one whose scores are quantized to uint8 as w8a8 models' are, and the probe."""
    return {
        "fp32.onnx": onnx_model(values, quantized_output=False),
        "w8a8.onnx": onnx_model(values, quantized_output=True),
        "probe.onnx": onnx_probe(),
    }


def onnx_model(values: Weights, *, quantized_output: bool) -> bytes:
    """The same network in ONNX, opset 17."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    arrays = {
        "kernel": np.transpose(values["kernel"], (3, 2, 0, 1)),
        "bias": values["bias"],
        "dense": values["dense"],
        "dense_bias": values["dense_bias"],
        "step": np.float32(1 / 255),
        "output_scale": np.float32(OUTPUT_SCALE),
        "output_zero": np.uint8(0),
    }
    if not quantized_output:
        del arrays["output_scale"], arrays["output_zero"]
    scores = "real_scores" if quantized_output else "scores"
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "step"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["convolved"], strides=[2, 2]),
        helper.make_node("Relu", ["convolved"], ["rectified"]),
        helper.make_node("GlobalAveragePool", ["rectified"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "dense", "dense_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [scores]),
    ]
    if quantized_output:
        nodes.append(helper.make_node("QuantizeLinear", [scores, "output_scale", "output_zero"], ["scores"]))
    kind = TensorProto.UINT8 if quantized_output else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, HEIGHT, WIDTH, 3))],
        [helper.make_tensor_value_info("scores", kind, (1, CLASSES))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgeclf")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def onnx_probe() -> bytes:
    """x + x on one float."""
    from onnx import TensorProto, helper

    vector = ("x", "y")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in vector)
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Write every model and say how large it is."""
    MODELS.mkdir(exist_ok=True)
    values = weights()
    for name, data in {**onnx_models(values), **tflite_models(values)}.items():
        folder = PROBES if name.startswith("probe.") else MODELS
        (folder / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
