"""Confidence: what was planted is found again, and a threshold keeps its promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from edgeclf.evaluation.confidence import (
    accepted,
    expected_calibration_error,
    fit_temperature,
    reject_threshold,
    reliability,
    uncalibrated,
)


def calibrated(seed, images, classes):
    """(logits, true): the classes are drawn with the very probabilities that softmax(logits) states."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (images, classes))
    true = (softmax(logits, axis=1).cumsum(axis=1) < draw.random((images, 1))).sum(axis=1)
    return logits, np.minimum(true, classes - 1)


def drawn(seed, images, classes, *, right):
    """(true, scores): a share of about ``right`` is right, the surer the likelier."""
    draw = np.random.default_rng(seed)
    scores = softmax(draw.normal(0, 2, (images, classes)), axis=1).astype(np.float32)
    hit = draw.random(images) < right * scores.max(axis=1) ** 0.2
    return np.where(hit, scores.argmax(axis=1), draw.integers(0, classes, images)), scores


@given(seed=st.integers(0, 1000), planted=st.floats(0.2, 5), classes=st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_a_planted_temperature_is_found_again(seed, planted, classes):
    logits, true = calibrated(seed, 4000, classes)
    assert fit_temperature(logits * planted, true) == pytest.approx(planted, rel=0.12)


def test_one_logit_or_logarithms_of_scores_give_the_temperature_of_two_logits():
    logits, true = calibrated(3, 500, 2)
    expected = fit_temperature(3 * logits, true)
    assert fit_temperature(3 * (logits[:, 1:] - logits[:, :1]), true) == pytest.approx(expected, rel=1e-4)
    assert fit_temperature(np.log(softmax(3 * logits, axis=1)), true) == pytest.approx(expected, rel=1e-4)


def test_a_temperature_does_not_make_a_model_certain_of_everything_where_no_image_is_wrong():
    true = np.arange(40) % 3
    logits = np.eye(3)[true] * 2.0
    found = softmax(logits / fit_temperature(logits, true), axis=1).max(axis=1)
    assert found == pytest.approx(41 / 42, abs=0.002)


def test_a_temperature_lowers_the_calibration_error_of_an_overconfident_model():
    logits, true = calibrated(1, 3000, 4)
    overconfident = softmax(3 * logits, axis=1)
    scaled = softmax(3 * logits / fit_temperature(3 * logits, true), axis=1)
    assert expected_calibration_error(true, overconfident) > 0.1
    assert expected_calibration_error(true, scaled) < 0.03


@given(seed=st.integers(0, 1000), temperature=st.floats(0.3, 4), classes=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_scores_without_their_temperature_are_those_from_before(seed, temperature, classes):
    logits = np.random.default_rng(seed).normal(0, 3, (20, classes))
    scores = softmax(logits / temperature, axis=1).astype(np.float32)
    assert uncalibrated(scores, temperature) == pytest.approx(softmax(logits, axis=1), abs=1e-4)


@given(seed=st.integers(0, 1000), images=st.integers(1, 80), classes=st.integers(2, 5), bins=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_the_calibration_error_is_bounded_and_never_less_than_in_one_bin(seed, images, classes, bins):
    true, scores = drawn(seed, images, classes, right=0.7)
    accuracy, confidence = (scores.argmax(axis=1) == true).mean(), scores.max(axis=1).mean(dtype=np.float64)
    found = expected_calibration_error(true, scores, bins)
    assert abs(accuracy - confidence) - 1e-9 <= found <= 1
    assert reliability(true, scores, bins).images.sum() == images
    assert expected_calibration_error(true, scores, 1) == pytest.approx(abs(accuracy - confidence), abs=1e-9)


def test_the_calibration_error_of_sure_models_is_their_share_of_errors():
    scores = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    assert expected_calibration_error(np.array([0, 1, 2, 3]), scores) == 0
    assert expected_calibration_error(np.array([0, 1, 2, 0]), scores) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([1, 2, 3, 0]), scores) == 1


@given(
    seed=st.integers(0, 1000),
    images=st.integers(1, 300),
    right=st.floats(0.3, 1),
    share=st.floats(0.5, 1, exclude_max=True),
    steps=st.sampled_from([0, 16, 256]),
)
@settings(max_examples=80, deadline=None)
def test_a_threshold_keeps_its_promise_and_is_the_lowest_that_does(seed, images, right, share, steps):
    true, scores = drawn(seed, images, 3, right=right)
    if steps:
        scores = np.rint(scores * steps).astype(np.float32) / np.float32(steps)
    found = reject_threshold(true, scores, share)

    def kept(threshold):
        figures = accepted(true, scores, threshold)
        wrong = figures["accepted"] - round((figures["accuracy"] or 0) * figures["accepted"])
        return figures["accepted"] >= 20 and figures["accepted"] - wrong >= share * (figures["accepted"] + 1)

    lower = np.unique(scores.max(axis=1))
    if found is None:
        assert not any(map(kept, lower))
    else:
        assert found == {"threshold": found["threshold"], **accepted(true, scores, found["threshold"])}
        assert found["accuracy"] >= share
        assert found["accepted"] >= 20
        assert 0 <= found["threshold"] <= 1
        assert not any(map(kept, lower[lower < found["threshold"]]))
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("images", "wrong", "share", "reached"),
    [
        (19, 0, 0.5, False),
        (20, 0, 0.5, True),
        (20, 0, 0.95, True),
        (20, 1, 0.95, False),
        (39, 1, 0.95, True),
        (98, 0, 0.99, False),
        (99, 0, 0.99, True),
        (5000, 0, 1.0, False),
        (5000, 0, 0.0, False),
    ],
)
def test_a_few_lucky_images_give_no_threshold(images, wrong, share, reached):
    true = np.zeros(images, np.int64)
    true[:wrong] = 1
    scores = np.tile(np.array([0.8, 0.2], np.float32), (images, 1))
    assert (reject_threshold(true, scores, share) is not None) is reached


def test_a_score_that_rounds_to_more_than_one_gives_a_threshold_of_one():
    scores = np.tile(np.array([np.nextafter(np.float32(1), np.float32(2)), 0]), (30, 1)).astype(np.float32)
    assert reject_threshold(np.zeros(30, np.int64), scores, 0.9)["threshold"] == 1


def test_a_threshold_that_accepts_nothing_has_no_accuracy():
    assert accepted(np.array([0]), np.array([[0.6, 0.4]], np.float32), 0.7) == {
        "images": 1,
        "accepted": 0,
        "coverage": 0,
        "accuracy": None,
    }


def test_the_threshold_of_a_run_is_none_where_it_was_not_found_or_not_looked_for():
    from edgeclf.evaluation.confidence import reject_below

    assert reject_below({"confidence": {"temperature": 1.1, "reject": {"threshold": 0.75}}}) == 0.75
    assert reject_below({"confidence": {"reject": None}}) is None
    assert reject_below({}) is None
