"""Metrics against scikit-learn's and against counting, on random predictions."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score

from edgeclf.evaluation.metrics import classification_metrics
from edgeclf_device import ModelError


def drawn(seed, classes, images):
    """True classes and scores of which many are equal, as those of an 8-bit artifact are."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(1, 8, (images, classes)).astype(np.float32)
    return draw.integers(0, classes, images), scores / scores.sum(axis=1, keepdims=True)


def names(classes):
    return [f"ü{number}" for number in range(classes)]


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6), images=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_the_figures_are_scikit_learns(seed, classes, images):
    true, scores = drawn(seed, classes, images)
    predicted, exact = scores.argmax(axis=1), scores.astype(np.float64)
    found = classification_metrics(true, scores, names(classes))
    options = {"labels": range(classes), "average": "macro", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert found["precision_macro"] == pytest.approx(precision_score(true, predicted, **options))
    assert found["recall_macro"] == pytest.approx(recall_score(true, predicted, **options))
    assert found["f1_macro"] == pytest.approx(f1_score(true, predicted, **options))
    shares = exact / exact.sum(axis=1, keepdims=True)
    assert found["log_loss"] == pytest.approx(log_loss(true, shares, labels=range(classes)), 1e-5)
    assert found["confusion_matrix"] == confusion_matrix(true, predicted, labels=range(classes)).tolist()
    low, high = found["accuracy_interval_95"]
    assert 0 <= low <= found["accuracy"] + 1e-12
    assert found["accuracy"] - 1e-12 <= high <= 1


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5), images=st.integers(2, 50))
@settings(max_examples=40, deadline=None)
def test_the_area_under_the_roc_curve_is_the_share_of_pairs_in_the_right_order(seed, classes, images):
    true, scores = drawn(seed, classes, images)
    found = classification_metrics(true, scores, names(classes))
    areas = []
    for index, label in enumerate(names(classes)):
        of_class, others = scores[true == index, index], scores[true != index, index]
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in of_class for b in others]
        if pairs:
            areas.append(np.mean(pairs))
            assert found["per_class"][label]["roc_auc"] == pytest.approx(areas[-1])
        else:
            assert found["per_class"][label]["roc_auc"] is None
    assert found["roc_auc_macro"] == (pytest.approx(np.mean(areas)) if areas else None)


def test_average_precision_is_the_mean_precision_at_each_image_of_the_class():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32)
    found = classification_metrics(np.array([0, 1, 0, 1]), scores, ["a", "b"])
    assert found["per_class"]["a"]["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["per_class"]["b"]["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["average_precision_macro"] == pytest.approx(5 / 6)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 9), images=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_the_best_five_labels_are_counted_where_there_are_more_than_five(seed, classes, images):
    true = np.random.default_rng(seed).integers(0, classes, images)
    scores = np.random.default_rng(seed + 1).random((images, classes), dtype=np.float32)
    found = classification_metrics(true, scores, names(classes))["top5_accuracy"]
    if classes <= 5:
        assert found is None
    else:
        assert found == pytest.approx(np.mean([t in np.argsort(row)[-5:] for t, row in zip(true, scores, strict=True)]))


@pytest.mark.parametrize("true", [[0, 0, 1], [0, 0, 0]])
def test_a_class_without_images_is_null_without_a_warning(true):
    scores = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.7, 0.2]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(np.array(true), scores, ["a", "b", "c"])
    row = found["per_class"]["c"]
    assert (row["roc_auc"], row["average_precision"], row["recall"], row["images"]) == (None, None, 0, 0)
    assert (found["roc_auc_macro"] is None) == (sum(true) == 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_score_of_nothing_costs_a_finite_loss():
    found = classification_metrics(np.array([0, 1]), np.array([[0, 1], [0, 1]], np.float32), ["a", "b"])
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps) / 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong):
    with pytest.raises(ModelError, match="NaN or infinity"):
        classification_metrics(np.array([0]), np.array([[wrong, 0.5]], np.float32), ["a", "b"])
