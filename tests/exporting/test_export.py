from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeclf.exporting.export import export, export_subject
from edgeclf.exporting.request import request
from edgeclf.exporting.run_subject import read_subject
from edgeclf_device import Classifier
from edgeclf_device.artifact import read_artifact
from edgeclf_device.errors import DependencyError, GateError, ModelError, SystemStateError, UsageError
from edgeclf_device.verify import verify

pytestmark = pytest.mark.tensorflow
FILES = ("klein-fp32.tflite", "klein-w8a8.tflite", "klein-fp32.onnx", "klein-w8a8.onnx")


@pytest.fixture(scope="module")
def bundle(run_folder, tmp_path_factory):
    return export(run_folder, tmp_path_factory.mktemp("out") / "Bündel")


@pytest.fixture(scope="module")
def subject(run_folder):
    return read_subject(run_folder)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_bundle_holds_every_artifact_and_its_index_and_nothing_else(bundle):
    assert entries(bundle.folder) == sorted([*FILES, "bundle.json"])
    assert [entry.file for entry in bundle.artifacts] == list(FILES)
    assert verify(bundle.folder).ok


def test_every_artifact_says_what_it_is_and_what_was_measured_on_it(bundle, subject):
    for file in FILES:
        manifest = read_artifact(bundle.folder / file).manifest
        assert manifest.labels == ("Fläche", "gerändert")
        assert manifest.preprocessing == subject.spec
        assert (manifest.inputs[0].dtype, manifest.inputs[0].shape) == ("uint8", (1, 32, 32, 3))
        assert manifest.certificate.images == len(subject.judging) == 18
        assert manifest.certificate.agreement >= 0.9
        assert manifest.golden.tolerance == (1e-5 if manifest.scheme == "fp32" else 1 / 256)
        assert (manifest.calibration is not None) == (manifest.scheme == "w8a8")
        assert set(manifest.provenance) >= {"weights_sha256", "data_sha256", "config_sha256", "versions"}


def test_the_calibration_images_are_training_images(bundle, subject):
    record = read_artifact(bundle.folder / "klein-w8a8.onnx").manifest.calibration
    assert set(record["digests"]) <= set(subject.calibration.digests)
    assert not set(record["digests"]) & set(subject.judging.digests)
    # The .tflite file has one form for every target.
    assert record == {**read_artifact(bundle.folder / "klein-w8a8.tflite").manifest.calibration, "target": "x86"}


def test_a_tflite_artifact_names_its_labels_to_other_tools_and_a_c_header_is_written_on_request(
    bundle, run_folder, tmp_path
):
    made = export(run_folder, tmp_path / "out", formats=["tflite"], schemes=["w8a8"], c_header=True)
    assert entries(made.folder) == ["bundle.json", "klein-w8a8.h", "klein-w8a8.tflite"]
    artifact = read_artifact(made.folder / "klein-w8a8.tflite")
    assert b"TFLITE_METADATA" in artifact.model
    assert artifact.digest in (made.folder / "klein-w8a8.h").read_text("ascii")
    assert artifact.model == read_artifact(bundle.folder / "klein-w8a8.tflite").model


def test_every_other_scheme_is_made_measured_and_opened_by_a_classifier(run_folder, subject, tmp_path):
    made = export(run_folder, tmp_path / "a", schemes=["fp16", "w8a32"])
    assert [entry.file for entry in made.artifacts] == [
        *("klein-fp16.tflite", "klein-w8a32.tflite", "klein-fp16.onnx", "klein-w8a32.onnx"),
    ]
    also = export(run_folder, tmp_path / "b", formats=["tflite"], schemes=["w8a16"])
    for bundle in (made, also):
        for entry in bundle.artifacts:
            manifest = read_artifact(bundle.path(entry)).manifest
            assert manifest.certificate.agreement == 1, entry.file
            assert manifest.inputs[0].dtype == ("float32" if entry.scheme == "w8a16" else "uint8")
            assert (manifest.calibration is not None) == (entry.scheme == "w8a16")
            with Classifier.open(bundle.path(entry)) as classify:
                assert classify(subject.judging.pixels[subject.judging.rows[0]]).label in manifest.labels


def test_16_bit_activations_in_onnx_are_refused_with_the_reason(tmp_path):
    with pytest.raises(UsageError, match=r"exists in \.tflite alone"):
        export(tmp_path / "no run", tmp_path / "out", schemes=["w8a16"])


def test_a_c_header_without_the_model_it_holds_is_refused(tmp_path):
    with pytest.raises(UsageError, match="add format tflite and scheme w8a8"):
        export(tmp_path / "no run", tmp_path / "out", schemes=["fp32"], c_header=True)


def test_an_artifact_alone_classifies_a_frame(bundle, subject):
    for file in FILES:
        with Classifier.open(bundle.folder / file) as classify:
            found = [classify(image).label for image in subject.judging]
        assert (
            np.mean([label == subject.labels[one] for label, one in zip(found, subject.judging.true, strict=True)]) == 1
        )


def test_stock_engines_open_the_files_and_give_the_golden_scores(bundle, subject):
    image = next(iter(subject.judging))[np.newaxis]
    for file in FILES[:2]:
        stock = Interpreter(model_path=str(bundle.folder / file))
        stock.allocate_tensors()
        stock.set_tensor(stock.get_input_details()[0]["index"], image)
        stock.invoke()
        assert stock.get_tensor(stock.get_output_details()[0]["index"]).argmax() == subject.judging.true[0]
    for file in FILES[2:]:
        onnx.checker.check_model(onnx.load(bundle.folder / file), full_check=True)
        session = onnxruntime.InferenceSession(bundle.folder / file, providers=["CPUExecutionProvider"])
        assert session.run(["scores"], {"image": image})[0].argmax() == subject.judging.true[0]


def test_the_int8_tflite_model_is_all_integer_and_its_input_is_the_pixels(bundle):
    stock = Interpreter(model_content=read_artifact(bundle.folder / "klein-w8a8.tflite").model)
    stock.allocate_tensors()
    (image,) = stock.get_input_details()
    assert image["dtype"] == np.uint8
    assert image["quantization"] == (1 / 128, 127)
    assert stock.get_output_details()[0]["quantization"] == (1 / 256, 0)
    assert not [one["name"] for one in stock.get_tensor_details() if one["dtype"] == np.float32]


def test_tensorflows_own_interpreter_opens_an_exported_file_with_its_trailer(bundle):
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "for file in sys.argv[1:]:\n"
        "    model = tf.lite.Interpreter(model_path=file); model.allocate_tensors()\n"
        "    (image,) = model.get_input_details()\n"
        "    model.set_tensor(image['index'], np.zeros(image['shape'], np.uint8)); model.invoke()\n"
        "    print(model.get_tensor(model.get_output_details()[0]['index']).shape)\n"
    )
    files = [str(bundle.path(entry)) for entry in bundle.artifacts if entry.container == "tflite"]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["(1, 2)"] * len(files)


def test_a_second_export_is_identical(bundle, run_folder, tmp_path):
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(run_folder, moved)
    again = export(moved, tmp_path / "again")
    for file in FILES:
        assert (again.folder / file).read_bytes() == (bundle.folder / file).read_bytes(), file
    assert dataclasses.replace(again, folder=bundle.folder, created=bundle.created) == bundle


def test_no_path_and_no_user_stands_in_an_artifact(bundle, run_folder):
    for file in FILES:
        data = (bundle.folder / file).read_bytes()
        for word in (str(run_folder), run_folder.parent.name, str(Path.home()), sys.prefix, os.uname().nodename):
            assert len(word) < 4 or word.encode() not in data, (file, word)


def test_a_drop_beyond_the_gate_writes_nothing(subject, tmp_path):
    spoilt = np.array(subject.judging.pixels)
    spoilt[subject.judging.rows[8:]] = 255 - spoilt[subject.judging.rows[8:]] // 255
    judging = dataclasses.replace(subject.judging, pixels=spoilt)
    with pytest.raises(GateError, match=r"klein-fp32\.tflite .*beyond the gate"):
        export_subject(
            dataclasses.replace(subject, judging=judging),
            tmp_path / "out",
            request(formats=["tflite"], schemes=["fp32"]),
        )
    assert entries(tmp_path) == []


def test_a_full_disk_in_the_converter_writes_nothing(run_folder, tmp_path):
    # 26 kB hold the job and the probe images, but not the SavedModel.
    code = (
        "import resource, sys; from pathlib import Path; from edgeclf.exporting.export import export\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (26_000, 26_000))\n"
        "try: export(Path(sys.argv[1]), Path(sys.argv[2]), formats=['tflite'], schemes=['fp32'])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, run_folder, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("SystemStateError"), done
    assert "could not write" in done.stdout or "could not be written" in done.stdout
    assert entries(tmp_path) == []


def test_ctrl_c_ends_the_converter_and_writes_nothing(run_folder, tmp_path):
    code = (
        "import sys; from pathlib import Path; from edgeclf.exporting.export import export\n"
        "export(*map(Path, sys.argv[1:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, run_folder, tmp_path / "out"], stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if list(tmp_path.glob(".out.*/.work/job.json")):
                break
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    assert entries(tmp_path) == []


def test_a_converter_that_takes_too_long_writes_nothing(run_folder, tmp_path):
    with pytest.raises(SystemStateError, match=r"may take 0\.5 s"):
        export(run_folder, tmp_path / "out", timeout_s=0.5)
    assert entries(tmp_path) == []


def test_an_output_folder_with_something_in_it_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="new or empty"):
        export(tmp_path / "no such run", tmp_path / "out")


def test_a_missing_package_is_named_with_its_extra_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeclf.exporting.request.find_spec", lambda name: None if name == "tf2onnx" else object())
    with pytest.raises(DependencyError, match=r"edgeclf\[onnxruntime\]"):
        export(tmp_path / "no such run", tmp_path / "out")
    monkeypatch.setattr("edgeclf.exporting.request.installed", lambda engine: engine != "litert")
    with pytest.raises(DependencyError, match=r"edgeclf\[litert\]"):
        export(tmp_path / "no such run", tmp_path / "out", formats=["tflite"])


def test_a_model_that_was_replaced_after_the_training_is_refused(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    with (run / "model.keras").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="SHA-256"):
        export(run, tmp_path / "out")


def test_scores_with_another_number_of_classes_than_labels_are_refused(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    with np.load(run / "predictions.npz") as arrays:
        kept = dict(arrays)
    kept["scores"] = np.pad(kept["scores"], ((0, 0), (0, 1)))
    np.savez(run / "predictions.npz", **kept)
    with pytest.raises(ModelError, match="2 labels but the scores"):
        export(run, tmp_path / "out")
