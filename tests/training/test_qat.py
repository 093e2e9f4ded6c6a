from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeclf.training.config import FitConfig, load_config
from edgeclf.training.images import TrainingImages
from edgeclf.training.journal import CHECKPOINT, Journal, folder_of, read_checkpoint
from edgeclf.training.phases import Training, fit, plan
from edgeclf.training.qat import rounded_network, write_back
from edgeclf.training.run import read_history, read_run
from edgeclf.training.train import train
from edgeclf_device.errors import UsageError
from edgeclf_device.progress import no_progress
from edgeclf_device.quantization import Quantization, dequantize, quantize

tensorflow = pytest.mark.tensorflow

CNN = [
    "backbone=cnn",
    "image_size=16",
    "train.batch_size=4",
    "train.epochs=4",
    "train.qat=true",
    "model.hidden=8",
    "model.filters=4",
    "model.dropout=0.3",
    "train.ema=0.9",
]


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


def config(data: Path, *more: str):
    return load_config(None, [f"data={json.dumps(str(data))}", *CNN, *more])


def phases(*overrides: str) -> list[tuple[str, int]]:
    return [(phase.name, phase.epochs) for phase in plan(load_config(None, ["train.qat=true", *overrides]))]


def test_the_rounded_epochs_are_the_last_of_all_and_one_is_enough():
    assert phases("train.epochs=8") == [("probe", 1), ("upper", 5), ("qat", 2)]
    assert phases("train.epochs=8", "train.all_epochs=3") == [("probe", 1), ("upper", 2), ("all", 3), ("qat", 2)]
    assert phases("train.epochs=5", "train.all_epochs=4") == [("probe", 1), ("all", 2), ("qat", 2)]
    assert phases("train.epochs=3") == [("probe", 1), ("qat", 2)]
    assert phases("train.epochs=2") == [("probe", 1), ("qat", 1)]
    assert phases("train.epochs=1") == [("qat", 1)]
    assert phases("backbone=cnn", "train.epochs=9", "train.qat_epochs=4") == [("all", 5), ("qat", 4)]
    assert phases("train.epochs=8", "train.qat=false") == [("probe", 1), ("upper", 7)]


def test_what_is_rounded_is_trained_slowly_after_a_training_and_as_usual_without_one():
    def rate(*overrides: str) -> float:
        return plan(load_config(None, ["backbone=cnn", "train.qat=true", *overrides]))[-1].learning_rate

    assert rate("train.learning_rate=0.5") == pytest.approx(0.05)
    assert rate("train.learning_rate=0.5", "train.epochs=1") == 0.5
    assert rate("train.learning_rate=0.5", "train.qat_learning_rate=0.2") == 0.2


def test_a_phase_of_no_epochs_is_refused():
    with pytest.raises(UsageError, match=r"train.qat_epochs must be at least 1, but it is 0"):
        FitConfig(qat_epochs=0)


def apart_from_ties(steps):
    """Where float32 and float64 must agree on the nearest whole number."""
    return np.abs(steps - np.floor(steps) - 0.5) > 1e-3


@tensorflow
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    low=st.floats(-1000, 1000, width=32),
    width=st.floats(2**-10, 1000, width=32),
)
def test_activations_are_rounded_as_both_exports_round_them(keras, seed, low, width):
    from edgeclf.training.fake_quantization import rounded_activations

    # As ai-edge-quantizer's tensor_zp_scale_from_min_max and onnxruntime's compute_scale_zp have it.
    bottom, top = min(low, 0.0), max(low + width, 0.0)
    scale = (top - bottom) / 255
    assume(apart_from_ties(np.array(-128 - bottom / scale)))
    form = Quantization(scale=scale, zero_point=round(-128 - bottom / scale))
    draw = np.random.default_rng(seed)
    values = (draw.uniform(-0.5, 1.5, 200) * (top - bottom) + bottom).astype(np.float32)
    values = values[apart_from_ties(values.astype(np.float64) / scale)]
    expected = dequantize(quantize(values, form, np.int8), form)
    found = np.asarray(rounded_activations(values, np.float32(low), np.float32(low + width)))
    assert np.abs(found - expected).max() <= 0.01 * scale


@tensorflow
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(2**-20, 2**20, width=32), depthwise=st.booleans())
def test_weights_are_rounded_as_ai_edge_quantizer_rounds_them_and_only_once(keras, seed, size, depthwise):
    pytest.importorskip("ai_edge_quantizer")
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as theirs

    from edgeclf.training.fake_quantization import rounded_weights

    draw = np.random.default_rng(seed)
    kernel = (draw.normal(size=(3, 3, 4, 2)) * draw.lognormal(0, 3, (4, 2) if depthwise else (1, 2)) * size).astype("f")
    kernel[..., -1, -1] = 0
    axes = (2, 3) if depthwise else (3,)
    largest = np.abs(kernel).max(axis=tuple(one for one in range(4) if one not in axes), keepdims=True)
    zero_point, scale = theirs.tensor_zp_scale_from_min_max(
        *(-largest, largest, 8), symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
    )
    ties = ~apart_from_ties(kernel / scale)
    kernel[ties] = np.broadcast_to(scale, kernel.shape)[ties]
    whole = theirs.uniform_quantize(
        kernel,
        qtyping.UniformQuantParams(8, None, *(np.broadcast_to(one, kernel.shape) for one in (scale, zero_point))),
    )
    found = np.asarray(rounded_weights(kernel, channels=axes))
    assert np.abs(found - whole * scale).max() <= 1e-5 * largest.max()
    assert np.abs(np.asarray(rounded_weights(3 * found, channels=axes)) / 3 - found).max() <= 1e-5 * largest.max()


@tensorflow
def test_the_gradient_passes_inside_the_range_and_nowhere_else(keras):
    import tensorflow as tf

    from edgeclf.training.fake_quantization import rounded_activations, rounded_weights

    values = tf.constant([-1.5, -0.9, 0.0, 0.3, 0.9, 3.5])
    low, high = tf.constant(-1.0), tf.constant(1.0)
    with tf.GradientTape() as tape:
        tape.watch([values, low, high])
        total = tf.reduce_sum(rounded_activations(values, low, high) * tf.range(1.0, 7.0))
    gradients = tape.gradient(total, [values, low, high], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert np.array_equal(gradients[0], [0, 2, 3, 4, 5, 0])
    assert [float(one) for one in gradients[1:]] == [0, 0]
    kernel = tf.random.normal((3, 3, 2, 4))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        total = tf.reduce_sum(rounded_weights(kernel, channels=(3,)) * kernel.shape[0])
    assert np.all(tape.gradient(total, kernel) == 3)


def odd_images(shape, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), np.uint8)
    return TrainingImages(
        pixels=pixels,
        labels=labels,
        weights=np.ones(len(labels), np.float32),
        train=np.arange(0, len(labels) * 3 // 4),
        val=np.arange(len(labels) * 3 // 4, len(labels)),
        classes=2,
    )


@tensorflow
def test_every_kind_of_operation_is_rounded_where_an_export_rounds_it(keras):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)  # exact
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)  # melts into its ReLU
    x = layers.ReLU(max_value=6, name="relu")(layers.BatchNormalization(name="folded")(x))  # 1
    shared = layers.Conv2D(4, 1, name="shared")
    x = layers.Add(name="sum")([shared(x), layers.Permute((2, 1, 3))(shared(layers.MaxPooling2D(1)(x)))])  # 2, 3, 4
    x = layers.LayerNormalization(name="normalized")(x)  # 5
    x = layers.SeparableConv2D(4, 3, name="separable")(layers.ZeroPadding2D(1)(x))  # 6
    x = layers.Conv2DTranspose(4, 2, name="transposed", activation="relu")(x)  # 7
    x = layers.Activation("softmax", name="probabilities")(x)  # 8
    x = layers.Dropout(0.1)(layers.Flatten(name="features")(x))
    model = keras.Model(image, layers.Softmax(name="scores")(layers.Dense(2, name="logits")(x)))  # 9
    images = odd_images((8, 8, 3), np.arange(40) % 2)
    made = rounded_network(model, images, moving_steps=3, seed=0, progress=no_progress)
    from edgeclf.training.rounding_layers import RoundedOutput, RoundedWeights

    rounding = [layer for layer in made.model.layers if isinstance(layer, RoundedOutput)]
    assert len(rounding) == 9
    weighted = [layer.layer.name for layer in made.model.layers if isinstance(layer, RoundedWeights)]
    assert weighted == ["first", "shared", "separable", "transposed", "logits"]
    assert [float(layer.high) for layer in rounding if layer.moving_steps == 0] == [255 / 256]
    # Ranges move for three steps and then stay.
    made.model.compile(keras.optimizers.SGD(1e-3), loss="mse")
    ranges = []
    for _ in range(6):
        made.model.train_on_batch(images.pixels[:8], images.one_hot(np.arange(8)))
        ranges.append([(float(layer.low), float(layer.high)) for layer in rounding])
    assert ranges[0] != ranges[1] != ranges[2]
    assert ranges[2] == ranges[3] == ranges[5]
    # What is written back is the function that was trained, but for the rounding of activations.
    write_back(made, model)
    logits = keras.Model(model.input, model.get_layer("logits").output)
    plain, rounded = (np.asarray(one(images.pixels, training=False)) for one in (logits, made.model))
    assert 0 < np.abs(plain - rounded).mean() < 0.1 * np.ptp(plain)


def lop_sided(keras):
    """Two classes that 0.013 of one channel tells apart, beside a channel that goes up to 12 and tells nothing."""
    layers = keras.layers
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)
    x = layers.ReLU(name="relu")(layers.Conv2D(2, 1, name="conv")(x))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    model = keras.Model(image, layers.Softmax(name="scores")(layers.Dense(2, name="logits")(x)))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[..., 2, 0], kernel[..., 0, 1] = 12, 0.1
    model.get_layer("conv").set_weights([kernel, np.array([0, 0.1], np.float32)])
    # The boundary lies at red = 128: a feature of 0.1 + 0.1 / 128.
    slope, middle = 20.0, 0.1 + 0.1 / 128
    dense = np.array([[0, 0], [-slope, slope]], np.float32)
    model.get_layer("logits").set_weights([dense, np.array([slope * middle, -slope * middle], np.float32)])
    return model


def red_images():
    labels = np.arange(400) % 2
    images = odd_images((8, 8, 3), labels)
    images.pixels[..., 0] = np.where(labels, 136, 120)[:, np.newaxis, np.newaxis]
    return images


def int8_accuracy(model, images, folder: Path, container: str) -> float:
    from edgeclf.exporting.convert import CONVERTERS, Source
    from edgeclf_calibration.static import quantize as quantized

    source = Source(keras_model=model, shape=images.shape, folder=folder, calibration=None)
    artifact = quantized(CONVERTERS[f"{container}-fp32"](source), container, images.pixels[images.train][:100])
    if container == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])
        scores = [session.run(None, {session.get_inputs()[0].name: one[None]})[0][0] for one in images.pixels]
    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=artifact)
        interpreter.allocate_tensors()
        (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
        scores = []
        for one in images.pixels:
            interpreter.set_tensor(given["index"], one[None])
            interpreter.invoke()
            scores.append(interpreter.get_tensor(answer["index"])[0])
    found = np.argmax(scores, axis=1)[images.val]
    return float(np.mean(found == images.labels[images.val]))


@tensorflow
def test_a_network_that_int8_breaks_is_mended_by_training_for_it_in_both_formats(keras, tmp_path):
    keras.utils.set_random_seed(0)
    model, images = lop_sided(keras), red_images()

    def in_float() -> float:
        found = np.asarray(model(images.pixels[images.val], training=False)).argmax(axis=1)
        return float(np.mean(found == images.labels[images.val]))

    before = [int8_accuracy(model, images, tmp_path, one) for one in ("tflite", "onnx")]
    assert in_float() == 1
    assert max(before) <= 0.6
    chosen = load_config(
        None,
        [
            *("backbone=cnn", "image_size=8", "train.epochs=9", "train.qat=true", "train.qat_epochs=8"),
            *("train.learning_rate=1e-9", "train.qat_learning_rate=0.01", "train.batch_size=16"),
            *("augment.shift=0", "augment.brightness=0", "augment.contrast=0", "augment.flip_horizontal=false"),
        ],
    )
    journal = Journal(tmp_path / "journal", "x")
    history = fit(
        Training(model=model, images=images, config=chosen, journal=journal, scratch=tmp_path, progress=no_progress)
    )
    assert [one.phase for one in history] == ["all", *["qat"] * 8]
    assert in_float() == 1
    assert min(int8_accuracy(model, images, tmp_path, one) for one in ("tflite", "onnx")) >= 0.95


@pytest.fixture(scope="module")
def unbroken(image_folder, tmp_path_factory):
    pytest.importorskip("tensorflow")
    return train(config(image_folder), out=tmp_path_factory.mktemp("qat") / "run")


@tensorflow
def test_a_run_says_that_it_was_trained_for_int8_and_is_a_plain_network(keras, unbroken):
    assert [row["phase"] for row in read_history(unbroken)] == ["all", "all", "qat", "qat"]
    assert unbroken.metrics["quantization_aware"] is True
    assert unbroken.config.train.qat is True
    model = keras.saving.load_model(unbroken.model_path, safe_mode=True)
    modules = {entry["module"].partition(".")[0] for entry in json.loads(model.to_json())["config"]["layers"]}
    assert modules == {"keras"}


@tensorflow
@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_an_export_finds_the_weights_rounded_the_temperature_included(keras, unbroken, tmp_path, container):
    from edgeclf.exporting.convert import CONVERTERS, Source
    from edgeclf_calibration.bias_correction import rounding_error
    from edgeclf_calibration.static import watch
    from edgeclf_calibration.weighted import weighted_onnx, weighted_tflite

    model = keras.models.load_model(unbroken.model_path)
    source = Source(keras_model=model, shape=(16, 16, 3), folder=tmp_path, calibration=None)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    in_float = watch(CONVERTERS[f"{container}-fp32"](source), container, images).model
    layers = (weighted_onnx if container == "onnx" else weighted_tflite)(in_float)
    assert len(layers) == 4
    assert unbroken.metrics["confidence"]["temperature"] != 1
    for layer in layers:
        assert np.abs(rounding_error(layer.weights, axis=0)).max() < 1e-6 * np.abs(layer.weights).max()


@tensorflow
def test_a_training_without_it_says_so(keras, image_folder, tmp_path):
    plain = train(config(image_folder, "train.qat=false", "train.epochs=1"), out=tmp_path / "run")
    assert plain.metrics["quantization_aware"] is False


@tensorflow
@pytest.mark.parametrize(
    "more",
    [
        [],
        pytest.param(["weights=none", "backbone=vit_tiny", "model.width=12", "model.depth=2"], marks=pytest.mark.slow),
    ],
)
def test_one_epoch_is_enough(keras, image_folder, tmp_path, more):
    run = train(config(image_folder, "train.epochs=1", *more), out=tmp_path / "run")
    assert [row["phase"] for row in read_history(run)] == ["qat"]


@tensorflow
@pytest.mark.slow
def test_half_precision_trains_for_int8_too(keras, image_folder, tmp_path):
    run = train(config(image_folder, "train.epochs=2", "train.precision=mixed_bfloat16"), out=tmp_path / "run")
    model = keras.models.load_model(run.model_path)
    assert {variable.dtype for variable in model.weights} == {"float32"}


@tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("epoch", [3, 4])
def test_a_training_interrupted_in_mid_epoch_ends_like_an_unbroken_one(keras, image_folder, tmp_path, unbroken, epoch):
    out = tmp_path / "run"

    def progress(items, description, total=None):
        for number, item in enumerate(items):
            if description == f"training (qat), epoch {epoch}" and number == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        train(config(image_folder), out=out, progress=progress)
    assert len(read_checkpoint(folder_of(out) / CHECKPOINT).history) == epoch - 1
    resumed = train(config(image_folder), out=out, resume=True)
    names = ("phase", "epoch", "loss", "val_loss", "val_accuracy", "learning_rate")
    for found, expected in zip(read_history(resumed), read_history(unbroken), strict=True):
        assert [found[name] for name in names[:2]] == [expected[name] for name in names[:2]]
        assert [found[name] for name in names[2:]] == pytest.approx([expected[name] for name in names[2:]], abs=1e-3)
    assert resumed.metrics["weights_sha256"] == unbroken.metrics["weights_sha256"]


@pytest.mark.slow
def test_jax_trains_for_int8_and_the_command_has_a_flag_for_it(image_folder, tmp_path):
    pytest.importorskip("jax")
    plain = ["augment.flip_horizontal=false", "augment.shift=0", "augment.brightness=0", "augment.contrast=0"]
    overrides = [part for one in [*CNN, *plain, "train.qat=false"] for part in ("--set", one)]
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from edgeclf.cli import main; main()", "train", str(image_folder)),
            *("--out", str(tmp_path / "run"), "--qat", *overrides),
        ],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    assert run.metrics["versions"]["backend"] == "jax"
    assert [row["phase"] for row in read_history(run)] == ["all", "all", "qat", "qat"]
