from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeclf_calibration import (
    Layer,
    MinMax,
    Range,
    Sensitivity,
    mixed_precision,
    observe,
    observe_tflite,
    onnx_layers,
    optimised,
    quantize_onnx,
    quantize_tflite,
    sensitivity_onnx,
    sensitivity_tflite,
    tflite_layers,
)
from edgeclf_calibration.onnx_int8 import layers_of
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_device.engines import open_engine
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.quantization import Quantization, dequantize

pytest.importorskip("ai_edge_quantizer")
onnx = pytest.importorskip("onnx")
helper = pytest.importorskip("onnx.helper")
numpy_helper = pytest.importorskip("onnx.numpy_helper")
pytest.importorskip("onnxruntime")
Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter

MODELS = Path(__file__).parents[1] / "device" / "models"
"""One network in both formats: a convolution with ReLU, a mean over the image, a dense layer with softmax."""
CONVOLUTION, MEAN, DENSE = range(3)
"""Its layers, in the order in which they run."""
FAULTS = [CONVOLUTION, DENSE]


@dataclass(frozen=True, kw_only=True)
class Format:
    """What the tests of both formats call."""

    container: str
    observe: Callable
    quantize: Callable
    sensitivity: Callable
    layers: Callable


FORMATS = {
    "onnx": Format(
        container="onnx",
        observe=observe,
        quantize=quantize_onnx,
        sensitivity=sensitivity_onnx,
        layers=onnx_layers,
    ),
    "tflite": Format(
        container="tflite",
        observe=observe_tflite,
        quantize=quantize_tflite,
        sensitivity=sensitivity_tflite,
        layers=tflite_layers,
    ),
}


@pytest.fixture(params=FORMATS)
def form(request) -> Format:
    return FORMATS[request.param]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 (24, 16, 20, 3), bright and dark and of many contrasts, with nothing in the blue."""
    rng = np.random.default_rng(3)
    bounds = np.sort(rng.integers(0, 256, (24, 2)), axis=1)
    pixels = np.stack([rng.integers(low, high + 1, (16, 20, 3)) for low, high in bounds]).astype(np.uint8)
    pixels[..., 2] = 0
    pixels[0, 0, 0, 0], pixels[0, -1, -1, 0] = 0, 255
    return pixels


def model_of(form: Format, fault: int | None = None) -> bytes:
    """The network, with one layer made fragile: large weights for a channel in which there is never anything.

    In float they change nothing. In int8 they leave no steps for the others: scales are those of output channels.
    """
    content = (MODELS / f"fp32.{form.container}").read_bytes()
    return optimised(spoiled_onnx(content, fault)) if form.container == "onnx" else spoiled_tflite(content, fault)


def spoiled(kernel: np.ndarray, bias: np.ndarray, dense: np.ndarray, fault: int | None) -> None:
    """``kernel`` is (out, height, width, in) and ``dense`` (out, in)."""
    if fault == CONVOLUTION:
        kernel[..., 2] = 200  # from 256 output steps per accumulator step on, XNNPACK refuses the layer
    elif fault == DENSE:
        kernel[0], bias[0], dense[:, 0] = 0, -1, 3000


def spoiled_onnx(content: bytes, fault: int | None) -> bytes:
    proto = onnx.load_from_string(content)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    convolution = next(node for node in proto.graph.node if node.op_type == "Conv")
    product = next(node for node in proto.graph.node if node.op_type in {"MatMul", "Gemm"})
    names = [convolution.input[1], convolution.input[2], product.input[1]]
    kernel, bias, dense = values = [numpy_helper.to_array(tensors[name]).copy() for name in names]
    spoiled(kernel.transpose(0, 2, 3, 1), bias, dense if dense.shape == (4, 6) else dense.T, fault)
    for name, changed in zip(names, values, strict=True):
        tensors[name].CopyFrom(numpy_helper.from_array(changed, name))
    return proto.SerializeToString()


def spoiled_tflite(content: bytes, fault: int | None) -> bytes:
    file = read_file(content)
    (graph,) = file.subgraphs
    convolution = next(one for one in operators(file) if one.kind == "CONV_2D")
    product = next(one for one in operators(file) if one.kind == "FULLY_CONNECTED")
    tensors = [convolution.inputs[1], convolution.inputs[2], product.inputs[1]]
    kernel, bias, dense = values = [tensor.values.copy() for tensor in tensors]
    spoiled(kernel, bias, dense, fault)
    for tensor, changed in zip(tensors, values, strict=True):
        file.buffers[graph.tensors[tensor.index].buffer].data = np.frombuffer(changed.tobytes(), np.uint8)
    return packed(file)


def ranges_of(form: Format, model: bytes, images: np.ndarray) -> dict[str, Range]:
    estimator = MinMax()
    form.observe(model, images, estimator)
    return estimator.ranges()


def measured(form: Format, images: np.ndarray, fault: int | None = None) -> tuple[list[Layer], Sensitivity]:
    model = model_of(form, fault)
    return list(form.layers(model)), form.sensitivity(model, ranges_of(form, model, images), images)


def scores(form: Format, model: bytes, images: np.ndarray) -> np.ndarray:
    engine = open_engine(model, form.container)
    rows = np.concatenate([engine.run(image[np.newaxis]) for image in images])
    return rows if rows.dtype == np.float32 else dequantize(rows, Quantization(scale=1 / 256, zero_point=0))


def test_both_formats_have_the_same_layers_with_the_same_work(form):
    layers = form.layers(model_of(form))
    assert [one.multiply_accumulates for one in layers] == [7 * 9 * 6 * 27, 0, 4 * 6]
    kinds = {"onnx": ["Conv", "GlobalAveragePool", "Gemm"], "tflite": ["CONV_2D", "MEAN", "FULLY_CONNECTED"]}
    assert [one.kind for one in layers] == kinds[form.container]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fragile_layer_is_the_worst(form, images, fault):
    layers, healthy = measured(form, images)
    _, found = measured(form, images, fault)
    worst, *others = found.layers
    assert worst.layer.name == layers[fault].name
    assert worst.sqnr_db < 20 < min(one.sqnr_db for one in others)
    assert worst.divergence_nats > 20 * max(one.divergence_nats for one in others)
    assert worst.changed_labels > 0.2
    assert all(one.sqnr_db > 20 and one.changed_labels < 0.2 for one in healthy.layers)


@pytest.mark.parametrize("fault", FAULTS)
def test_mixed_precision_keeps_a_planted_fragile_layer_in_float_and_no_other(form, images, fault):
    model = model_of(form, fault)
    ranges, layers = ranges_of(form, model, images), form.layers(model)
    labels = scores(form, model, images).argmax(axis=1)

    def drop(quantized: bytes) -> float:
        return 100 * float(np.mean(scores(form, quantized, images).argmax(axis=1) != labels))

    quantize = partial(form.quantize, model, ranges)
    assert drop(quantize(in_float=())) > 20
    order = form.sensitivity(model, ranges, images).names
    for names in (order, order[::-1]):
        found = mixed_precision(quantize, names, drop, max_drop=5.0)
        assert found.best.holds
        assert found.best.in_float == (layers[fault].name,)
        assert found.model == quantize(in_float=found.best.in_float)


def test_the_error_of_a_layer_is_that_of_rounding_its_input_and_its_output(form, images):
    model = model_of(form)
    layers, ranges = form.layers(model), ranges_of(form, model, images)
    kept: list[dict[str, np.ndarray]] = []

    class Keeps:
        def update(self, tensors) -> None:
            kept.append(dict(tensors))

    form.observe(model, images, Keeps())
    given, result = layers[CONVOLUTION].name, layers[MEAN].name
    space = (2, 3) if form.container == "onnx" else (1, 2)
    signal = noise = 0.0
    for tensors in kept:
        expected = rounded(rounded(tensors[given], ranges[given]).mean(space), ranges[result])
        exact = tensors[result].reshape(expected.shape)
        signal += float(np.square(exact).sum())
        noise += float(np.square(expected - exact).sum())
    found = next(one for one in form.sensitivity(model, ranges, images).layers if one.layer == layers[MEAN])
    assert found.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.3)


def rounded(values: np.ndarray, one: Range) -> np.ndarray:
    scale = (max(one.high, 0) - min(one.low, 0)) / 255
    return np.rint(values / scale) * scale


def test_the_divergence_is_that_of_the_scores_of_the_model_with_this_layer_quantized(images):
    form = FORMATS["onnx"]  # whose scores are float
    model = model_of(form, DENSE)
    ranges, names = ranges_of(form, model, images), [one.name for one in form.layers(model)]
    exact = scores(form, model, images).astype(np.float64)
    for one in form.sensitivity(model, ranges, images).layers:
        quantized = form.quantize(model, ranges, in_float=set(names) - {one.layer.name})
        other = scores(form, quantized, images).astype(np.float64)
        terms = np.where(exact > 1e-30, exact * np.log(np.maximum(exact, 1e-30) / np.maximum(other, 1e-30)), 0)
        assert one.divergence_nats == pytest.approx(terms.sum(axis=1).mean(), rel=1e-3, abs=1e-6)
        assert one.changed_labels == np.mean(exact.argmax(axis=1) != other.argmax(axis=1))


def test_the_worst_comes_first_and_the_report_is_json(form, images):
    _, found = measured(form, images, DENSE)
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert rows["images"] == len(images)
    divergences = [row["divergence_nats"] for row in rows["layers"]]
    assert divergences == sorted(divergences, reverse=True)
    assert [row["name"] for row in rows["layers"]] == list(found.names)
    assert set(rows["layers"][0]) == {
        *("name", "kind", "multiply_accumulates", "sqnr_db", "divergence_nats", "changed_labels"),
    }


def test_two_measurements_are_equal(form, images):
    assert measured(form, images) == measured(form, images)


def test_every_layer_is_one_step_of_progress(form, images):
    seen = []

    def progress(items, description, total=None):
        for item in items:
            seen.append((item.name, total))
            yield item

    model = model_of(form)
    form.sensitivity(model, ranges_of(form, model, images), images[:1], progress=progress)
    assert seen == [(one.name, 3) for one in form.layers(model)]


def test_without_images_there_is_nothing_to_measure(form, images):
    model = model_of(form)
    with pytest.raises(DataError, match="at least one"):
        form.sensitivity(model, ranges_of(form, model, images), images[:0])


def test_all_layers_in_float_give_the_float_scores_in_the_outer_types_of_int8(form, images):
    model = model_of(form)
    ranges, names = ranges_of(form, model, images), [one.name for one in form.layers(model)]
    result, plain = form.quantize(model, ranges, in_float=names), form.quantize(model, ranges)
    here, there = open_engine(result, form.container), open_engine(plain, form.container)
    assert (here.input_dtype, here.output_dtype) == (there.input_dtype, there.output_dtype)
    tolerance = 1e-6 if form.container == "onnx" else 1 / 512 + 1e-6
    np.testing.assert_allclose(scores(form, result, images), scores(form, model, images), atol=tolerance)
    if form.container == "tflite":
        (details,) = Interpreter(model_content=result).get_output_details()
        assert details["quantization"] == (1 / 256, 0)


@pytest.mark.parametrize("kept", [CONVOLUTION, DENSE])
def test_only_a_layer_in_float_has_float_weights(form, images, kept):
    model = model_of(form)
    name = form.layers(model)[kept].name
    result = form.quantize(model, ranges_of(form, model, images), in_float=[name])
    expected = {CONVOLUTION: 6 * 27, DENSE: 4 * 6}
    assert weight_types(result, form) == {
        size: "float32" if place == kept else "int8" for place, size in expected.items()
    }


def weight_types(model: bytes, form: Format) -> dict[int, str]:
    """Type of the convolution's and of the dense layer's weights, by their number."""
    if form.container == "onnx":
        values = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer]
        return {one.size: one.dtype.name for one in values if one.size in {162, 24}}
    layers = [one.inputs[1] for one in operators(read_file(model)) if one.kind in {"CONV_2D", "FULLY_CONNECTED"}]
    return {
        len(one.values.tobytes()) // (4 if one.is_float else 1): "float32" if one.is_float else "int8" for one in layers
    }


def test_equal_layers_in_float_give_equal_bytes_in_any_order(form, images):
    model = model_of(form)
    ranges, names = ranges_of(form, model, images), [one.name for one in form.layers(model)][:2]
    first, second = (form.quantize(model, ranges, in_float=order) for order in (names, names[::-1]))
    assert first == second != form.quantize(model, ranges)


def test_what_is_no_layer_cant_stay_in_float(form, images):
    model = model_of(form)
    with pytest.raises(UsageError, match=r"3 layers.*'nonsense'"):
        form.quantize(model, ranges_of(form, model, images), in_float=["nonsense"])


def test_rectifiers_and_movers_of_values_belong_to_the_layer_before_them():
    weights = {"w": np.ones((4, 3, 3, 3), np.float32), "dense": np.ones((36, 2), np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["given"]),
        helper.make_node("Relu", ["given"], ["rectified"]),
        helper.make_node("MaxPool", ["rectified"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "movers",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ready = optimised(model.SerializeToString())
    layers = layers_of(onnx.load_from_string(ready))
    kinds = [[node.op_type for node in nodes] for nodes in layers.values()]
    assert kinds == [["Conv", "Relu", "MaxPool", "Flatten"], ["MatMul"]]
    first, second = onnx_layers(ready)
    assert first.name.startswith("Relu")
    assert (first.multiply_accumulates, second.multiply_accumulates) == (6 * 6 * 4 * 27, 36 * 2)
    tensors = [name for node in onnx.load_from_string(ready).graph.node for name in node.output]
    ranges = dict.fromkeys(["image", *tensors], Range(low=-1.0, high=30.0))
    mixed = onnx.load_from_string(quantize_onnx(ready, ranges, in_float=[first.name])).graph
    order = [node.op_type for node in mixed.node]
    assert order[:5] == ["Conv", "Relu", "MaxPool", "Flatten", "QuantizeLinear"]
