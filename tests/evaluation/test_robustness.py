"""Robustness: float and int8 on the same spoilt and attacked images, kept in the run and told in its report."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edgeclf.data import cache
from edgeclf.evaluation.corruptions import CORRUPTIONS, corrupted
from edgeclf.evaluation.evaluate import evaluate
from edgeclf.evaluation.robustness import robustness
from edgeclf.evaluation.robustness_result import IN_FLOAT, conditions
from edgeclf.evaluation.scores import engine_scores
from edgeclf_device import Classifier, DataError, UsageError
from edgeclf_device.bundle import write_bundle_index
from edgeclf_device.errors import ModelError

EDGECLF = [sys.executable, "-m", "edgeclf"]
PREPROCESS = "height = 16\nwidth = 16\nchannels = 'rgb'\nscale = 1\noffset = 0\n"


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("keras")


@pytest.fixture
def own_model(keras, tmp_path):
    """A .keras file that tells dark from light, its labels and its preprocessing."""
    image = keras.Input((16, 16, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 128, offset=-1)(image))
    dense = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(image, dense(mean))
    dense.set_weights([np.full((3, 2), [-10, 10], np.float32), np.zeros(2, np.float32)])
    model.save(tmp_path / "own.keras")
    (tmp_path / "labels.txt").write_text("dark\nlight\n")
    (tmp_path / "preprocess.toml").write_text(PREPROCESS)
    return {
        "model": tmp_path / "own.keras",
        "labels": tmp_path / "labels.txt",
        "preprocess": tmp_path / "preprocess.toml",
    }


@pytest.fixture
def shades(tmp_path, monkeypatch):
    """Flat images 1, 3, 5 … 15 values away from the middle, on either side."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setenv("EDGECLF_CACHE", str(tmp_path / "cache"))
    for label, sign in (("dark", -1), ("light", 1)):
        (tmp_path / "shades" / label).mkdir(parents=True)
        for away in range(1, 17, 2):
            image = np.full((16, 16, 3), 128 + sign * away, np.uint8)
            cv2.imwrite(str(tmp_path / "shades" / label / f"{away}.png"), image)
    return tmp_path / "shades"


@pytest.mark.tensorflow
def test_a_model_of_yours_is_evaluated_with_its_labels_and_preprocessing(own_model, shades):
    (made,) = evaluate(data=shades, **own_model)
    assert (made.model, made.engine, made.metrics["accuracy"]) == ("own.keras", "keras", 1.0)
    assert made.metrics["accepted"] is None


@pytest.mark.tensorflow
def test_attacks_reach_as_far_as_epsilon_and_each_is_told_with_its_own_figures(own_model, shades):
    made = robustness(data=shades, epsilons=[8, 2, 8], **own_model)
    (one,) = made.models
    assert (made.epsilons, made.images, made.split, one.accuracy) == ((2, 8), 16, "all", 1.0)
    # Images 1 away are lost to 2; those 1, 3, 5 and 7 away to 8.
    assert one.attacks == dict.fromkeys(("fgsm", "pgd", IN_FLOAT), (7 / 8, 4 / 8))
    told = dict(conditions(made))
    assert told["plain"] == [1.0]
    assert told["fgsm, epsilon 8"] == [0.5]
    assert told["low light, severity 3"][0] == pytest.approx(0.5)
    json.dumps(made.to_json(), allow_nan=False)


@pytest.mark.tensorflow
def test_a_model_of_yours_without_one_of_the_two_is_refused(own_model, shades):
    for missing in ("labels", "preprocess"):
        given = {name: path for name, path in own_model.items() if name != missing}
        with pytest.raises(UsageError, match="was given with some of them; give both"):
            evaluate(data=shades, **given)


@pytest.mark.tensorflow
def test_a_model_of_yours_that_holds_code_is_not_opened(keras, own_model, shades):
    image = keras.Input((16, 16, 3), dtype="uint8")
    keras.Model(image, keras.layers.Lambda(lambda x: x[:, 0, 0, :2])(image)).save(own_model["model"])
    with pytest.raises(ModelError, match="holds code"):
        robustness(data=shades, **own_model)


def test_artifacts_of_a_bundle_are_spoilt_alike_and_not_attacked(tiny, images, tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for kind in ("w8a8.onnx", "fp32.onnx"):
        tiny.need_engine(kind)
        tiny.write(folder, kind)
    write_bundle_index(folder, name="tiny")
    made = robustness(folder, images, images=8, seed=1)
    assert {one.model for one in made.models} == {"tiny-w8a8.onnx", "tiny-fp32.onnx"}
    assert made.images == 8
    assert all((set(one.corruptions), one.attacks) == (set(CORRUPTIONS), {}) for one in made.models)
    assert robustness(folder, images, images=8, seed=1) == made


def test_an_artifact_is_judged_by_what_its_engine_says_of_corrupted_images(tiny, images, tmp_path):
    tiny.need_engine("fp32.onnx")
    path = tiny.write(tmp_path, "fp32.onnx")
    (one,) = robustness(path, images).models
    with Classifier.open(path) as classify:
        dataset, pixels = cache.load(images, classify.manifest.preprocessing, for_training=False)
        spoilt = corrupted(np.asarray(pixels), "noise", 3, seed=0)
        tensors = classify.manifest.inputs[0], classify.manifest.outputs[0]
        given = engine_scores(classify.engine, tensors, spoilt, description="").argmax(axis=1)
    right = [dataset.labels[item.label] == tiny.labels[place] for item, place in zip(dataset.items, given, strict=True)]
    assert one.corruptions["noise"][2] == np.mean(right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": [0]}, "from 1 to 255, but 0 was given"),
        ({"epsilons": [8, 256]}, "from 1 to 255, but 8, 256 was given"),
        ({"epsilons": []}, "none was given"),
        ({"images": 0}, "At least 1 image must judge"),
        ({"labels": "labels.txt"}, "leave them out"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny, images, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        robustness(tiny.write(tmp_path, "fp32.onnx"), images, **options)


def test_no_images_are_refused(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        robustness(tiny.write(tmp_path, "fp32.onnx"), tmp_path / "empty")


def test_the_command_says_why_an_artifact_is_not_attacked_and_what_belongs_to_robustness(tiny, images, tmp_path):
    tiny.need_engine("fp32.onnx")
    command = [*EDGECLF, "evaluate", tiny.write(tmp_path, "fp32.onnx"), images]
    done = subprocess.run([*command, "--robustness", "--images", "4"], capture_output=True, text=True, check=True)
    assert "shift, severity 3" in done.stdout
    assert "not attacked: FGSM and PGD need a gradient" in done.stderr
    refused = subprocess.run([*command, "--epsilon", "4"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "Without --robustness there is no --epsilon" in refused.stderr


@pytest.mark.slow
@pytest.mark.tensorflow
def test_int8_is_judged_by_the_images_that_deceive_the_run_it_was_exported_from(keras, shades, tmp_path):
    def edgeclf(*arguments):
        subprocess.run([*EDGECLF, *map(str, arguments)], check=True, cwd=tmp_path)

    options = ["--set", "model.filters=4", "--set", "train.batch_size=4", "--set", "split.near_duplicates=false"]
    edgeclf("train", shades, "--out", "run", "--backbone", "cnn", "--image-size", 16, "--epochs", 2, *options)
    edgeclf("export", "run", "--out", "bundle", "--format", "onnx", "--max-drop", 100)
    edgeclf("evaluate", "bundle", "run", "--robustness", "--split", "train", "--json", "r.json")
    keras_model, fp32, int8 = json.loads((tmp_path / "r.json").read_text())["models"]
    assert (keras_model["model"], fp32["attacks"].keys()) == ("model.keras", int8["attacks"].keys())
    assert fp32["accuracy"] == keras_model["accuracy"]
    assert fp32["corruptions"] == keras_model["corruptions"]
    assert fp32["attacks"] == {name: shares for name, shares in keras_model["attacks"].items() if name != IN_FLOAT}
    report = (tmp_path / "run" / "report.html").read_text()
    assert 'id="robustness"' in report
    assert 'id="artifacts"' in report
