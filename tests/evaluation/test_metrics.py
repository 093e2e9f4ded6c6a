"""Metrics against scikit-learn's, on random predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from edgeclf.evaluation.metrics import classification_metrics


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6), images=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_the_figures_are_scikit_learns(seed, classes, images):
    draw = np.random.default_rng(seed)
    true = draw.integers(0, classes, images)
    scores = draw.random((images, classes), dtype=np.float32)
    predicted, labels = scores.argmax(axis=1), [f"ü{number}" for number in range(classes)]
    found = classification_metrics(true, scores, labels)
    options = {"labels": range(classes), "average": "macro", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert found["precision_macro"] == pytest.approx(precision_score(true, predicted, **options))
    assert found["recall_macro"] == pytest.approx(recall_score(true, predicted, **options))
    assert found["f1_macro"] == pytest.approx(f1_score(true, predicted, **options))
    assert found["confusion_matrix"] == confusion_matrix(true, predicted, labels=range(classes)).tolist()
    low, high = found["accuracy_interval_95"]
    assert 0 <= low <= found["accuracy"] + 1e-12
    assert found["accuracy"] - 1e-12 <= high <= 1
