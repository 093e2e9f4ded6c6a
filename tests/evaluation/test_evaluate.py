"""Evaluating artifacts on a folder of images: the figures are those of the device's own classifier."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edgeclf.evaluation.evaluate import evaluate
from edgeclf_device import Classifier, DataError, UsageError, load
from edgeclf_device.bundle import write_bundle_index


@pytest.mark.parametrize("kind", ["w8a8.tflite", "fp32.onnx"])
def test_an_artifact_is_judged_by_what_its_classifier_says(tiny, kind, images, tmp_path):
    tiny.need_engine(kind)
    with Classifier.open(tiny.write(tmp_path, kind)) as classify:
        results = [(path.parent.name, classify(load(path))) for path in sorted(images.rglob("*.png"))]
    threshold = sorted(result.score for _, result in results)[5]
    right = [label == result.label for label, result in results]
    believed = [hit for hit, (_, result) in zip(right, results, strict=True) if result.score >= threshold]
    (made,) = evaluate(tiny.write(tmp_path, kind, reject_below=threshold), images)
    assert made.metrics["accuracy"] == pytest.approx(np.mean(right))
    assert made.metrics["accepted"] == {
        "threshold": threshold,
        "images": 12,
        "accepted": len(believed),
        "coverage": len(believed) / 12,
        "accuracy": pytest.approx(np.mean(believed)),
    }
    assert 0 < len(believed) < 12
    assert made.metrics["per_class"][tiny.labels[2]]["roc_auc"] is None
    json.dumps(made.to_json(), allow_nan=False)


def test_an_artifact_without_a_threshold_accepts_nothing_in_particular(tiny, images, tmp_path):
    tiny.need_engine("fp32.onnx")
    (made,) = evaluate(tiny.write(tmp_path, "fp32.onnx"), images)
    assert made.metrics["accepted"] is None
    assert (made.split, made.metrics["images"]) == ("all", 12)


def test_every_artifact_of_a_bundle_is_judged_on_the_same_images(tiny, images, tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for kind in ("w8a8.onnx", "fp32.onnx"):
        tiny.need_engine(kind)
        tiny.write(folder, kind)
    write_bundle_index(folder, name="tiny")
    made = evaluate(folder, images)
    assert {one.model for one in made} == {"tiny-w8a8.onnx", "tiny-fp32.onnx"}
    assert all(one.metrics["images"] == 12 for one in made)


def test_a_class_that_the_model_does_not_know_is_refused(tiny, images, tmp_path):
    tiny.need_engine("fp32.onnx")
    (images / tiny.labels[0]).rename(images / "unbekannt")
    with pytest.raises(DataError, match="unbekannt"):
        evaluate(tiny.write(tmp_path, "fp32.onnx"), images)


def test_a_part_of_data_that_has_none_is_refused(tiny, images, tmp_path):
    tiny.need_engine("fp32.onnx")
    with pytest.raises(UsageError, match="leave --split out"):
        evaluate(tiny.write(tmp_path, "fp32.onnx"), images, split="test")


def test_data_without_a_test_part_is_judged_on_its_validation_part(tiny, images, tmp_path):
    tiny.need_engine("fp32.onnx")
    for part in ("train", "val"):
        shutil.copytree(images, tmp_path / "divided" / part)
    (made,) = evaluate(tiny.write(tmp_path, "fp32.onnx"), tmp_path / "divided")
    assert (made.split, made.metrics["images"]) == ("val", 12)
