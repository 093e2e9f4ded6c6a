"""Faults that no digest shows: each is planted alone in a correct export, and named."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnxruntime")

import cv2
import onnx

from edgeclf.evaluation import faults
from edgeclf.evaluation.faults import checks_against
from edgeclf.exporting.export import export
from edgeclf_calibration.static import quantize
from edgeclf_calibration.tflite_file import operators, packed, read_file
from edgeclf_device import _pixels_cv2
from edgeclf_device.artifact import read_artifact, write_artifact
from edgeclf_device.verify import verify

pytestmark = pytest.mark.tensorflow
FILES = ("klein-fp32.tflite", "klein-w8a8.tflite", "klein-fp32.onnx", "klein-w8a8.onnx")
EVERY = pytest.mark.parametrize("file", FILES)
W8A8 = pytest.mark.parametrize("file", FILES[1::2])


@pytest.fixture(scope="module")
def bundle(run_folder, tmp_path_factory):
    return export(run_folder, tmp_path_factory.mktemp("out") / "bundle")


@pytest.fixture(autouse=True)
def _converted_once(request, bundle, monkeypatch):
    """The fp32 models in the bundle are, byte for byte, what converting the run again would give."""
    if "slow" not in request.keywords:
        sound = {kind: read_artifact(bundle.folder / f"klein-fp32.{kind}").model for kind in ("tflite", "onnx")}
        monkeypatch.setattr(faults, "fp32_of", lambda _subject, container, **_: sound[container])


@pytest.fixture
def planted(bundle, tmp_path):
    """Write an artifact with a fault, sealed as if it were right; gives its path."""

    def plant(file, *, model=None, **manifest):
        found = read_artifact(bundle.folder / file)
        changed = dataclasses.replace(found.manifest, **manifest)
        write_artifact(tmp_path / file, found.model if model is None else model(found.model), changed)
        return tmp_path / file

    return plant


def said(path, run, name):
    """What the check of that name says; digests are right, so that nothing else finds the fault first."""
    assert [check.outcome for check in verify(path).checks if check.name == "digests"] == ["ok"]
    (check,) = (check for check in checks_against(path, run) if check.name == name)
    assert check.outcome == "failed", check.detail
    return check.detail


def failed_in_verify(path):
    return {check.name for check in verify(path).checks if check.outcome == "failed"}


def tflite_weights(model, number, change):
    """The weights, or what other input, of the layers that ``change`` does not leave alone."""
    file = read_file(model)
    (graph,) = file.subgraphs
    steps = [one for one in operators(file) if one.kind in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}]
    weights = graph.tensors[steps[number].inputs[1].index]
    buffer = file.buffers[weights.buffer]
    dtype = np.float32 if steps[number].inputs[1].is_float else np.int8
    values = np.frombuffer(bytes(buffer.data), dtype).reshape(weights.shape)
    buffer.data = np.frombuffer(np.ascontiguousarray(change(values)).tobytes(), np.uint8)
    return packed(file)


def onnx_weights(model, number, change):
    proto = onnx.load_from_string(model)
    kernels = [one for one in proto.graph.initializer if len(one.dims) == 4]
    order = {name: place for place, node in enumerate(proto.graph.node) for name in node.input}
    tensor = sorted(kernels, key=lambda one: order[one.name])[number]
    values = change(np.moveaxis(onnx.numpy_helper.to_array(tensor), 1, -1))
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(values, -1, 1)), tensor.name))
    return proto.SerializeToString()


def weights(number, change):
    def changed(model):
        return (tflite_weights if model[4:8] == b"TFL3" else onnx_weights)(model, number, change)

    return changed


def test_a_correct_export_has_no_fault(bundle, run_folder):
    checks = checks_against(bundle.folder, run_folder)
    assert {check.outcome for check in checks} <= {"ok", "skipped"}, checks
    names = ["labels", "preprocessing", "scores"]
    assert [check.name for check in checks if check.file == FILES[0]] == names
    assert [check.name for check in checks if check.file == FILES[1]] == [*names[:2], "calibration", names[2]]
    assert [check.name for check in checks if check.file == "this machine"] == ["preparing"]


@EVERY
def test_bgr_for_rgb_is_named(planted, run_folder, file):
    path = planted(file, model=weights(0, lambda values: values[..., ::-1]))
    assert "red and blue are exchanged" in said(path, run_folder, "scores")


@pytest.mark.parametrize("file", FILES[0::2])
def test_a_wrong_scale_of_pixels_is_named(planted, run_folder, file):
    def rescaled(model):
        """1/255 and 0 where 1/128 and -127/128 are right."""
        changes = {np.float32(1 / 128): np.float32(1 / 255), np.float32(-127 / 128): np.float32(0)}
        if model[4:8] == b"TFL3":
            opened = read_file(model)
            for buffer in opened.buffers:
                if buffer.data is not None and len(buffer.data) == 4:
                    value = np.frombuffer(bytes(buffer.data), np.float32)[0]
                    for old, new in changes.items():
                        if abs(abs(value) - abs(old)) < 1e-6:
                            buffer.data = np.frombuffer(
                                (np.sign(value * old) * new).astype(np.float32).tobytes(), np.uint8
                            )
            return packed(opened)
        proto = onnx.load_from_string(model)
        for tensor in proto.graph.initializer:
            value = onnx.numpy_helper.to_array(tensor)
            for old, new in changes.items():
                if value.size == 1 and abs(abs(float(value.reshape(-1)[0])) - abs(float(old))) < 1e-6:
                    sign = np.sign(value * old)
                    tensor.CopyFrom(onnx.numpy_helper.from_array((sign * new).astype(np.float32), tensor.name))
        return proto.SerializeToString()

    path = planted(file, model=rescaled)
    assert "golden scores" in failed_in_verify(path)
    assert "wrong scale" in said(path, run_folder, "scores")


@W8A8
def test_a_wrong_scale_of_the_scores_is_named_by_verify_alone(planted, file):
    output = read_artifact(planted(file)).manifest.outputs[0]
    if output.quantization is None:
        pytest.skip("the scores of this artifact are float")
    wrong = dataclasses.replace(output, quantization=dataclasses.replace(output.quantization, scale=1 / 128))
    assert failed_in_verify(planted(file, outputs=(wrong,))) == {"golden scores"}


def test_nearest_for_linear_is_named_on_the_machine_that_does_it(bundle, run_folder, monkeypatch):
    def nearest(image, height, width):
        made = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_NEAREST)
        return made.reshape(height, width, -1)

    monkeypatch.setattr(_pixels_cv2, "resize", nearest)
    (check,) = (one for one in checks_against(bundle.folder, run_folder) if one.name == "preparing")
    assert check.outcome == "failed"
    assert "nearest neighbour" in check.detail


@EVERY
def test_nearest_for_linear_is_named_where_the_training_did_it(planted, bundle, run_folder, monkeypatch, file):
    """The scores that the run keeps are then of other pixels than the device prepares."""
    found = faults._judged(run_folder, faults.read_subject(run_folder), 64)
    nearest = faults._resized(found, read_artifact(bundle.folder / file).manifest.preprocessing, "nearest neighbour")
    artifact = read_artifact(bundle.folder / "klein-fp32.tflite")
    tensors = (artifact.manifest.inputs[0], artifact.manifest.outputs[0])
    engine = faults.open_engine(artifact.model, "tflite", threads=1)
    keras = faults.engine_scores(engine, tensors, nearest, description="")
    monkeypatch.setattr(faults, "_judged", lambda *_: dataclasses.replace(found, keras=keras))
    assert "resized by nearest neighbour" in said(planted(file), run_folder, "scores")


@EVERY
def test_shuffled_labels_are_named(planted, bundle, run_folder, file):
    labels = read_artifact(bundle.folder / file).manifest.labels
    assert "shuffled: 2 of 2" in said(planted(file, labels=labels[::-1]), run_folder, "labels")


def test_shuffled_outputs_are_named(planted, run_folder):
    def exchanged(model):
        proto = onnx.load_from_string(model)
        (output,) = proto.graph.output
        places = onnx.numpy_helper.from_array(np.array([1, 0], np.int64), "places")
        for node in proto.graph.node:
            node.output[:] = ["before" if name == output.name else name for name in node.output]
        proto.graph.initializer.append(places)
        proto.graph.node.append(onnx.helper.make_node("Gather", ["before", "places"], [output.name], axis=1))
        return proto.SerializeToString()

    path = planted("klein-fp32.onnx", model=exchanged)
    assert "golden label" in failed_in_verify(path)
    assert "the labels are shuffled" in said(path, run_folder, "scores")


def test_uint8_and_int8_swapped_are_named_by_verify_alone(planted):
    def signed(model):
        file = read_file(model)
        (graph,) = file.subgraphs
        image = graph.tensors[graph.inputs[0]]
        image.type = 9  # int8
        image.quantization.zeroPoint = np.asarray(image.quantization.zeroPoint) - 128
        return packed(file)

    path = planted("klein-w8a8.tflite", model=signed)
    (check,) = (check for check in verify(path).checks if check.outcome == "failed")
    assert "manifest's input is uint8" in check.detail
    assert "the engine sees int8" in check.detail


def test_pixels_taken_for_int8_are_named(planted, run_folder):
    """The dtype is right, and the zero point 128 apart."""

    def shifted(model):
        proto = onnx.load_from_string(model)
        (image,) = proto.graph.input
        shift = onnx.numpy_helper.from_array(np.array(128, np.uint8), "shift")
        for node in proto.graph.node:
            node.input[:] = ["moved" if name == image.name else name for name in node.input]
        proto.graph.initializer.append(shift)
        node = onnx.helper.make_node("BitwiseXor", [image.name, "shift"], ["moved"])
        proto.graph.node.insert(0, node)
        proto.opset_import[0].version = 18
        return proto.SerializeToString()

    path = planted("klein-fp32.onnx", model=shifted)
    assert "golden scores" in failed_in_verify(path)
    assert "int8 where it is uint8" in said(path, run_folder, "scores")


@W8A8
def test_stale_calibration_is_named_by_its_images(planted, bundle, run_folder, file):
    record = dict(read_artifact(bundle.folder / file).manifest.calibration)
    record["digests"] = ["0" * 64, *record["digests"][1:]]
    assert "stale: 1 of its" in said(planted(file, calibration=record), run_folder, "calibration")


@W8A8
def test_stale_calibration_is_named_by_its_ranges(planted, bundle, run_folder, file):
    container = file.rpartition(".")[2]
    fp32 = read_artifact(bundle.folder / f"klein-fp32.{container}").model
    grey = np.full((8, 32, 32, 3), 120, np.uint8)
    path = planted(file, model=lambda _: quantize(fp32, container, grey))
    assert "golden scores" in failed_in_verify(path)
    assert "the calibration is stale" in said(path, run_folder, "scores")


@EVERY
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_layer_whose_weights_are_zero_is_named(planted, run_folder, file, number):
    path = planted(file, model=weights(number, np.zeros_like))
    assert "golden scores" in failed_in_verify(path)
    assert "its weights are zero" in said(path, run_folder, "scores")


@pytest.mark.slow
def test_a_layer_is_named_with_the_run_alone_at_hand(planted, run_folder):
    path = planted("klein-w8a8.tflite", model=weights(1, np.zeros_like))
    assert "its weights are zero" in said(path, run_folder, "scores")


def test_the_command_names_what_differs_from_the_run(planted, bundle, run_folder):
    from typer.testing import CliRunner

    from edgeclf.cli import app

    good = CliRunner().invoke(app, ["verify", str(bundle.folder), "--run", str(run_folder)])
    assert good.exit_code == 0, good.output
    path = planted("klein-w8a8.onnx", model=weights(0, lambda values: values[..., ::-1]))
    bad = CliRunner().invoke(app, ["verify", str(path), "--run", str(run_folder), "--json"])
    assert bad.exit_code == 4
    assert "red and blue are exchanged" in bad.output
    bare = shutil.copytree(run_folder, path.parent / "run")
    (bare / "predictions.npz").unlink()
    lost = CliRunner().invoke(app, ["verify", str(path), "--run", str(bare)])
    assert lost.exit_code == 4
