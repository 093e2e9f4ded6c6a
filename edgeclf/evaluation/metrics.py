"""Classification figures from a confusion matrix, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count images by (true class, predicted class): int64 (classes, classes)."""
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def classification_metrics(
    true: NDArray[np.int64], scores: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, Any]:
    """Return accuracy, precision, recall and F1 (macro and per class) and the confusion matrix (rows: true class).

    The accuracy comes with Wilson's 95 % interval (1927).

    A class that is never predicted has precision 0; one without images has recall 0.

    ``true`` is (N,) class indices, ``scores`` is (N, classes).
    """
    from scipy.stats import binomtest

    matrix = confusion_matrix(true, scores.argmax(axis=1).astype(np.int64), len(labels))
    hits = matrix.diagonal().astype(np.float64)
    precision = hits / np.maximum(matrix.sum(axis=0), 1)
    recall = hits / np.maximum(matrix.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    interval = binomtest(int(hits.sum()), int(matrix.sum())).proportion_ci(0.95, method="wilson")
    per_class = {
        label: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "images": int(matrix[index].sum()),
        }
        for index, label in enumerate(labels)
    }
    return {
        "images": int(matrix.sum()),
        "accuracy": float(hits.sum() / max(matrix.sum(), 1)),
        "accuracy_interval_95": [float(interval.low), float(interval.high)],
        "precision_macro": float(precision.mean()),
        "recall_macro": float(recall.mean()),
        "f1_macro": float(f1.mean()),
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }
