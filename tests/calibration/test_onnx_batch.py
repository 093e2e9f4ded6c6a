from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgeclf_calibration import MinMax, anchored, half_precision, observe, optimised, quantize_onnx, quantize_weights
from edgeclf_calibration.onnx_batch import dynamic_batch
from edgeclf_calibration.targets import TARGETS
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import ModelError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIDE, WIDTH, CLASSES = 12, 8, 3
SCHEMES = ("fp32", "fp16", "w8a32", *(f"w8a8 {name}" for name in TARGETS))


def graph_of(nodes, weights) -> bytes:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, (1, SIDE, SIDE, 3))],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, (1, CLASSES))],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def attention(**changes: np.ndarray) -> bytes:
    """Nine patches attend to one another, are laid flat by a reshape to (1, 72), and classified."""
    draw, make = np.random.default_rng(5), onnx.helper.make_node
    weights = {
        "scale": np.float32(1 / 128),
        "patches": draw.normal(0, 0.2, (WIDTH, 3, 4, 4)).astype(np.float32),
        "tokens": np.array([1, WIDTH, 9]),
        "flat": np.array([1, 9 * WIDTH]),
        "dense": draw.normal(0, 0.5, (9 * WIDTH, CLASSES)).astype(np.float32),
        **changes,
    }
    nodes = [
        make("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
        make("Mul", ["real", "scale"], ["scaled"]),
        make("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        make("Conv", ["planes", "patches"], ["grid"], strides=[4, 4]),
        make("Reshape", ["grid", "tokens"], ["columns"]),
        make("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        make("MatMul", ["rows", "columns"], ["products"]),
        make("Softmax", ["products"], ["shares"], axis=-1),
        make("MatMul", ["shares", "rows"], ["attended"]),
        make("Reshape", ["attended", "flat"], ["vector"]),
        make("MatMul", ["vector", "dense"], ["logits"]),
        make("Softmax", ["logits"], ["scores"]),
    ]
    return graph_of(nodes, weights)


def in_scheme(model: bytes, scheme: str, pixels: np.ndarray) -> bytes:
    if scheme == "fp32":
        return model
    if scheme in {"fp16", "w8a32"}:
        return (half_precision if scheme == "fp16" else quantize_weights)(model)
    ready, estimator = optimised(model), MinMax()
    observe(ready, anchored(pixels), estimator)
    return quantize_onnx(ready, estimator.ranges(), target=TARGETS[scheme.removeprefix("w8a8 ")])


def scores(model: bytes, *batches: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": batch})[0] for batch in batches])


def sides(value) -> list[int | str]:
    return [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]


def named_sides(model: bytes) -> set[str]:
    """Names of dimensions in the input, the output and everything inferred or noted between them."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), data_prop=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {side for value in values for side in sides(value) if isinstance(side, str)}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["flatten", "attention"])
def test_every_scheme_takes_1_3_and_8_images_and_each_gets_what_it_gets_alone(fp32_model, pixels, kind, scheme):
    fixed = in_scheme(fp32_model if kind == "flatten" else attention(), scheme, pixels)
    free = dynamic_batch(fixed)
    graph = onnx.load_from_string(free).graph
    assert sides(graph.input[0]) == ["batch", SIDE, SIDE, 3]
    assert sides(graph.output[0]) == ["batch", CLASSES]
    assert named_sides(free) == {"batch"}
    assert named_sides(fixed) == set()
    alone = scores(fixed, *(image[np.newaxis] for image in pixels[:8]))
    assert np.ptp(alone, axis=0).max() > 0.02, "or the test could not see images mixed"
    for count in (1, 3, 8):
        np.testing.assert_allclose(scores(free, pixels[:count]), alone[:count], atol=1e-5)


def test_a_freed_model_is_the_same_each_time_and_is_not_freed_again():
    free = dynamic_batch(attention())
    assert dynamic_batch(attention()) == free
    with pytest.raises(ModelError, match="'image' begins with batch; give the model with a batch of 1"):
        dynamic_batch(free)


def test_the_engine_runs_a_freed_model_as_one_of_a_single_image(pixels):
    engine = open_engine(dynamic_batch(attention()), "onnx")
    assert (engine.input_shape, engine.output_shape) == ((1, SIDE, SIDE, 3), (1, CLASSES))
    np.testing.assert_array_equal(engine.run(pixels[:1]), scores(attention(), pixels[:1]))


def test_the_engine_refuses_a_model_whose_height_is_open():
    proto = onnx.load_from_string(attention())
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(ModelError, match="height"):
        open_engine(proto.SerializeToString(), "onnx")


def test_a_reshape_that_others_share_its_target_with_and_one_that_infers_a_side_are_freed(pixels):
    model = onnx.load_from_string(attention(flat=np.array([1, -1])))
    again = onnx.helper.make_node("Reshape", ["vector", "flat"], ["again"], allowzero=1)
    model.graph.node.insert(10, again)
    model.graph.node[11].input[0] = "again"
    free = dynamic_batch(model.SerializeToString())
    np.testing.assert_allclose(scores(free, pixels[:3]), scores(attention(), *pixels[:3, np.newaxis]), atol=1e-6)


def changed(edit) -> bytes:
    proto = onnx.load_from_string(attention())
    edit(proto.graph)
    return proto.SerializeToString()


def add_class_token(graph) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 3), np.float32), "token"))
    graph.node[-1].output[0] = "probabilities"
    for node in (
        onnx.helper.make_node("Unsqueeze", ["probabilities", "one"], ["row"]),
        onnx.helper.make_node("Concat", ["token", "row"], ["both"], axis=1),
        onnx.helper.make_node("ReduceMean", ["both"], ["scores"], axes=[1], keepdims=0),
    ):
        graph.node.append(node)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))


def fold_the_batch(graph) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([9, WIDTH]), "folded"))
    graph.node.insert(9, onnx.helper.make_node("Reshape", ["attended", "folded"], ["list"]))
    graph.node[10].input[0] = "list"


def average_all(graph) -> None:
    graph.node[-1].input[0] = "mixed"
    graph.node.insert(11, onnx.helper.make_node("ReduceMean", ["logits"], ["mean"], axes=[0], keepdims=1))
    graph.node.insert(12, onnx.helper.make_node("Sub", ["logits", "mean"], ["mixed"]))


def compete(graph) -> None:
    graph.node[-1].input[0] = "against"
    graph.node.insert(11, onnx.helper.make_node("Softmax", ["logits"], ["against"], axis=0))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (add_class_token, "fit one image alone"),
        (fold_the_batch, r"\(Reshape\) is \(9, 8\): it fits one image alone"),
        (average_all, r"\(ReduceMean\) is \(1, 3\): it fits one image alone, or mixes them"),
        (compete, "a layer mixes images"),
    ],
)
def test_a_model_that_fits_one_image_or_mixes_several_is_refused_by_the_layer(edit, said):
    with pytest.raises(ModelError, match=said):
        dynamic_batch(changed(edit))


def test_a_model_with_two_inputs_is_refused():
    proto = onnx.load_from_string(attention())
    proto.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, (1, 1)))
    with pytest.raises(ModelError, match="has 2 and 1"):
        dynamic_batch(proto.SerializeToString())


KERAS = """
import sys
from pathlib import Path
import keras, numpy as np
from edgeclf.exporting import convert

# Flatten writes its batch into a reshape; so do the heads of attention.
image = keras.Input((32, 32, 3), dtype="uint8")
x = keras.layers.Rescaling(1 / 128, offset=-127 / 128)(image)
x = keras.layers.Conv2D(8, 3, 4, activation="relu")(x)
flat = keras.layers.Flatten()(x)
tokens = keras.layers.Reshape((64, 8))(x)
heads = keras.ops.reshape(tokens, (-1, 64, 2, 4))
heads = keras.ops.transpose(heads, (0, 2, 1, 3))
shares = keras.ops.softmax(keras.ops.matmul(heads, keras.ops.transpose(heads, (0, 1, 3, 2))))
attended = keras.ops.reshape(keras.ops.transpose(keras.ops.matmul(shares, heads), (0, 2, 1, 3)), (-1, 512))
x = keras.layers.Concatenate()([flat, attended])
model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
source = convert.Source(keras_model=model, shape=(32, 32, 3), folder=Path(sys.argv[1]), calibration=None)
Path(sys.argv[1], "model.onnx").write_bytes(convert.onnx_fp32(source))
"""


@pytest.mark.tensorflow
@pytest.mark.slow
def test_what_keras_exports_has_plain_numbers_for_sides_and_can_be_freed(tmp_path):
    pytest.importorskip("tensorflow")
    subprocess.run([sys.executable, "-c", KERAS, tmp_path], check=True, capture_output=True, text=True)
    fixed = (tmp_path / "model.onnx").read_bytes()
    graph = onnx.load_from_string(fixed).graph
    assert [sides(graph.input[0]), sides(graph.output[0])] == [[1, 32, 32, 3], [1, 3]]
    assert named_sides(fixed) == set()
    assert any(node.op_type == "Reshape" for node in graph.node)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    alone = scores(fixed, *images[:, np.newaxis])
    for count in (1, 3, 8):
        np.testing.assert_allclose(scores(dynamic_batch(fixed), images[:count]), alone[:count], atol=1e-5)
