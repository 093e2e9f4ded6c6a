from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclf_calibration import MinMax, Range, anchored, observe, optimised, quantize_onnx
from edgeclf_calibration.targets import DEFAULT, TARGETS, Target, target_named
from edgeclf_device._graph_onnx import sums_fit
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import UsageError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "targets.md"
EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@pytest.fixture(scope="module")
def ready(fp32_model) -> bytes:
    return optimised(fp32_model)


@pytest.fixture(scope="module")
def ranges(ready, pixels) -> dict[str, Range]:
    estimator = MinMax()
    observe(ready, anchored(pixels), estimator)
    return estimator.ranges()


def constants(model: bytes) -> dict[str, np.ndarray]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(model).graph.initializer}


def nodes(model: bytes, *kinds: str) -> list:
    return [node for node in onnx.load_from_string(model).graph.node if node.op_type in kinds]


def one_layer(weights: np.ndarray) -> bytes:
    """A product of a float row and ``weights`` (in, out), rectified: named, as ``optimised`` leaves it."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "one",
        [helper.make_tensor_value_info("x", float32, (1, weights.shape[0]))],
        [helper.make_tensor_value_info("y", float32, (1, weights.shape[1]))],
        [onnx.numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def quantized_weights(weights: np.ndarray, target: Target) -> np.ndarray:
    model = quantize_onnx(one_layer(weights), {"x": Range(low=0, high=1), "y": Range(low=0, high=1)}, target=target)
    (found,) = [one for one in constants(model).values() if one.dtype == np.int8 and one.ndim == 2]
    return found


def saturating_products(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(out,) sums as VPMADDUBSW makes them: of each two neighbours in int16, saturated, and then in int32."""
    products = activations.astype(np.int32)[:, np.newaxis] * weights
    pairs = products.reshape(-1, 2, weights.shape[1]).sum(axis=1)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=0)


@EVERY
def test_the_model_of_each_target_opens_and_agrees_with_the_float_one(fp32_model, ready, ranges, pixels, target):
    engine, original = open_engine(quantize_onnx(ready, ranges, target=target), "onnx"), open_engine(fp32_model, "onnx")
    found = np.concatenate([engine.run(image[np.newaxis]) for image in pixels])
    expected = np.concatenate([original.run(image[np.newaxis]) for image in pixels])
    assert np.abs(found - expected).max() < 0.08
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.9


def test_without_a_target_the_form_is_the_one_that_saturates_nowhere(ready, ranges):
    assert quantize_onnx(ready, ranges) == quantize_onnx(ready, ranges, target=TARGETS["x86"])
    assert DEFAULT is TARGETS["x86"]


@EVERY
def test_activations_have_the_type_of_the_target_and_weights_stay_within_its_limit(ready, ranges, target):
    model = quantize_onnx(ready, ranges, target=target)
    values = constants(model)
    rounding = nodes(model, "QuantizeLinear")
    assert rounding
    assert {str(values[node.input[2]].dtype) for node in rounding} == {target.activations}
    weights = [one for one in values.values() if one.dtype == np.int8 and one.ndim > 1]
    assert [int(np.abs(one.astype(int)).max()) for one in weights] == [target.weight_limit] * 3


low_and_high = st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)).map(sorted)


@EVERY
@settings(max_examples=25, deadline=None)
@given(bounds=low_and_high)
def test_scales_and_zero_points_follow_from_the_range_and_the_target(target, bounds):
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    assume(high - low > 1e-3)
    model = quantize_onnx(
        one_layer(np.eye(4)),
        {"x": Range(low=bounds[0], high=bounds[1]), "y": Range(low=0, high=1)},
        target=target,
    )
    first, values = nodes(model, "QuantizeLinear")[0], constants(model)
    scale, zero_point = float(values[first.input[1]]), int(values[first.input[2]])
    if target.symmetric:
        assert zero_point == 0
        assert scale == pytest.approx(max(-low, high) / 127, rel=1e-6)
    else:
        least = 0 if target.activations == "uint8" else -128
        assert scale == pytest.approx((high - low) / 255, rel=1e-6)
        assert abs(zero_point - (least - low / scale)) <= 0.5 + 1e-3
        assert least <= zero_point <= least + 255


@EVERY
def test_the_devices_engine_saturates_nowhere_whatever_the_target_and_the_processor(target):
    model = quantize_onnx(
        one_layer(np.ones((64, 16))), {"x": Range(low=0, high=1), "y": Range(low=0, high=64)}, target=target
    )
    assert open_engine(model, "onnx").run(np.ones((1, 64), np.float32)) == pytest.approx(np.full((1, 16), 64), rel=0.02)


@EVERY
def test_the_sums_of_x86_fit_16_bits_and_those_of_no_other_target(ready, ranges, target):
    assert sums_fit(quantize_onnx(ready, ranges, target=target)) == (target.name == "x86")


def as_bytes(*row: int):
    def change(_, weights):
        weights.CopyFrom(onnx.numpy_helper.from_array(np.array([row] * 4, np.int8), weights.name))

    return change


def as_varints(*row: int):
    def change(_, weights):
        weights.ClearField("raw_data")
        weights.int32_data.extend(row * 4)

    return change


def with_node(kind: str):
    return lambda graph, _: graph.node.append(onnx.helper.make_node(kind, [], ["z"]))


def with_signed_activations(graph, _):
    (name, *_) = (one.input[2] for one in graph.node if one.op_type == "QuantizeLinear")
    zero_point = next(one for one in graph.initializer if one.name == name)
    zero_point.CopyFrom(onnx.helper.make_tensor(name, onnx.TensorProto.INT8, [], [0]))


@pytest.mark.parametrize(
    ("change", "fit"),
    [
        *((as_bytes(*row), True) for row in ((-64, 0, 0, 64), (0, 1, 2, 3))),
        *((as_bytes(0, one, 0, 0), False) for one in (65, -65, 127, -128)),
        (as_varints(64, 0, 1, 0), True),
        *((as_varints(0, one, 0, 0), False) for one in (65, 127, -1, -128)),
        *((with_node(kind), False) for kind in ("Constant", "MatMulInteger", "QLinearConv", "QuantizeLinear")),
        (with_signed_activations, False),
        (lambda _, weights: weights.external_data.add(key="location", value="elsewhere"), False),
    ],
)
def test_sums_are_taken_to_fit_only_where_the_graph_shows_it(change, fit):
    ranges = {"x": Range(low=0, high=1), "y": Range(low=0, high=1)}
    model = onnx.load_from_string(quantize_onnx(one_layer(np.eye(4)), ranges))
    (weights,) = (one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8 and one.dims[1:])
    change(model.graph, weights)
    assert sums_fit(model.SerializeToString()) == fit


def test_planted_weights_saturate_the_sums_of_x86_without_vnni_unless_it_is_the_target():
    weights, brightest = np.full((8, 1), 0.5), np.full(8, 255)
    for target in TARGETS.values():
        found = quantized_weights(weights, target)
        exact = int((brightest[:, np.newaxis] * found).sum())
        assert (saturating_products(brightest, found) == exact) == (target.name == "x86"), target.name
    assert saturating_products(brightest, quantized_weights(weights, TARGETS["x86-vnni"])) == 4 * (2**15 - 1)


@settings(max_examples=25, deadline=None)
@given(
    weights=arrays(np.float32, (6, 2), elements=st.floats(-4, 4, width=32)),
    activations=arrays(np.uint8, 6),
)
def test_no_weights_and_activations_saturate_the_sums_of_the_target_x86(weights, activations):
    found = quantized_weights(weights, TARGETS["x86"])
    exact = (activations.astype(int)[:, np.newaxis] * found).sum(axis=0)
    np.testing.assert_array_equal(saturating_products(activations, found), exact)


@settings(max_examples=25, deadline=None)
@given(weights=arrays(np.float32, (6, 2), elements=st.floats(-4, 4, width=32)))
def test_no_weight_is_as_low_as_minus_128_whose_products_overflow_on_a_pi_4(weights):
    assert quantized_weights(weights, TARGETS["pi4"]).min() >= -127


def test_everything_a_jetson_rounds_has_zero_point_0_and_biases_and_rectified_values_stay_float(ready, ranges):
    model = quantize_onnx(ready, ranges, target=TARGETS["jetson"])
    values = constants(model)
    for node in nodes(model, "QuantizeLinear", "DequantizeLinear"):
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    assert {str(one.dtype) for one in values.values()} <= {"int8", "float32", "int64"}
    readers = {name: node.op_type for node in nodes(model, *("Clip", "QuantizeLinear")) for name in node.input}
    rectified = [node for node in nodes(model, "Conv") if readers.get(node.output[0]) == "Clip"]
    assert len(rectified) == 1


def test_other_targets_keep_int32_biases_and_no_rectifier(ready, ranges):
    for target in TARGETS.values():
        if not target.inputs_only:
            model = quantize_onnx(ready, ranges, target=target)
            assert any(one.dtype == np.int32 for one in constants(model).values()), target.name
            assert not nodes(model, "Clip"), target.name


def test_an_unknown_target_is_refused_with_those_there_are():
    assert target_named("pi4").activations == "int8"
    with pytest.raises(UsageError, match="pi5, pi4, jetson, x86-vnni, x86, but it is 'pi6'"):
        target_named("pi6")


def test_the_reference_has_a_row_for_every_target():
    text = REFERENCE.read_text(encoding="utf-8")
    for target in TARGETS.values():
        signs = "symmetric" if target.symmetric else "any zero point"
        row = f"| `{target.name}` | {target.board} | {target.activations}, {signs} | ±{target.weight_limit} | "
        assert row in text, row
        assert target.reason in text, target.name
