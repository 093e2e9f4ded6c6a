"""Adaptive rounding and equalization, on a network that stands in both formats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgeclf_calibration.adaptive_rounding import InputMoments, adaptively_rounded
from edgeclf_calibration.bias_correction import rounding_error
from edgeclf_calibration.equalization import MAX_FACTOR, ChannelPeaks, equalized
from edgeclf_calibration.observe import observe
from edgeclf_calibration.observe_tflite import LastTensors, observe_tflite
from edgeclf_calibration.onnx_int8 import optimised
from edgeclf_calibration.static import watch, written
from edgeclf_calibration.weighted import (
    changed_onnx,
    changed_tflite,
    channels_last,
    patches,
    weighted_onnx,
    weighted_tflite,
)
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import UsageError

pytest.importorskip("ai_edge_quantizer")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
writer = pytest.importorskip("tflite_writer")
SHAPE = (1, 12, 12)


@pytest.fixture(scope="module")
def thin() -> bytes:
    """Pixels, scale, convolution 3 × 3 at every second place, depthwise 3 × 3, dense: a .tflite file."""
    draw = np.random.default_rng(5)
    write = writer.Writer()

    def weights(name: str, *shape: int, scale: float = 1.0) -> int:
        return write.constant(name, (scale * draw.normal(size=shape)).astype(np.float32))

    image = write.tensor("image", (*SHAPE, 3), writer.UINT8)
    x = write.operator("CAST", [image], "float", (*SHAPE, 3))
    x = write.operator("MUL", [x, write.constant("s", np.float32(1 / 255))], "scaled", (*SHAPE, 3))
    steps = {"strideW": 2, "strideH": 2, "padding": 0, "fusedActivationFunction": writer.RELU6}
    kernel = draw.normal(size=(8, 3, 3, 3)) * np.logspace(-1.5, 0, 8).reshape(8, 1, 1, 1)
    inputs = [x, write.constant("w1", kernel.astype(np.float32)), weights("b1", 8, scale=0.01)]
    x = write.operator("CONV_2D", inputs, "conv", (1, 6, 6, 8), **steps)
    steps = {"strideW": 1, "strideH": 1, "padding": 0, "depthMultiplier": 1, "fusedActivationFunction": writer.RELU6}
    inputs = [x, weights("w2", 1, 3, 3, 8), weights("b2", 8, scale=0.1)]
    x = write.operator("DEPTHWISE_CONV_2D", inputs, "thin", (1, 6, 6, 8), **steps)
    x = write.operator("MEAN", [x, write.constant("axes", np.array([1, 2], np.int32))], "mean", (1, 8))
    x = write.operator("FULLY_CONNECTED", [x, weights("w3", 4, 8), weights("b3", 4)], "logits", (1, 4))
    return write.file(image, write.operator("SOFTMAX", [x], "scores", (1, 4), beta=1.0), signature=True)


def tensors(model: bytes, container: str, images: np.ndarray) -> dict[str, np.ndarray]:
    found = LastTensors()
    (observe if container == "onnx" else observe_tflite)(model, images[:1], found)
    return found.tensors


def product(layer, values: np.ndarray, count: int) -> np.ndarray:
    """What the layer gives at its first ``count`` places, before any rectifier."""
    rows = patches(values, layer, np.arange(count))
    weights = layer.weights.reshape(layer.groups, -1, rows.shape[2])
    return np.einsum("pgc,goc->pgo", rows, weights).reshape(count, -1) + (0 if layer.bias is None else layer.bias)


@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_patches_and_weights_give_what_the_engine_gives(container, fp32_model, thin, pixels):
    models = [optimised(fp32_model)] if container == "onnx" else [writer.twin(fp32_model), thin]
    for model in models:
        layers = weighted_onnx(model) if container == "onnx" else weighted_tflite(model)
        assert len(layers) == 3
        shown = tensors(model, container, pixels)
        for layer in layers:
            expected = channels_last(shown[layer.output], container)
            expected = expected.reshape(-1, expected.shape[-1])
            made = product(layer, channels_last(shown[layer.input], container), len(expected))
            clipped = np.clip(made, 0, 6) if expected.min() >= 0 and made.min() < 0 else made
            np.testing.assert_allclose(clipped, expected, atol=1e-4)


def test_writing_what_was_read_changes_no_answer(fp32_model, thin, pixels):
    from edgeclf_calibration.weighted import Change

    for container, model in (("onnx", optimised(fp32_model)), ("tflite", thin)):
        read, change = (weighted_onnx, changed_onnx) if container == "onnx" else (weighted_tflite, changed_tflite)
        same = change(model, {one.place: Change(weights=one.weights, bias=one.bias) for one in read(model)})
        double = change(model, {one.place: Change(weights=2 * one.weights, bias=None) for one in read(model)})
        answers = [
            np.concatenate([open_engine(one, container).run(image[None]) for image in pixels[:4]])
            for one in (model, same, double)
        ]
        np.testing.assert_array_equal(answers[0], answers[1])
        assert np.abs(answers[0] - answers[2]).max() > 0.01


def moments_of(model, pixels):
    layers = weighted_tflite(model)
    observer = InputMoments(layers, "tflite")
    observe_tflite(model, pixels, observer)
    return layers, observer.moments()


def test_what_a_layer_gives_changes_less_than_with_weights_rounded_to_nearest_and_keeps_its_mean(thin, pixels):
    layers, moments = moments_of(thin, pixels)
    for layer in layers:
        one, found = moments[layer.place], adaptively_rounded(layer, moments[layer.place])
        columns = one.mean.shape[1]
        groups = (layer.groups, -1, columns)
        nearest = rounding_error(layer.weights, axis=0).reshape(groups)
        adaptive = (found.weights - layer.weights).reshape(groups)
        errors = [float(np.einsum("goc,gcd,god->", error, one.covariance, error)) for error in (nearest, adaptive)]
        assert errors[1] < 0.9 * errors[0], layer.output
        shift = np.einsum("goc,gc->go", adaptive, one.mean).reshape(-1)
        np.testing.assert_allclose(found.bias - layer.bias, -shift, atol=1e-6)


def test_a_quantizer_that_rounds_to_nearest_finds_the_chosen_integers(thin, pixels):
    layers, moments = moments_of(thin, pixels)
    for layer in layers:
        made = adaptively_rounded(layer, moments[layer.place]).weights
        before = np.abs(layer.weights).max(axis=(1, 2, 3))
        np.testing.assert_allclose(np.abs(made).max(axis=(1, 2, 3)), before, rtol=1e-6)
        assert np.abs(rounding_error(made.astype(np.float32), axis=0)).max() < 1e-5 * before.max()


def test_a_layer_without_a_place_for_a_bias_counts_the_mean_of_the_error_too(thin, pixels):
    layers, moments = moments_of(thin, pixels)
    layer = dataclasses.replace(layers[0], bias=None)
    one = moments[layer.place]
    second = one.covariance + one.mean[:, :, None] * one.mean[:, None, :]

    def error(weights):
        away = (weights - layer.weights).reshape(layer.groups, -1, one.mean.shape[1])
        return float(np.einsum("goc,gcd,god->", away, second, away))

    made = adaptively_rounded(layer, one)
    assert made.bias is None
    assert error(made.weights) < error(adaptively_rounded(layers[0], one).weights)


def test_what_was_never_seen_is_rounded_to_nearest(thin):
    layer = weighted_tflite(thin)[0]
    nothing = InputMoments([layer], "tflite")
    nothing.update({layer.input: np.zeros((1, 12, 12, 3), np.float32)})
    made = adaptively_rounded(layer, nothing.moments()[layer.place])
    np.testing.assert_allclose(made.weights, layer.weights + rounding_error(layer.weights, axis=0), atol=1e-6)


def test_equalized_channels_are_equally_large_and_no_answer_changes(thin, pixels):
    peaks = ChannelPeaks("tflite")
    observe_tflite(thin, pixels, peaks)
    changes = equalized(weighted_tflite(thin), peaks.peaks)
    assert len(changes) == 2
    model = changed_tflite(thin, changes)
    after = ChannelPeaks("tflite")
    observe_tflite(model, pixels, after)
    before = peaks.peaks["conv"]
    assert before.max() > 4 * before[before > 0].min()
    expected = np.minimum(MAX_FACTOR * before, before.max())
    np.testing.assert_allclose(after.peaks["conv"], expected, rtol=1e-4)
    answers = [
        np.concatenate([open_engine(one, "tflite").run(image[None]) for image in pixels]) for one in (thin, model)
    ]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_nothing_is_equalized_in_front_of_an_ordinary_convolution(fp32_model, pixels):
    model = optimised(fp32_model)
    peaks = ChannelPeaks("onnx")
    observe(model, pixels, peaks)
    assert equalized(weighted_onnx(model), peaks.peaks) == {}


@pytest.mark.parametrize("container", ["tflite", "onnx"])
@pytest.mark.parametrize("equalize", [False, True])
def test_every_way_of_writing_answers_like_the_float_model_and_twice_the_same(container, equalize, fp32_model, pixels):
    model = fp32_model if container == "onnx" else writer.twin(fp32_model)
    watched = watch(
        model, container, pixels, estimators=("min-max", "mse"), equalize=equalize, with_moments=True, threads=1
    )
    expected = np.concatenate([open_engine(model, container).run(image[None]) for image in pixels])
    made = {
        (estimator, adaptive): written(watched, estimator=estimator, adaptive=adaptive)
        for estimator in ("min-max", "mse")
        for adaptive in (False, True)
    }
    assert len(set(made.values())) == 4
    for key, quantized in made.items():
        engine = open_engine(quantized, container)
        scores = np.concatenate([engine.run(image[None]) for image in pixels]).astype(np.float32)
        scores = scores / 256 if container == "tflite" else scores
        assert np.abs(scores - expected).max() < 0.06, key
    assert written(watched, estimator="mse", adaptive=True) == made["mse", True]
    kept = watched.layers[0].name
    assert len(written(watched, in_float=[kept])) != len(made["min-max", False])


def test_what_was_not_asked_for_is_refused(fp32_model, pixels):
    watched = watch(fp32_model, "onnx", pixels)
    with pytest.raises(UsageError, match="moments"):
        written(watched, adaptive=True)
    with pytest.raises(UsageError, match="estimator mse"):
        written(watched, estimator="mse")
