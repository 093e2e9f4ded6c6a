"""What an export does beyond the plain way of quantizing: on tiny real files, without TensorFlow."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeclf.exporting.calibration import Calibration, Tuning
from edgeclf.exporting.request import request
from edgeclf.exporting.static_int8 import beyond_plain, quantized
from edgeclf_calibration.answers import scores_of
from edgeclf_calibration.observe import anchored
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_device.errors import GateError, UsageError
from edgeclf_device.progress import no_progress

pytest.importorskip("ai_edge_quantizer")
pytest.importorskip("onnxruntime")
MODELS = Path(__file__).parents[1] / "device" / "models"


def images(count: int, seed: int) -> np.ndarray:
    """Blots of colour, which the tiny network tells apart."""
    draw = np.random.default_rng(seed)
    blots = draw.integers(0, 256, (count, 4, 5, 3)).astype(np.float32)
    return np.clip(blots.repeat(4, axis=1).repeat(4, axis=2) + draw.normal(0, 12, (count, 16, 20, 3)), 0, 255).astype(
        np.uint8
    )


def calibration(model: bytes, container: str, *, labelled: bool = True, tuned: bool = True) -> Calibration:
    """Thirty images of each of two classes; the float model's own labels are the truth, so it is always right."""
    many = images(800, 1)
    labels = scores_of((MODELS / "fp32.onnx").read_bytes(), "onnx", many).argmax(axis=1)
    shown = np.concatenate([many[labels == label][:30] for label in (0, 1)])
    assert len(shown) == 60
    true = scores_of(model, container, shown).argmax(axis=1) if labelled else None
    tuning = Tuning(pixels=shown, true=true) if tuned else None
    return Calibration(pixels=anchored(images(40, 0)), record={}, tuning=tuning, doubts=())


def spoilt(model: bytes) -> bytes:
    """A weight, a hundred times the largest, on a value that is always zero: its channel has no levels left."""
    file = read_file(model)
    (graph,) = file.subgraphs
    conv = next(step for step in operators(file) if step.kind == "CONV_2D")
    dense = next(step for step in operators(file) if step.kind == "FULLY_CONNECTED")

    def write(tensor, values):
        buffer = file.buffers[graph.tensors[tensor.index].buffer]
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)

    kernel, bias = conv.inputs[1].values.copy(), conv.inputs[2].values.copy()
    kernel[0], bias[0] = 0, -1.0  # behind the rectifier nothing is left of this channel
    write(conv.inputs[1], kernel)
    write(conv.inputs[2], bias)
    weights = dense.inputs[1].values.copy()
    weights[:, 0] = 3000
    write(dense.inputs[1], weights)
    return packed(file)


@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_the_plain_way_is_all_where_it_keeps_to_the_gate(container):
    model = (MODELS / f"fp32.{container}").read_bytes()
    content, made, _ = quantized(
        model,
        container,
        calibration(model, container),
        request(formats=[container], schemes=["w8a8"], max_drop=50),
        no_progress,
    )
    expected = {"estimator": "min-max", "recovery": ["bias-correction"]}
    assert made == expected | ({"target": "x86"} if container == "onnx" else {})
    assert beyond_plain(made) == []
    shown = images(20, 2)
    assert (scores_of(content, container, shown) - scores_of(model, container, shown)).max() < 0.1


@pytest.mark.parametrize("container", ["tflite", "onnx"])
def test_recovery_keeps_the_way_that_comes_nearest(container):
    model = (MODELS / f"fp32.{container}").read_bytes()
    asked = request(formats=[container], schemes=["w8a8"], max_drop=100, recover=True)
    given = calibration(model, container, labelled=False)
    content, made, _ = quantized(model, container, given, asked, no_progress)
    assert len(made["attempts"]) == 7
    best = min(made["attempts"], key=lambda one: one["distance"])
    assert made["estimator"] == best["estimator"]
    assert ("adaptive-rounding" in made["recovery"]) == best["adaptive"]
    assert "came nearest to the float model" in beyond_plain(made)[0]
    exact, shown = scores_of(model, container, given.tuning.pixels), scores_of(content, container, given.tuning.pixels)
    assert np.abs(exact - shown).sum(axis=1).mean() / 2 == pytest.approx(best["distance"], rel=1e-5)
    assert quantized(model, container, given, asked, no_progress)[0] == content


@pytest.mark.parametrize(("gate", "recovers"), [(2.0, False), (1.9, True)])
def test_recovery_begins_at_half_of_the_gate(gate, recovers):
    model = spoilt((MODELS / "fp32.tflite").read_bytes())
    given = calibration(model, "tflite")
    asked = partial(request, formats=["tflite"], schemes=["w8a8"])
    tuning = given.tuning
    plainly, *_ = quantized(model, "tflite", dataclasses.replace(given, tuning=None), asked(), no_progress)
    right = [(scores_of(one, "tflite", tuning.pixels).argmax(axis=1) == tuning.true).sum() for one in (model, plainly)]
    drop = 100 * (right[0] - right[1]) / len(tuning.true)
    assert drop > 0
    _, made, _ = quantized(model, "tflite", given, asked(max_drop=gate * drop), no_progress)
    assert ("attempts" in made) == recovers


def test_a_layer_that_int8_breaks_stays_in_float_and_is_named():
    model = spoilt((MODELS / "fp32.tflite").read_bytes())
    given = calibration(model, "tflite")
    content, made, _ = quantized(
        model, "tflite", given, request(formats=["tflite"], schemes=["w8a8"], max_drop=4), no_progress
    )
    (kept,) = made["in_float"]
    dense = next(step for step in operators(read_file(model)) if step.kind == "FULLY_CONNECTED")
    assert kept == dense.outputs[0].name
    assert 0.9 < made["int8_share"] < 1
    told = beyond_plain(made)
    assert kept in told[1]
    assert "% of the multiplications are in int8" in told[1]
    right = scores_of(content, "tflite", given.tuning.pixels).argmax(axis=1) == given.tuning.true
    assert right.mean() >= 0.96


def test_where_half_of_the_layers_in_float_do_not_help_the_gate_names_them():
    model = (MODELS / "fp32.tflite").read_bytes()
    given = calibration(model, "tflite")
    broken = spoilt(model)
    # Calibrated in the dark, every range is wrong.
    wrong = dataclasses.replace(given, pixels=np.zeros_like(given.pixels), tuning=calibration(broken, "tflite").tuning)
    with pytest.raises(GateError, match=r"layers in float it still loses .* the worst first: "):
        quantized(broken, "tflite", wrong, request(formats=["tflite"], schemes=["w8a8"], max_drop=0), no_progress)


def test_recovery_without_images_to_choose_by_is_refused():
    model = (MODELS / "fp32.onnx").read_bytes()
    asked = request(formats=["onnx"], schemes=["w8a8"], recover=True)
    with pytest.raises(UsageError, match="none are left"):
        quantized(model, "onnx", calibration(model, "onnx", tuned=False), asked, no_progress)


def test_images_that_show_nothing_are_doubted():
    model = (MODELS / "fp32.onnx").read_bytes()
    given = calibration(model, "onnx", tuned=False)
    grey = Calibration(pixels=anchored(np.full_like(given.pixels, 127)), record={}, tuning=None, doubts=())
    _, _, doubts = quantized(model, "onnx", grey, request(formats=["onnx"], schemes=["w8a8"]), no_progress)
    assert "no effect" in doubts[0]
