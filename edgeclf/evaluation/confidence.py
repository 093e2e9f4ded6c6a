"""What the validation images teach about the scores: how far to trust them, and from which score to believe a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURES = (0.05, 20.0)
BINS = 15
MIN_ACCEPTED = 20
"""Accepted images below which no threshold is given: a handful that are right promises nothing."""

Scores = NDArray[np.float32]
Indices = NDArray[np.int64]


def fit_temperature(logits: NDArray[Any], true: Indices) -> float:
    """Return the T from 0.05 to 20 for which softmax(logits / T) says best how often the model is right.

    Temperature scaling (Guo et al. 2017, 1706.04599): T minimizes the negative log likelihood, on images that the
    weights were not fitted to. The labels are those of Platt (1999): of N images the share 1/(N + 2) is taken to
    be of any other class. Where every image is right the plain likelihood would drive T to 0 and each score to 1.

    Args:
        logits: float (N, classes), N at least 1; or (N, 1), the one logit of a sigmoid head. The logarithms of scores
            do as well, because softmax forgets what is added to a row.
        true: (N,) class indices.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.asarray(logits, np.float64)
    if rows.shape[1] == 1:
        rows = np.concatenate([np.zeros_like(rows), rows], axis=1)
    images, classes = rows.shape
    targets = np.full((images, classes), 1 / (images + 2) / (classes - 1))
    targets[np.arange(images), true] = 1 - 1 / (images + 2)

    def loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(rows / np.exp(log_temperature), axis=1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def uncalibrated(scores: Scores, temperature: float) -> Scores:
    """Return what ``scores`` were before their logits were divided by ``temperature``: float32 (N, classes).

    They are softmax(T · ln scores); so are the two scores of a sigmoid head, which sum to 1.
    """
    from scipy.special import softmax

    logits = np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float64).tiny))
    return np.asarray(softmax(temperature * logits, axis=1), np.float32)


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """The images in bins of equal width by their highest score; each array is (bins,), NaN where a bin is empty.

    Attributes:
        images: how many, int64.
        confidence: their mean highest score.
        accuracy: share of them that is right.
    """

    images: Indices
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(true: Indices, scores: Scores, bins: int = BINS) -> Reliability:
    """Compare confidence with accuracy, bin by bin: ``true`` is (N,), ``scores`` (N, classes)."""
    confidence = np.clip(scores.max(axis=1).astype(np.float64), 0, 1)
    right = scores.argmax(axis=1) == true
    # A score on the border of two bins belongs to the lower one, as in Guo et al.
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    filled = np.where(images == 0, np.nan, images)
    return Reliability(
        images=images,
        confidence=np.bincount(place, confidence, minlength=bins) / filled,
        accuracy=np.bincount(place, right, minlength=bins) / filled,
    )


def expected_calibration_error(true: Indices, scores: Scores, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over ``bins`` bins, 0 to 1 (Naeini et al. 2015).

    Args:
        true: (N,) class indices, N at least 1.
        scores: (N, classes).
        bins: how many, of equal width.
    """
    found = reliability(true, scores, bins)
    gaps = np.abs(found.accuracy - found.confidence)
    return float(np.nansum(found.images * gaps) / found.images.sum())


def selective_accuracy(true: Indices, scores: Scores) -> tuple[NDArray[np.float64], Indices, Indices]:
    """What happens to coverage and accuracy while the threshold falls (El-Yaniv and Wiener 2010).

    Returns:
        the highest scores that occur, falling, (M,); for each how many images have at least it, (M,); and how many of
        those are right, (M,).
    """
    confidence = np.minimum(scores.max(axis=1), 1)  # softmax may round to more
    order = np.argsort(-confidence, kind="stable")
    falling, right = confidence[order], np.cumsum(scores.argmax(axis=1)[order] == true[order])
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of equal scores
    return falling[last].astype(np.float64), last + 1, right[last]


def reject_threshold(true: Indices, scores: Scores, accept_accuracy: float) -> dict[str, Any] | None:
    """Return the lowest score from which upwards at least ``accept_accuracy`` of the labels are right.

    Luck with few images is guarded against twice: at least 20 images must be accepted, and the share must hold even if
    one more accepted image were wrong. So 0.95 asks for 20 right ones and no error, for 38 and one, and so on; 0.99 for
    99; and 1 is what no number of images can promise.

    Args:
        true: (N,) class indices, of images that the model was not fitted to.
        scores: (N, classes).
        accept_accuracy: 0 to 1; 0 asks for no threshold.

    Returns:
        ``threshold``; ``images``; ``accepted``, how many of them; ``coverage``, their share; ``accuracy`` of the
        accepted ones. None where no score is high enough.
    """
    falling, accepted_images, right = selective_accuracy(true, scores)
    kept = (right >= accept_accuracy * (accepted_images + 1) - 1e-9) & (accepted_images >= MIN_ACCEPTED)
    if accept_accuracy == 0 or not kept.any():
        return None
    threshold = float(falling[np.flatnonzero(kept)[-1]])
    return {"threshold": threshold, **accepted(true, scores, threshold)}


def accepted(true: Indices, scores: Scores, threshold: float) -> dict[str, Any]:
    """How many images a threshold accepts and how many of those are right; ``accuracy`` is None where it accepts none.

    ``true`` is (N,) class indices, N at least 1; ``scores`` is (N, classes).
    """
    kept = scores.max(axis=1) >= threshold
    count, right = int(kept.sum()), int((kept & (scores.argmax(axis=1) == true)).sum())
    return {
        "images": len(true),
        "accepted": count,
        "coverage": count / len(true),
        "accuracy": right / count if count else None,
    }


def reject_below(metrics: Mapping[str, Any]) -> float | None:
    """Return the threshold that a run's metrics.json keeps, or None where its training found none."""
    reject = (metrics.get("confidence") or {}).get("reject")
    return None if reject is None else float(reject["threshold"])
