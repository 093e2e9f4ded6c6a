from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgeclf.exporting.measure import certify, choose_golden_seed, require_same_model, require_within
from edgeclf.exporting.request import request
from edgeclf_device.certificate import MAX_CHANGED_IMAGES, Certificate, ChangedImage
from edgeclf_device.errors import GateError, ModelError, UsageError
from edgeclf_device.manifest import canonical_json

TRUE = np.array([0, 0, 1, 1, 1, 0, 1, 0, 0, 1])


def scores_for(predicted) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[np.asarray(predicted)] * 0.8 + 0.1


def certificate(predicted, max_drop_points=1.0):
    keras = scores_for([0, 0, 1, 1, 1, 0, 1, 0, 1, 0])  # 8 of 10 right
    return certify(
        scores_for(predicted), keras, TRUE, split="test", max_drop_points=max_drop_points, engine="litert 1.0"
    )


def test_a_certificate_counts_right_answers_and_equal_ones():
    one = certificate([1, 0, 1, 1, 1, 0, 1, 0, 0, 0])
    assert (one.images, one.split, one.engine) == (10, "test", "litert 1.0")
    assert (one.accuracy, one.reference_accuracy) == (0.8, 0.8)
    assert (one.drop_points, one.agreement) == (0.0, 0.8)
    assert (one.paired.lost, one.paired.gained, one.paired.mcnemar_p) == (1, 1, 1.0)
    assert one.changes.images == 2


def random_scores(images, classes, seed=0):
    logits = np.random.default_rng(seed).normal(0, 2, (images, classes))
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def named(images):
    return [f"{number:064x}" for number in range(images)]


def compared(scores, reference, true=None, digests=()):
    return certify(scores, reference, true, split="test", max_drop_points=1.0, engine="litert 1.0", digests=digests)


def test_errors_of_scores_are_counted_over_all_images_and_classes():
    reference = random_scores(50, 4)
    scores = reference.copy()
    scores[7, 2] += 0.25
    found = compared(scores, reference).changes
    assert found.max_error == pytest.approx(0.25)
    assert found.mean_error == pytest.approx(0.25 / 200)


def test_two_classes_whose_outputs_are_exchanged_show_in_the_flips_and_no_other_class_does():
    reference = random_scores(400, 5)
    before = reference.argmax(axis=1)
    one = compared(reference[:, [0, 3, 2, 1, 4]], reference, before, named(400))
    images = np.bincount(before, minlength=5)
    assert one.changes.per_class == tuple(
        (count, count if place in (1, 3) else 0) for place, count in enumerate(images)
    )
    assert one.changes.images == one.paired.lost == images[1] + images[3]
    assert one.paired.mcnemar_p < 1e-20
    assert one.paired.drop_interval_95[0] > 1
    assert {(image.before, image.after) for image in one.changes.listed} == {(1, 3), (3, 1)}


def test_of_many_images_that_changed_the_surest_are_named_and_all_are_counted():
    reference = random_scores(3 * MAX_CHANGED_IMAGES, 3)
    found = compared(reference[:, [1, 2, 0]], reference, digests=named(len(reference))).changes
    assert found.images == len(reference)
    surest = np.argsort(-reference.max(axis=1), kind="stable")[:MAX_CHANGED_IMAGES]
    assert [int(image.sha256, 16) for image in found.listed] == surest.tolist()
    first = int(reference[surest[0]].argmax())
    assert found.listed[0] == ChangedImage(sha256=f"{surest[0]:064x}", before=first, after=(first + 2) % 3, true=None)
    assert compared(reference[:, [1, 2, 0]], reference).changes.listed == ()


def test_a_certificate_comes_back_from_its_json_as_it_was():
    reference = random_scores(60, 3)
    true = np.random.default_rng(1).integers(0, 3, 60)
    one = compared(np.roll(reference, 1, axis=1), reference, true, named(60))
    value = json.loads(canonical_json(one.to_json()))
    assert Certificate.from_json(value) == one
    assert value["changes"]["listed"][0].keys() == {"sha256", "before", "after", "true"}


def test_a_certificate_of_an_older_format_has_no_comparison():
    value = certificate(TRUE).to_json()
    del value["paired"], value["changes"]
    old = Certificate.from_json(value)
    assert (old.paired, old.changes) == (None, None)
    require_within({"a": old})


def test_a_keras_model_that_answers_nan_is_refused():
    reference = random_scores(4, 2)
    reference[3, 1] = np.nan
    with pytest.raises(ModelError, match="original model answers NaN"):
        compared(random_scores(4, 2), reference)


def test_a_drop_beyond_the_gate_is_refused_with_a_row_for_every_artifact():
    good, bad = certificate(TRUE), certificate([1, 1, 1, 1, 1, 0, 1, 0, 1, 0])
    with pytest.raises(GateError) as caught:
        require_within({"a-fp32.onnx": good, "a-w8a8.tflite": bad})
    lines = str(caught.value).splitlines()
    assert re.fullmatch(r"  a-fp32\.onnx +1\.0000 +-20\.00 +-50\.00 to \+10\.00 +0\.8000", lines[2])
    assert re.fullmatch(r"  a-w8a8\.tflite +0\.6000 +20\.00 +-10\.00 to \+50\.00 +0\.8000  beyond the gate", lines[3])
    assert caught.value.exit_code == 6


def test_a_drop_of_exactly_the_gate_is_allowed():
    require_within({"a": certificate([1, 0, 1, 1, 1, 0, 1, 0, 1, 0], max_drop_points=10.0)})


def test_without_labels_errors_and_agreement_alone_are_certified_and_no_gate_applies():
    one = certify(scores_for([0, 1, 1]), scores_for([0, 1, 0]), None, split="x", max_drop_points=0.0, engine="litert 1")
    assert (one.images, one.agreement) == (3, 2 / 3)
    assert (one.accuracy, one.reference_accuracy, one.drop_points, one.max_drop_points, one.paired) == (None,) * 5
    assert (one.changes.images, one.changes.per_class) == (1, ((2, 1), (1, 0)))
    require_within({"a": one})
    assert Certificate.from_json(one.to_json()) == one
    with pytest.raises(ModelError, match="accuracy"):
        Certificate.from_json({**one.to_json(), "drop_points": 0.5})


def test_the_golden_input_is_the_one_the_model_is_surest_of_and_the_first_of_equals():
    assert choose_golden_seed({0: [0.6, 0.3, 0.1], 1: [0.05, 0.9, 0.05], 2: [0.9, 0.05, 0.05]}) == 1


def test_scores_of_another_model_are_refused():
    kept = scores_for([0, 1, 0])
    require_same_model((kept[:2] + 0.001).tolist(), kept, Path("model.keras"))
    with pytest.raises(ModelError, match="changed after the training"):
        require_same_model((kept[:2] + 0.1).tolist(), kept, Path("model.keras"))
    with pytest.raises(ModelError, match="by nan"):
        require_same_model((kept[:2] + np.nan).tolist(), kept, Path("model.keras"))


@pytest.mark.parametrize(
    ("formats", "schemes", "options", "message"),
    [
        (["tflite", "torch"], ["fp32"], {}, "one of tflite, onnx, but torch"),
        (["onnx"], ["int4"], {}, "one of fp32, fp16, w8a32, w8a8, w8a16, but int4"),
        ([], ["fp32"], {}, "none was named"),
        (["onnx"], ["fp32"], {"threads": 0}, "threads must be at least 1"),
        (["onnx"], ["fp32"], {"calibration_images": 0}, "calibration_images must be at least 1"),
        (["onnx"], ["fp32"], {"max_drop": -1.0}, "max_drop"),
        (["onnx"], ["fp32"], {"max_drop": float("nan")}, "max_drop"),
        (["onnx"], ["w8a8"], {"calibration_method": "nearest"}, "one of random, stratified, k-center, extreme"),
        (["onnx"], ["w8a8"], {"estimator": "median"}, "one of min-max, .*but median"),
        (["onnx"], ["fp32"], {"estimator": "mse"}, "chosen for w8a8, .*with fp32"),
        (["onnx"], ["w8a8"], {"estimator": "mse", "recover": True}, "with --recover"),
    ],
)
def test_a_request_that_can_not_be_met_is_refused(formats, schemes, options, message):
    with pytest.raises(UsageError, match=message):
        request(formats=formats, schemes=schemes, **options)


def test_a_request_has_no_repetitions_and_one_order():
    asked = request(formats=["onnx", "tflite", "onnx"], schemes=["w8a8", "fp32"])
    assert (asked.formats, asked.schemes) == (("tflite", "onnx"), ("fp32", "w8a8"))
    assert asked.conversions == ("tflite-fp32", "onnx-fp32")
    assert request(formats=["onnx"], schemes=["w8a8"]).conversions == ("onnx-fp32",)
