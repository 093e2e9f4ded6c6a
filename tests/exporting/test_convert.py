from __future__ import annotations

import numpy as np
import pytest

from edgeclf.exporting import convert, keras_bias
from edgeclf.exporting.job import Job
from edgeclf_calibration.bias_correction import rounding_error
from edgeclf_calibration.observe import anchored
from edgeclf_calibration.static import quantize
from edgeclf_device.errors import DataError, ModelError

pytestmark = pytest.mark.tensorflow
SHAPE = (16, 16, 3)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture
def job(tmp_path):
    def make(model, *, classes=2, calibration=True) -> Job:
        path = tmp_path / "model.keras"
        if isinstance(model, bytes):
            path.write_bytes(model)
        else:
            model.save(path)
        np.save(tmp_path / "pixels.npy", anchored(np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)))
        pixels = str(tmp_path / "pixels.npy")
        return Job(
            keras_model=str(path),
            folder=str(tmp_path),
            shape=SHAPE,
            classes=classes,
            conversions=(),
            calibration=pixels if calibration else None,
            probe=pixels,
            golden_seeds=(0,),
        )

    return make


def network(keras, *front, classes=2):
    image = keras.Input(SHAPE, dtype="uint8")
    x = image
    for layer in front:
        x = layer(x)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes, activation="softmax")(x))


def test_a_lambda_layer_is_refused_and_its_code_never_runs(keras, job, tmp_path):
    trap = tmp_path / "ran"
    path = str(trap)
    layer = keras.layers.Lambda(lambda x: (open(path, "w").close(), x / 255.0)[1], output_shape=SHAPE)  # noqa: PTH123
    made = job(network(keras, layer))
    trap.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="can't be loaded"):
        convert.load(made)
    assert not trap.exists()


def test_a_file_that_is_no_keras_model_is_refused(job):
    with pytest.raises(ModelError, match="can't be loaded"):
        convert.load(job(b"PK\x03\x04 and then nothing"))


def test_a_label_too_many_is_refused(keras, job):
    with pytest.raises(ModelError, match="3 labels but the model's output"):
        convert.load(job(network(keras, keras.layers.Rescaling(1 / 255)), classes=3))


def test_tensorflows_own_interpreter_opens_both_schemes(keras, job):
    import tensorflow as tf

    source = convert.load(job(network(keras, keras.layers.Rescaling(1 / 128, offset=-127 / 128))))
    image = source.calibration[1:2]
    expected, fp32 = convert.compiled(source)(image), convert.tflite_fp32(source)
    for model, tolerance in ((fp32, 1e-5), (quantize(fp32, "tflite", source.calibration), 0.05)):
        interpreter = tf.lite.Interpreter(model_content=model)
        interpreter.allocate_tensors()
        (details,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.set_tensor(details["index"], image)
        interpreter.invoke()
        scores = interpreter.get_tensor(output["index"]) * (output["quantization"][0] or 1)
        np.testing.assert_allclose(scores, expected, atol=tolerance)


def test_w8a16_without_calibration_images_is_refused(keras, job):
    source = convert.load(job(network(keras, keras.layers.Rescaling(1 / 255)), calibration=False))
    with pytest.raises(DataError, match="calibration images"):
        convert.tflite_w8a16(source)


def test_a_network_without_rescaling_takes_the_pixels_as_they_are(keras, job):
    source = convert.load(job(network(keras, keras.layers.Normalization(mean=[1, 2, 3], variance=[9, 9, 9]))))
    assert convert._split_rescaling(source.keras_model) == (None, source.keras_model)


def test_bias_correction_keeps_the_channels_means_when_weights_are_rounded(keras):
    layers = keras.layers
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 5))
    x = layers.Conv2D(7, 1, use_bias=False, name="plain")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(1, depth_multiplier=2, use_bias=True, name="depthwise")(x)
    model = keras.Model(image, x)
    images = np.random.default_rng(0).normal(1, 1, (20, 6, 6, 5)).astype(np.float32)
    before = model.predict(images, verbose=0)
    kept = [value.copy() for value in model.get_weights()]
    copy = keras_bias.corrected(model, images)
    rounded = keras.models.clone_model(model)
    rounded.set_weights(model.get_weights())
    for network in (copy, rounded):
        for name, axis in (("plain", 3), ("depthwise", 2)):
            kernel = np.asarray(network.get_layer(name).kernel)
            flat = kernel.reshape(*kernel.shape[:2], -1) if axis == 2 else kernel
            network.get_layer(name).kernel.assign(kernel + rounding_error(flat, axis=axis).reshape(kernel.shape))
    means = [(one.predict(images, verbose=0) - before).mean(axis=(0, 1, 2)) for one in (rounded, copy)]
    assert np.abs(means[0]).max() > 1e-4
    assert np.abs(means[1]).max() < 1e-6
    assert all(np.array_equal(one, two) for one, two in zip(kept, model.get_weights(), strict=True))


def test_exact_gelu_reaches_onnx_in_operators_that_it_has(keras, job):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    source = convert.load(job(network(keras, keras.layers.Rescaling(1 / 255), keras.layers.Activation("gelu"))))
    session = onnxruntime.InferenceSession(convert.onnx_fp32(source), providers=["CPUExecutionProvider"])
    image = source.calibration[1:2]
    (scores,) = session.run(None, {"image": image})
    np.testing.assert_allclose(scores, convert.compiled(source)(image), atol=1e-6)
