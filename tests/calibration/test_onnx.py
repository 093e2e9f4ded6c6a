from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclf_calibration import ChannelMeans, MinMax, Range, anchored, corrected, observe, optimised, quantize_onnx
from edgeclf_calibration.bias_correction import rounding_error
from edgeclf_calibration.onnx_canonical import canonical
from edgeclf_calibration.onnx_int8 import nodes_in_float
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import DataError, ModelError


@pytest.fixture(scope="module")
def ready(fp32_model) -> bytes:
    return optimised(fp32_model)


@pytest.fixture(scope="module")
def ranges(ready, pixels) -> dict[str, Range]:
    estimator = MinMax()
    observe(ready, anchored(pixels), estimator)
    return estimator.ranges()


@pytest.fixture(scope="module")
def quantized(ready, ranges) -> bytes:
    return quantize_onnx(ready, ranges)


def scores(model: bytes, pixels: np.ndarray) -> np.ndarray:
    engine = open_engine(model, "onnx")
    return np.concatenate([engine.run(image[np.newaxis]) for image in pixels])


def test_batch_normalization_and_biases_are_folded_away_and_the_answers_stay(fp32_model, ready, pixels):
    assert {"Mul", "MatMul"} & {node.op_type for node in onnx.load_from_string(fp32_model).graph.node}
    operators = [node.op_type for node in onnx.load_from_string(ready).graph.node]
    assert operators.count("Mul") == 1, "the rescaling's"
    np.testing.assert_allclose(scores(ready, pixels), scores(fp32_model, pixels), atol=1e-6)


def test_every_float_tensor_is_observed_and_the_pixels_span_their_whole_range(ready, ranges):
    computed = {name for node in onnx.load_from_string(ready).graph.node for name in node.output}
    assert set(ranges) == computed - {"scores"} | ({"scores"} & set(ranges))
    assert Range(low=0.0, high=255.0) in ranges.values()
    assert Range(low=-127 / 128, high=1.0) in ranges.values()


def test_our_ranges_give_the_bytes_of_quantize_static_on_the_same_images(ready, pixels, quantized, tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(anchored(pixels))

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {"image": image[np.newaxis]}

    (tmp_path / "in.onnx").write_bytes(ready)
    quantize_static(
        tmp_path / "in.onnx",
        tmp_path / "out.onnx",
        Reader(),
        per_channel=True,
        reduce_range=True,  # the form that is made where no target is named
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=nodes_in_float(onnx.load_from_string(ready)),
    )
    theirs = canonical((tmp_path / "out.onnx").read_bytes(), inputs=["image"], outputs=["scores"])
    assert theirs == quantized


def test_two_quantizations_are_identical(fp32_model, ranges, quantized):
    assert quantize_onnx(optimised(fp32_model), ranges) == quantized


def test_other_ranges_give_another_model(ready, ranges, quantized):
    wider = {name: Range(low=2 * one.low, high=2 * one.high) for name, one in ranges.items()}
    assert quantize_onnx(ready, wider) != quantized


def test_the_quantized_model_opens_in_stock_engines_with_uint8_in_and_float_scores_out(quantized):
    onnx.checker.check_model(onnx.load_from_string(quantized), full_check=True)
    session = onnxruntime.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    (model_input,), (model_output,) = session.get_inputs(), session.get_outputs()
    assert (model_input.name, model_input.type, model_input.shape) == ("image", "tensor(uint8)", [1, 12, 12, 3])
    assert (model_output.name, model_output.type, model_output.shape) == ("scores", "tensor(float)", [1, 3])


def test_weights_are_int8_with_one_scale_per_channel_and_activations_uint8(quantized):
    graph = onnx.load_from_string(quantized).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    producer = {name: node for node in graph.node for name in node.output}
    for node in convolutions:
        image, weight = producer[node.input[0]], producer[node.input[1]]
        assert tensors[weight.input[0]].dtype == np.int8
        assert tensors[weight.input[1]].shape == (8,)
        assert tensors[image.input[2]].dtype == np.uint8


def test_the_pixels_reach_the_first_layer_without_loss(quantized):
    graph = onnx.load_from_string(quantized).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    assert tensors[first.input[1]] == np.float32(1 / 128)
    assert tensors[first.input[2]] == 127


def test_the_quantized_model_agrees_with_the_float_one(fp32_model, quantized, pixels):
    float_scores, int8_scores = scores(fp32_model, pixels), scores(quantized, pixels)
    assert np.abs(float_scores - int8_scores).max() < 0.05
    assert np.mean(float_scores.argmax(1) == int8_scores.argmax(1)) >= 0.9


@given(arrays(np.float32, (3, 2, 2, 2), elements=st.floats(-8, 8, width=32)), st.sampled_from([0, 1]))
def test_rounding_is_off_by_half_a_step_at_most_and_keeps_a_channel_of_zeros(weights, axis):
    error = rounding_error(weights, axis=axis)
    others = tuple(one for one in range(4) if one != axis)
    step = np.abs(weights.astype(np.float64)).max(axis=others, keepdims=True) / 127
    assert (np.abs(error) <= step / 2 + 1e-12).all()


@pytest.mark.parametrize("groups", [1, 2])
def test_a_corrected_convolution_of_rounded_weights_keeps_its_mean(groups):
    rng = np.random.default_rng(groups)
    weights, bias = rng.normal(size=(8, 4 // groups, 1, 1)).astype(np.float32), np.ones(8, np.float32)
    images = rng.normal(2, 1, (10, 1, 4, 3, 3)).astype(np.float32)
    model = one_convolution(weights, bias, groups)
    means = ChannelMeans()
    for image in images:
        means.update({"x": image})
    fixed = onnx.numpy_helper.to_array(onnx.load_from_string(corrected(model, means.means())).graph.initializer[1])
    rounded = weights + rounding_error(weights, axis=0).astype(np.float32)

    def mean(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(one_convolution(weights, bias, groups))
        return np.mean([session.run(None, {"x": image})[0] for image in images], axis=(0, 1, 3, 4))

    expected = mean(weights, bias)
    np.testing.assert_allclose(mean(rounded, fixed), expected, atol=2e-6)
    assert np.abs(mean(rounded, bias) - expected).max() > 1e-4


def one_convolution(weights: np.ndarray, bias: np.ndarray, groups: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 3, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, 3, 3))],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_bias_correction_brings_the_int8_scores_closer_to_the_float_ones(fp32_model, ready, ranges, pixels):
    means = ChannelMeans()
    observe(ready, pixels, means)
    float_scores = scores(fp32_model, pixels)
    stock = scores(quantize_onnx(ready, ranges), pixels) - float_scores
    fixed = scores(quantize_onnx(corrected(ready, means.means()), ranges), pixels) - float_scores
    assert np.abs(fixed.mean(axis=0)).max() <= np.abs(stock.mean(axis=0)).max() + 1e-3


def test_a_tensor_without_a_range_is_refused(ready, ranges):
    missing = dict(list(ranges.items())[:2])
    with pytest.raises(ModelError, match="ranges"):
        quantize_onnx(ready, missing)


def test_a_damaged_model_is_refused(fp32_model):
    with pytest.raises(ModelError, match="ONNX Runtime refuses"):
        optimised(fp32_model[:-40])


def test_calibration_without_images_is_refused():
    with pytest.raises(DataError, match=r"\(0, 12, 12, 3\)"):
        anchored(np.zeros((0, 12, 12, 3), np.uint8))


def test_anchoring_changes_two_pixels_of_a_copy(pixels):
    copy = anchored(pixels)
    assert (copy != pixels).any(axis=-1).sum() == 2
    assert (copy.min(), copy.max()) == (0, 255)


def test_renamed_and_reordered_nodes_get_the_same_canonical_bytes(fp32_model):
    model = onnx.load_from_string(fp32_model)
    graph = model.graph
    computed = sorted(name for node in graph.node for name in node.output)
    renamed = {name: f"x__{number}" for number, name in enumerate(computed)}
    renamed |= {tensor.name: f"const__{tensor.name[::-1]}" for tensor in graph.initializer}
    for node in graph.node:
        node.name = f"node__{id(node)}"
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.output):
        value.name = renamed.get(value.name, value.name)
    tensors = sorted(graph.initializer, key=lambda tensor: tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    model.producer_name, model.doc_string = "another", "yesterday"
    ends = {"inputs": ["image"], "outputs": ["scores"]}
    spelled = canonical(model.SerializeToString(), **ends)
    assert spelled == canonical(fp32_model, **ends)
    assert canonical(spelled, **ends) == spelled


def test_quantizing_imports_no_tensorflow():
    code = "import sys, edgeclf_calibration; print(sorted({'tensorflow', 'keras', 'onnx', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
