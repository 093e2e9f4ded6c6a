from __future__ import annotations

import numpy as np
import pytest

from edgeclf_calibration import ESTIMATORS, quantize
from edgeclf_calibration.bias_correction import ChannelMeans, corrections, rounding_error
from edgeclf_calibration.observe_tflite import observe_tflite
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_calibration.tflite_pixels import pixels_first
from edgeclf_calibration.weighted import changed_tflite, weighted_tflite
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.quantization import Quantization, dequantize

pytest.importorskip("ai_edge_quantizer")
pytest.importorskip("onnxruntime")
Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter

writer = pytest.importorskip("tflite_writer")


@pytest.fixture(scope="module")
def model(fp32_model) -> bytes:
    """uint8 pixels, cast, scale, shift, two convolutions and a dense layer."""
    return writer.twin(fp32_model)


@pytest.fixture(scope="module")
def images(pixels) -> np.ndarray:
    """None of them black or white anywhere."""
    return pixels


def ends(model: bytes) -> tuple[dict, dict]:
    interpreter = Interpreter(model_content=model)
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    return image, scores


def scores(model: bytes, images: np.ndarray) -> np.ndarray:
    engine = open_engine(model, "tflite")
    rows = np.concatenate([engine.run(image[np.newaxis]) for image in images])
    scale, zero_point = ends(model)[1]["quantization"]
    return dequantize(rows, Quantization(scale=scale, zero_point=zero_point)) if scale else rows


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_quantized_input_is_the_pixels_whatever_the_images_show_and_the_estimator_thinks(model, images, estimator):
    quantized = quantize(model, "tflite", images, estimator=estimator)
    image, output = ends(quantized)
    assert (image["dtype"], output["dtype"]) == (np.uint8, np.uint8)
    scale, zero_point = image["quantization"]
    real = (np.arange(256) - zero_point) * scale
    float_steps = [step for step in operators(read_file(model)) if step.kind in {"MUL", "ADD"}][:2]
    factor, offset = (next(one.values for one in step.inputs if one.values is not None) for step in float_steps)
    np.testing.assert_allclose(real, np.arange(256) * factor.item() + offset.item(), atol=1e-6)
    kinds = [step.kind for step in operators(read_file(quantized))]
    assert kinds[0] == "QUANTIZE"
    assert not {"CAST", "DEQUANTIZE"} & set(kinds)


def test_the_quantized_model_answers_like_the_float_one(model, images):
    assert np.abs(scores(quantize(model, "tflite", images), images) - scores(model, images)).max() < 0.03


def test_taking_the_arithmetic_on_pixels_away_changes_no_answer(model, images, monkeypatch):
    from edgeclf_calibration import static

    whole = quantize(model, "tflite", images)
    monkeypatch.setattr(static, "pixels_first", lambda model: model)
    long = quantize(model, "tflite", images)
    assert pixels_first(long) == whole
    assert len(operators(read_file(whole))) == len(operators(read_file(long))) - 3
    np.testing.assert_array_equal(scores(whole, images), scores(long, images))


def test_arithmetic_that_does_not_cancel_is_left_alone(model, images, monkeypatch):
    from edgeclf_calibration import static
    from edgeclf_calibration.ranges import Range

    monkeypatch.setattr(static, "pixels_first", lambda model: model)
    quantize_tflite = static.quantize_tflite

    def other_range(model, ranges, **options):
        pixels = [name for name, one in ranges.items() if round((one.high - one.low) * 128) == 255]
        return quantize_tflite(model, {**ranges, **dict.fromkeys(pixels, Range(low=-1.1, high=1.1))}, **options)

    monkeypatch.setattr(static, "quantize_tflite", other_range)
    long = quantize(model, "tflite", images)
    assert pixels_first(long) == long
    assert pixels_first(model) == model


def test_an_onnx_model_keeps_its_pixels_whatever_the_estimator_thinks(fp32_model, pixels):
    import onnx

    found = []
    for estimator in ESTIMATORS:
        graph = onnx.load_from_string(quantize(fp32_model, "onnx", pixels, estimator=estimator)).graph
        constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
        found.append((float(constants[first.input[1]]), int(constants[first.input[2]])))
    assert found == [(pytest.approx(1 / 128), 127)] * len(ESTIMATORS)


def test_equal_arguments_give_equal_bytes(model, images):
    assert quantize(model, "tflite", images) == quantize(model, "tflite", images)


def test_bias_correction_of_a_tflite_file_keeps_the_means_of_its_channels(images):
    draw = np.random.default_rng(3)
    write, plane = writer.Writer(), (1, 12, 12, 7)
    image = write.tensor("image", (1, 12, 12, 3), writer.UINT8)
    # One bias for both layers, as converters share equal constants.
    pixels, bias = (
        write.operator("CAST", [image], "float", (1, 12, 12, 3)),
        write.constant("b", np.zeros(7, np.float32)),
    )
    kernels = [draw.normal(size=shape).astype(np.float32) for shape in ((7, 1, 1, 3), (1, 1, 1, 7))]
    steps = {"strideW": 1, "strideH": 1}
    dense = write.operator("CONV_2D", [pixels, write.constant("w1", kernels[0]), bias], "dense", plane, **steps)
    inputs = [dense, write.constant("w2", kernels[1]), bias]
    last = write.operator("DEPTHWISE_CONV_2D", inputs, "thin", plane, **steps, depthMultiplier=1)
    model = write.file(image, last, signature=True)

    def means(content: bytes) -> dict[str, np.ndarray]:
        found = ChannelMeans(axis=-1)
        observe_tflite(content, images, found)
        return found.means()

    def with_rounded_weights(content: bytes) -> bytes:
        file = read_file(content)
        for step, axis in zip(operators(file)[1:], (0, 3), strict=True):
            weights = step.inputs[1]
            rounded = (weights.values + rounding_error(weights.values, axis=axis)).astype(np.float32)
            buffer = file.buffers[file.subgraphs[0].tensors[weights.index].buffer]
            buffer.data = np.frombuffer(rounded.tobytes(), np.uint8)
        return packed(file)

    before = means(model)
    corrected = changed_tflite(model, corrections(weighted_tflite(model), before))
    plain, kept = means(with_rounded_weights(model)), means(with_rounded_weights(corrected))
    assert np.abs(plain["thin"] - before["thin"]).max() > 1e-2
    for name in ("dense", "thin"):
        np.testing.assert_allclose(kept[name], before[name], atol=1e-4)


@pytest.mark.parametrize(
    ("container", "estimator", "message"), [("tflite", "best", "estimator must be one of"), ("pb", "mse", "container")]
)
def test_what_does_not_exist_is_refused(model, images, container, estimator, message):
    with pytest.raises(UsageError, match=message):
        quantize(model, container, images, estimator=estimator)


def test_float_images_are_refused(model, images):
    with pytest.raises(DataError, match="uint8"):
        quantize(model, "tflite", images.astype(np.float32))
