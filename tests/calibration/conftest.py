"""A small float .onnx classifier, written node by node, and images for it."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

collect_ignore = [] if find_spec("onnx") and find_spec("onnxruntime") else ["test_onnx.py"]
SIDE, CLASSES = 12, 3


@pytest.fixture(scope="session")
def fp32_model() -> bytes:
    """uint8 (1, 12, 12, 3) "image": rescale, two convolutions with ReLU6 and a residual sum, mean, dense, softmax."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    weights = {
        "scale": np.float32(1 / 128),
        "offset": np.float32(-127 / 128),
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 8),
        # Channels of very different size: what one scale for the whole tensor can't hold.
        "w2": rng.normal(0, 0.3, (8, 8, 3, 3)) * np.logspace(-2, 1, 8).reshape(8, 1, 1, 1),
        "gain": rng.uniform(0.5, 1.5, (8, 1, 1)),
        "low": np.float32(0),
        "high": np.float32(6),
        "w3": rng.normal(0, 0.5, (8, CLASSES)),
        "b3": np.zeros(CLASSES),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "low", "high"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c2", "gain"], ["m2"]),
        helper.make_node("Add", ["m2", "r1"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["product"]),
        helper.make_node("Add", ["product", "b3"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, SIDE, SIDE, 3))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, CLASSES))],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """uint8 (24, 12, 12, 3)."""
    return np.random.default_rng(1).integers(20, 230, (24, SIDE, SIDE, 3)).astype(np.uint8)
