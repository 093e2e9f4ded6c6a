from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclf_calibration import MinMax, Range, anchored, observe, optimised, quantize_onnx
from edgeclf_calibration.observe_tflite import LastTensors, counterparts, observe_tflite
from edgeclf_calibration.tflite_file import float_tensors, operators, read_file
from edgeclf_calibration.tflite_int8 import quantize_tflite, tensors_in_float, weight_bounds
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import ModelError
from edgeclf_device.quantization import Quantization, dequantize

pytest.importorskip("ai_edge_quantizer")
onnx = pytest.importorskip("onnx")
numpy_helper = pytest.importorskip("onnx.numpy_helper")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffer_utils = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
tflite_writer = pytest.importorskip("tflite_writer")
Writer, twin = tflite_writer.Writer, tflite_writer.twin

CONVERTED = Path(__file__).parents[1] / "device" / "models" / "fp32.tflite"
"""Written by TensorFlow's converter."""
FLOAT, UINT8, INT32, INT8 = (getattr(schema.TensorType, name) for name in ("FLOAT32", "UINT8", "INT32", "INT8"))


@pytest.fixture(scope="module")
def model(fp32_model) -> bytes:
    return twin(fp32_model)


def min_max(model: bytes, pixels: np.ndarray) -> dict[str, Range]:
    estimator = MinMax()
    observe_tflite(model, anchored(pixels), estimator)
    return estimator.ranges()


@pytest.fixture(scope="module")
def ranges(model, pixels) -> dict[str, Range]:
    return min_max(model, pixels)


@pytest.fixture(scope="module")
def quantized(model, ranges) -> bytes:
    return quantize_tflite(model, ranges)


def quantizations(model: bytes) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """(scales, zero points, type) of every quantized tensor; one that follows a float tensor stands under its name."""
    found = {}
    for tensor in flatbuffer_utils.read_model_from_bytearray(model).subgraphs[0].tensors:
        stated = tensor.quantization
        if stated is not None and stated.scale is not None:
            name = tensor.name.decode().removesuffix("_quantized")
            found.setdefault(name, (np.asarray(stated.scale, np.float32), np.asarray(stated.zeroPoint), tensor.type))
    return found


def of_range(one: Range) -> tuple[np.float32, int]:
    """Scale and int8 zero point of a range, as the TensorFlow Lite quantization specification has them."""
    low, high = min(one.low, 0.0), max(one.high, 0.0)
    return np.float32((high - low) / 255), int(np.rint(-128 - low / ((high - low) / 255)))


def scores(model: bytes, pixels: np.ndarray) -> np.ndarray:
    engine = open_engine(model, "tflite")
    rows = np.concatenate([engine.run(image[np.newaxis]) for image in pixels])
    (details,) = Interpreter(model_content=model).get_output_details()
    scale, zero_point = details["quantization"]
    return dequantize(rows, Quantization(scale=scale, zero_point=zero_point)) if scale else rows


def test_every_float_tensor_is_observed_and_the_pixels_span_their_whole_range(ranges):
    computed = {"float", "scaled", "shifted", "conv1", "conv2", "sum", "mean", "logits", "scores"}
    assert set(ranges) == computed
    assert ranges["float"] == Range(low=0.0, high=255.0)
    assert ranges["shifted"] == Range(low=-127 / 128, high=1.0)
    assert ranges["conv1"].low == 0.0


def test_the_tensors_inside_are_those_that_the_numbers_say(fp32_model, model, pixels):
    kept = LastTensors()
    observe_tflite(model, pixels[:1], kept)
    tensors = kept.tensors
    np.testing.assert_array_equal(tensors["float"], pixels[:1].astype(np.float32))
    np.testing.assert_allclose(tensors["sum"], tensors["conv2"] + tensors["conv1"], rtol=1e-6)
    np.testing.assert_allclose(tensors["mean"], tensors["sum"].mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(tensors["scores"], scores(model, pixels[:1]), rtol=1e-5)


def test_every_quantized_activation_has_the_scale_and_zero_point_of_its_range(ranges, quantized):
    found = quantizations(quantized)
    inside = ["shifted", "conv1", "conv2", "sum", "mean", "logits"]
    for name in inside:
        scale, zero_point = of_range(ranges[name])
        assert found[name][2] == INT8
        assert (found[name][0].tolist(), found[name][1].tolist()) == ([scale], [zero_point]), name
    assert found["scores"][0].tolist() == [1 / 256]


@pytest.mark.parametrize("name", ["shifted", "conv1", "conv2", "sum", "logits"])
def test_one_other_range_gives_that_tensor_another_scale_and_no_other_activation(model, ranges, quantized, name):
    wider = Range(low=2 * ranges[name].low - 0.1, high=1.5 * ranges[name].high + 0.1)
    before, after = quantizations(quantized), quantizations(quantize_tflite(model, ranges | {name: wider}))
    assert (after[name][0].tolist(), after[name][1].tolist()) == tuple([value] for value in of_range(wider))
    activations = set(ranges) & set(before)
    assert {other for other in activations if before[other][:2] != after[other][:2]} == {name}


def test_two_quantizations_are_identical_in_other_processes_too(model, ranges, quantized, tmp_path):
    assert quantize_tflite(model, dict(reversed(ranges.items()))) == quantized
    (tmp_path / "model.tflite").write_bytes(model)
    pairs = {name: (one.low, one.high) for name, one in ranges.items()}
    code = (
        "import sys, pathlib; from edgeclf_calibration import Range;"
        "from edgeclf_calibration.tflite_int8 import quantize_tflite;"
        f"ranges = {{name: Range(low=low, high=high) for name, (low, high) in {pairs!r}.items()}};"
        "model = pathlib.Path(sys.argv[1]).read_bytes();"
        "pathlib.Path(sys.argv[2]).write_bytes(quantize_tflite(model, ranges))"
    )
    files = [str(tmp_path / "model.tflite"), str(tmp_path / "again.tflite")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, env={"PYTHONHASHSEED": "5", **path_of_packages()})
    assert (tmp_path / "again.tflite").read_bytes() == quantized


def path_of_packages() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}


def test_the_quantized_model_opens_in_the_stock_engine_with_uint8_at_both_ends(quantized):
    engine = open_engine(quantized, "tflite")
    assert (engine.input_name, engine.input_dtype, engine.input_shape) == ("image", "uint8", (1, 12, 12, 3))
    assert (engine.output_dtype, engine.output_shape) == ("uint8", (1, 3))
    signature = Interpreter(model_content=quantized).get_signature_runner("serve")
    assert list(signature(image=np.zeros((1, 12, 12, 3), np.uint8))) == ["scores"]


def test_weights_are_int8_with_one_scale_per_channel_and_biases_count_its_steps(quantized):
    found = quantizations(quantized)
    for data, weights, bias in (("shifted", "w1", "b1"), ("conv1", "w2", "b2"), ("mean", "w3", "b3")):
        assert found[weights][2] == INT8
        assert len(found[weights][0]) == (3 if weights == "w3" else 8)
        assert not found[weights][1].any()
        assert found[bias][2] == INT32
        np.testing.assert_allclose(found[bias][0], found[data][0] * found[weights][0], rtol=1e-6)


def test_the_pixels_reach_the_first_layer_without_loss(quantized):
    scale, zero_point, _ = quantizations(quantized)["shifted"]
    assert (scale.tolist(), zero_point.tolist()) == ([1 / 128], [-1])
    kinds = [(one.kind, [tensor.is_float for tensor in one.inputs]) for one in operators(read_file(quantized))[:4]]
    assert kinds == [("CAST", [False]), ("MUL", [True, True]), ("ADD", [True, True]), ("QUANTIZE", [True])]
    assert all(not tensor.is_float for one in operators(read_file(quantized))[4:] for tensor in one.inputs)


def test_the_quantized_model_agrees_with_the_float_one(model, quantized, pixels):
    float_scores, int8_scores = scores(model, pixels), scores(quantized, pixels)
    assert np.abs(float_scores - int8_scores).max() < 0.05
    assert np.mean(float_scores.argmax(1) == int8_scores.argmax(1)) >= 0.9


def test_float_pixels_are_quantized_exactly_too(fp32_model, pixels, ranges, quantized):
    floating = twin(fp32_model, input_dtype=FLOAT)
    own = min_max(floating, pixels)
    assert own.pop("image") == ranges["float"]
    assert own == {name: one for name, one in ranges.items() if name != "float"}
    result = quantize_tflite(floating, {"image": ranges["float"], **own})
    scale, zero_point, dtype = quantizations(result)["image"]
    assert (scale.tolist(), zero_point.tolist(), dtype) == ([1.0], [0], UINT8)
    np.testing.assert_array_equal(scores(result, pixels), scores(quantized, pixels))


def test_a_model_without_signatures_is_quantized_to_the_same_answers(fp32_model, ranges, quantized, pixels):
    bare = quantize_tflite(twin(fp32_model, signature=False), ranges)
    np.testing.assert_array_equal(scores(bare, pixels), scores(quantized, pixels))


def test_a_model_of_tensorflows_converter_is_quantized():
    model = CONVERTED.read_bytes()
    pixels = np.random.default_rng(3).integers(0, 256, (20, 16, 20, 3)).astype(np.uint8)
    result = quantize_tflite(model, min_max(model, pixels))
    assert np.abs(scores(result, pixels) - scores(model, pixels)).max() < 0.05
    activations = [tensor for one in operators(read_file(result))[2:-1] for tensor in one.outputs]
    assert activations
    assert not any(tensor.is_float for tensor in activations)


@pytest.mark.parametrize("bias", [5.0, -5.0])
def test_the_bias_of_a_channel_without_weights_is_kept(fp32_model, pixels, bias):
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(fp32_model).graph.initializer}
    dead, biases = weights["w1"].copy(), weights["b1"].copy()
    dead[2], biases[2] = 1e-9, bias
    model = twin(fp32_model, w1=dead, b1=biases)
    result = quantize_tflite(model, min_max(model, pixels))
    stored = next(one for one in operators(read_file(result)) if one.kind == "CONV_2D").inputs[2].values
    scale = quantizations(result)["b1"][0]
    np.testing.assert_allclose(stored.view(np.int32) * scale, biases, atol=1e-4)


@settings(deadline=None)
@given(
    weights=arrays(
        np.float32, (3, 2, 2, 4), elements=st.floats(-8, 8, width=32) | st.floats(-(2**-24), 2**-24, width=32)
    ),
    biases=arrays(np.float32, 3, elements=st.floats(-50, 50, width=32)),
    high=st.floats(2**-10, 1e3),
)
def test_bounds_hold_every_weight_and_let_every_bias_fit(weights, biases, high):
    graph = one_layer(weights, biases)
    bounds = weight_bounds(graph, {"x": Range(low=0.0, high=high)})["w"]
    assert bounds.shape == (3, 1, 1, 1)
    assert (bounds >= np.abs(weights)).all()
    # No bound is taken to be below 1e-9.
    step = np.maximum(bounds.reshape(3).astype(np.float64), 1e-9) / 127 * high / 255
    assert (np.abs(biases) / step <= (1 << 30) * (1 + 1e-5)).all()
    enough = np.abs(biases) * 127 * 255 / (high * 2**30) < np.abs(weights).max(axis=(1, 2, 3))
    np.testing.assert_array_equal(bounds.reshape(3)[enough], np.abs(weights).max(axis=(1, 2, 3))[enough])


def test_a_depthwise_layer_has_its_channels_on_the_last_axis():
    weights, biases = np.ones((1, 2, 2, 4), np.float32), np.ones(4, np.float32)
    weights[..., 2] = 1e-12
    bounds = weight_bounds(one_layer(weights, biases, "DEPTHWISE_CONV_2D"), {"x": Range(low=0.0, high=6.0)})["w"]
    assert bounds.shape == (1, 1, 1, 4)
    assert bounds.ravel().tolist() == pytest.approx([1, 1, 127 * 255 / 6 / 2**30, 1])


def one_layer(weights: np.ndarray, biases: np.ndarray, kind: str = "CONV_2D"):
    write = Writer()
    data = write.tensor("x", (1, 4, 4, 4))
    inputs = [data, write.constant("w", weights), write.constant("b", biases)]
    result = write.operator(kind, inputs, "y", (1, 3, 3, len(biases)))
    return operators(read_file(write.file(data, result, signature=False)))


def test_large_weights_lie_inside_the_flatbuffer_at_multiples_of_16_bytes():
    rng = np.random.default_rng(2)
    weights, biases = rng.normal(size=(601, 512)).astype(np.float32), np.ones(601, np.float32)
    write = Writer()
    data = write.tensor("x", (1, 512))
    inputs = [data, write.constant("w", weights), write.constant("b", biases)]
    model = write.file(data, write.operator("FULLY_CONNECTED", inputs, "y", (1, 601)), signature=True)
    result = quantize_tflite(model, {"x": Range(low=-1.0, high=1.0), "y": Range(low=-90.0, high=90.0)})
    file = schema.Model.GetRootAs(result, 0)
    buffers = [file.Buffers(place) for place in range(file.BuffersLength())]
    assert max(one.DataLength() for one in buffers) == weights.size
    assert not any(one.Offset() or one.Size() for one in buffers)
    starts = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]
    assert [start % 16 for start in starts] == [0] * len(starts)
    (layer,) = (one for one in operators(read_file(result)) if one.kind == "FULLY_CONNECTED")
    stored = layer.inputs[1].values.view(np.int8).reshape(weights.shape)
    step = quantizations(result)["w"][0].reshape(-1, 1)
    assert (np.abs(stored * step - weights) <= step / 2 * (1 + 1e-5)).all()


def test_only_what_the_pixels_pass_before_the_first_layer_stays_in_float(model):
    assert tensors_in_float(operators(read_file(model))) == ["float", "scaled", "shifted"]


def test_the_same_tensors_are_found_in_both_formats(fp32_model, model, pixels):
    ready, here, there = optimised(fp32_model), LastTensors(), LastTensors()
    observe_tflite(model, pixels[:1], here)
    observe(ready, pixels[:1], there)
    found = counterparts(here.tensors, there.tensors)
    assert set(found) == set(float_tensors(operators(read_file(model))))
    for name, other in found.items():
        values = here.tensors[name]
        planes = values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
        same = there.tensors[other]
        expected = values if same.shape == values.shape else planes.reshape(same.shape)
        np.testing.assert_allclose(same, expected, atol=1e-3)


def test_one_set_of_ranges_gives_both_formats_the_same_scales_and_zero_points(fp32_model, model, pixels):
    ready, here, there, estimator = optimised(fp32_model), LastTensors(), LastTensors(), MinMax()
    observe_tflite(model, pixels[:1], here)
    observe(ready, pixels[:1], there)
    observe(ready, anchored(pixels), estimator)
    ranges = estimator.ranges()
    names = counterparts(here.tensors, there.tensors)
    lite = quantizations(quantize_tflite(model, {name: ranges[other] for name, other in names.items()}))
    graph = onnx.load_from_string(quantize_onnx(ready, ranges)).graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = [one for one in graph.node if one.op_type == "QuantizeLinear"]
    in_onnx = {(values[one.input[1]].item(), values[one.input[2]].item() - 128) for one in nodes}
    inside = ["shifted", "conv1", "conv2", "sum", "mean", "logits"]
    in_tflite = {(lite[name][0].item(), lite[name][1].item()) for name in inside}
    assert len(in_tflite) == len(inside)
    assert in_tflite == in_onnx


@settings(deadline=None)
@given(arrays(np.float32, (2, 3, 4, 5), elements=st.floats(-100, 100, width=32)), st.floats(1e-2, 1))
def test_a_tensor_in_another_order_is_found_and_another_tensor_is_not(values, change):
    other = values.copy()
    other[0, 0, 0, 0] = np.abs(values).max() * (1 + change) + change
    moved = values.transpose(0, 3, 1, 2)
    assert counterparts({"a": values}, {"other": other, "same": moved}) == {"a": "same"}
    assert counterparts({"a": values}, {"other": other, "smaller": values[:1]}) == {}


def test_a_tensor_without_a_range_is_refused(model, ranges):
    missing = {name: one for name, one in ranges.items() if name != "sum"}
    with pytest.raises(ModelError, match="'sum' has none"):
        quantize_tflite(model, missing)


def test_a_quantized_model_is_refused():
    with pytest.raises(ModelError, match="range"):
        quantize_tflite((CONVERTED.parent / "w8a8.tflite").read_bytes(), {})


@pytest.mark.parametrize("damage", [lambda model: model[:200], lambda model: b"", lambda model: b"no model at all"])
def test_a_damaged_model_is_refused(model, ranges, damage):
    with pytest.raises(ModelError, match="TensorFlow Lite"):
        quantize_tflite(damage(model), ranges)


def test_images_of_another_size_are_refused(model):
    with pytest.raises(ModelError, match="LiteRT can't run"):
        observe_tflite(model, np.zeros((1, 8, 8, 3), np.uint8), MinMax())


def test_quantizing_imports_no_tensorflow(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from edgeclf_calibration import recover\n"
        "model = Path(sys.argv[1]).read_bytes()\n"
        "images = np.random.default_rng(0).integers(0, 256, (4, 16, 20, 3)).astype(np.uint8)\n"
        "assert recover(model, 'tflite', images[:2], images[2:]).model\n"
        "assert not {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, CONVERTED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_printed(model, ranges, capsys):
    quantize_tflite(model, ranges)
    assert capsys.readouterr() == ("", "")
