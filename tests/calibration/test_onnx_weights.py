from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclf_calibration.bias_correction import rounded
from edgeclf_calibration.onnx_weights import half_precision, quantize_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CHANNELS, CLASSES, SIZE = 16, 12, 8


@pytest.fixture(scope="module")
def model():
    """uint8 pixels, a cast, a convolution, a mean, a transposed Gemm, a MatMul, a softmax."""
    draw = np.random.default_rng(0)
    shapes = {"conv": (CHANNELS, 3, 3, 3), "gemm": (32, CHANNELS), "matmul": (32, CLASSES)}
    weights = [
        onnx.numpy_helper.from_array(draw.normal(0, 0.2, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
        make("Mul", ["real", "scale"], ["scaled"]),
        make("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        make("Conv", ["planes", "conv"], ["a"]),
        make("Relu", ["a"], ["b"]),
        make("GlobalAveragePool", ["b"], ["c"]),
        make("Flatten", ["c"], ["d"]),
        make("Gemm", ["d", "gemm"], ["e"], transB=1),
        make("MatMul", ["e", "matmul"], ["f"]),
        make("Softmax", ["f"], ["scores"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, CLASSES])],
        [*weights, onnx.numpy_helper.from_array(np.float32(1 / 128), "scale")],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def scores(model: bytes) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.type, output.type) == ("tensor(uint8)", "tensor(float)")
    pixels = np.random.default_rng(1).integers(0, 256, (20, 1, SIZE, SIZE, 3), np.uint8)
    return np.concatenate([session.run(None, {image.name: one})[0] for one in pixels])


@pytest.mark.parametrize(("smaller", "error"), [(half_precision, 2e-3), (quantize_weights, 2e-2)])
def test_a_smaller_model_gives_nearly_the_same_scores_and_the_same_bytes_twice(model, smaller, error):
    made = smaller(model)
    difference = np.abs(scores(made) - scores(model)).max()
    assert 0 < difference < error
    assert smaller(model) == made


def test_every_large_weight_becomes_int8_and_every_weight_float16(model):
    def types(data: bytes) -> list[int]:
        return [one.data_type for one in onnx.load_from_string(data).graph.initializer if len(one.dims) >= 2]

    assert types(quantize_weights(model)).count(onnx.TensorProto.INT8) == 3
    assert set(types(half_precision(model))) == {onnx.TensorProto.FLOAT16}


@given(axis=st.integers(0, 2), seed=st.integers(0, 1000), size=st.floats(1e-20, 1e20))
def test_rounding_is_off_by_half_a_step_of_each_channel_at_most(axis, seed, size):
    weights = (np.random.default_rng(seed).normal(0, 1, (3, 4, 5)) * size).astype(np.float32)
    whole, scale = rounded(weights, axis=axis)
    assert whole.dtype == np.int8
    assert np.abs(whole).max() == 127
    assert (np.abs(whole * scale.astype(np.float64) - weights) <= scale * 0.501).all()


def test_a_channel_of_zeros_stays_zero():
    whole, scale = rounded(np.zeros((2, 3), np.float32), axis=0)
    assert not whole.any()
    assert (scale > 0).all()
