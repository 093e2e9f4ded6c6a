"""Where int8 hurts: the small network of the device's tests, with a layer that LiteRT refuses in int8."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_quantizer")
pytest.importorskip("onnxruntime")
pytest.importorskip("edgeclf")

from edgeclf.calibrating import layers as layers_module
from edgeclf.calibrating.ground import Ground
from edgeclf.calibrating.layers import LayerErrors, layer_errors
from edgeclf.calibrating.layers_plot import write_layers_plot
from edgeclf.exporting.subject import Images
from edgeclf_calibration import Layer, LayerError, MinMax, observe_tflite, optimised, sensitivity_tflite
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_device.errors import ModelError, UsageError

MODELS = Path(__file__).parents[1] / "device" / "models"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "calibration-study.md"
REFUSED = 20000
"""A weight so large beside the others that its scale and the input's are far more than 256 times the output's."""


@pytest.fixture(scope="module")
def images() -> Images:
    """40 of them with nothing in the blue."""
    draw = np.random.default_rng(3)
    pixels = (draw.integers(0, 156, (40, 1, 1, 3)) + draw.integers(0, 100, (40, 16, 20, 3))).astype(np.uint8)
    pixels[..., 2] = 0
    digests = tuple(f"{row:064x}" for row in range(40))
    return Images(pixels=pixels, rows=np.arange(40), true=None, digests=digests, split="val")


@pytest.fixture
def measured(images, monkeypatch):
    """``layer_errors`` of what stands in the place of a run."""

    def made(model: bytes, container: str = "tflite", **options) -> LayerErrors:
        ready = optimised(model) if container == "onnx" else model
        ground = Ground(
            name="tiny",
            labels=("a", "b", "c", "d"),
            container=container,
            model=ready,
            pool=images.part(range(30), split="train"),
            judging=images.part(range(30, 40)),
        )
        monkeypatch.setattr(layers_module, "read_ground", lambda *_, **__: ground)
        return layer_errors(Path("run"), threads=1, **options)

    return made


def fp32(container: str) -> bytes:
    return (MODELS / f"fp32.{container}").read_bytes()


def refused() -> bytes:
    """The network with a huge weight where there is never anything: in float it changes nothing."""
    file = read_file(fp32("tflite"))
    (graph,) = file.subgraphs
    kernel = next(one for one in operators(file) if one.kind == "CONV_2D").inputs[1]
    values = kernel.values.copy()
    values[..., 2] = REFUSED
    file.buffers[graph.tensors[kernel.index].buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return packed(file)


@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_every_layer_is_measured_on_other_images_than_it_is_calibrated_with(measured, container):
    made = measured(fp32(container), container, images=8)
    assert (made.container, made.calibration_images, made.images, made.split) == (container, 30, 8, "val")
    assert len(made.layers) == 3
    assert sum(made.shares) == pytest.approx(1)
    assert all(one.sqnr_db > 20 and not one.refused for one in made.layers)


def test_a_layer_that_the_engine_refuses_in_int8_is_the_worst(measured, tmp_path):
    made = measured(refused())
    worst, *others = made.layers
    assert (worst.layer.kind, worst.refused, worst.changed_labels) == ("CONV_2D", True, 1.0)
    assert not any(one.refused for one in others)
    rows = json.loads(json.dumps(made.to_json(), allow_nan=False))["layers"]
    assert (rows[0]["divergence_nats"], rows[0]["sqnr_db"], rows[0]["refused"]) == (None, None, True)
    write_layers_plot(made, tmp_path / "layers.png")


def test_a_float_model_that_the_engine_refuses_is_an_error_not_a_layer(images):
    ranges = MinMax()
    observe_tflite(fp32("tflite"), images.take(range(2)), ranges)
    file = read_file(fp32("tflite"))
    file.operatorCodes[0].version = 999
    with pytest.raises(ModelError, match="LiteRT refuses"):
        sensitivity_tflite(packed(file), ranges.ranges(), images.take(range(2)))


def of(*names: str, macs: int = 1) -> LayerErrors:
    return LayerErrors(
        name="n",
        container="tflite",
        estimator="min-max",
        calibration_images=1,
        split="val",
        images=1,
        layers=tuple(
            LayerError(
                layer=Layer(name=name, kind="CONV_2D", multiply_accumulates=macs),
                sqnr_db=math.inf,
                divergence_nats=0.1 / (place + 1),
                changed_labels=0.0,
            )
            for place, name in enumerate(names)
        ),
        seconds=1.0,
    )


def test_a_layer_is_called_by_the_first_of_its_names_without_the_folders_that_all_share():
    made = of("model/net/stem/Relu;model/net/bn/add", "model/net/head/MatMul", "model/net/head/Softmax;x")
    assert made.titles == ("stem/Relu", "head/MatMul", "head/Softmax")
    assert of("Conv_004.out0", "a/b").titles == ("Conv_004.out0", "a/b")
    assert of("a/b").titles == ("b",)


def test_the_shares_of_a_network_without_products_are_none():
    assert of("a", "b", macs=0).shares == (0, 0)


def test_the_json_is_as_documented(measured):
    made = json.loads(json.dumps(measured(fp32("tflite")).to_json(), allow_nan=False))
    page = PAGE.read_text(encoding="utf-8")
    assert made["format"] == [1, 0]
    for fields in (made, made["layers"][0]):
        for name in fields:
            assert f"`{name}`" in page, name


def test_the_plot_names_forty_layers_at_most(tmp_path):
    import cv2

    sizes = []
    for count in (5, 40, 60):
        write_layers_plot(of(*(f"layer {place}" for place in range(count))), tmp_path / "layers.png")
        sizes.append(cv2.imread(str(tmp_path / "layers.png")).shape[0])
    assert sizes[0] < sizes[1] == sizes[2]


@pytest.mark.parametrize(("options", "word"), [({"images": 0}, "at least 1"), ({"container": "xml"}, "xml")])
def test_what_can_not_be_measured_is_refused_before_anything_is_read(options, word):
    with pytest.raises(UsageError, match=word):
        layer_errors(Path("there is no such run"), **options)


def test_two_measurements_are_equal(measured):
    first, second = (replace(measured(fp32("tflite")), seconds=0) for _ in range(2))
    assert first == second
