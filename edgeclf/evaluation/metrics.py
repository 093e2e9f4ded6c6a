"""Classification figures from scores; NumPy, SciPy and scikit-learn do the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.confidence import expected_calibration_error
from edgeclf_device.errors import ModelError

TOP_K = 5


def confusion_matrix(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count images by (true class, predicted class): int64 (classes, classes)."""
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def classification_metrics(
    true: NDArray[np.int64], scores: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, Any]:
    """Return how good ``scores`` are, as JSON can hold it: no NaN, None where a figure has no meaning.

    Accuracy with Wilson's 95 % interval (1927), accuracy of the best five labels (None up to five classes), precision,
    recall, F1, area under the ROC curve and average precision (macro and per class, one class against the rest), log
    loss in nats, expected calibration error (``confidence.expected_calibration_error``) and the confusion matrix (rows:
    true class).

    A class that is never predicted has precision 0; one without images has recall 0. Where the images are all or none
    of a class, its ROC and its average precision are None and left out of the macro means.

    ``true`` is (N,) class indices, N at least 1; ``scores`` is (N, classes).

    Raises:
        ModelError: a score is NaN or infinite.
    """
    require_finite(scores)
    matrix = confusion_matrix(true, scores.argmax(axis=1).astype(np.int64), len(labels))
    per_class = _per_class(matrix, true, scores, labels)
    return {
        **accuracy_of(int(matrix.trace()), int(matrix.sum())),
        "top5_accuracy": _top_accuracy(true, scores) if len(labels) > TOP_K else None,
        **{
            f"{figure}_macro": _mean([row[figure] for row in per_class.values()])
            for figure in ("precision", "recall", "f1", "roc_auc", "average_precision")
        },
        "log_loss": _log_loss(true, scores),
        "ece": expected_calibration_error(true, scores),
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }


def require_finite(scores: NDArray[np.float32]) -> None:
    """Check scores, (N, classes).

    Raises:
        ModelError: one is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise ModelError(
            "The model answers NaN or infinity: its training diverged; train again with a lower learning rate."
        )


def accuracy_of(right: int, images: int) -> dict[str, Any]:
    """The share of ``images`` that are ``right``, with Wilson's 95 % interval (1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    return {
        "images": images,
        "accuracy": right / images,
        "accuracy_interval_95": [float(interval.low), float(interval.high)],
    }


def _per_class(
    matrix: NDArray[np.int64], true: NDArray[np.int64], scores: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits = matrix.diagonal().astype(np.float64)
    precision = hits / np.maximum(matrix.sum(axis=0), 1)
    recall = hits / np.maximum(matrix.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    rows = {}
    for index, label in enumerate(labels):
        of_class, images = true == index, int(matrix[index].sum())
        ranked = 0 < images < len(true)
        rows[label] = {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "roc_auc": float(roc_auc_score(of_class, scores[:, index])) if ranked else None,
            "average_precision": float(average_precision_score(of_class, scores[:, index])) if ranked else None,
            "images": images,
        }
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _top_accuracy(true: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    from sklearn.metrics import top_k_accuracy_score

    return float(top_k_accuracy_score(true, scores, k=TOP_K, labels=np.arange(scores.shape[1])))


def _log_loss(true: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    """Mean of -ln(score of the true class), the score being at least 1.2e-7.

    Not scikit-learn's, which wants rows that sum to 1: those of an 8-bit artifact nearly do.
    """
    of_true = scores[np.arange(len(true)), true].astype(np.float64)
    return float(-np.log(np.clip(of_true, np.finfo(np.float32).eps, 1)).mean())
