"""How unsure a row of scores is: pure functions, 0 for certain to 1 for a guess.

The three measures of uncertainty sampling: B. Settles, "Active Learning Literature Survey", Computer Sciences Technical
Report 1648, University of Wisconsin-Madison, 2009, section 3.1. With two classes they order frames alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.classifier import Result
from edgeclf_device.errors import UsageError

Scores = NDArray[np.float64]
"""float64 (classes,), of at least two classes that compete."""


def margin(scores: Scores) -> float:
    """1 less the lead of the highest score over the second: asks for frames between two classes."""
    second, first = np.partition(scores, -2)[-2:]
    return float(1 - (first - second))


def least_confidence(scores: Scores) -> float:
    """1 less the highest score: asks for frames that are like no class."""
    return float(1 - scores.max())


def entropy(scores: Scores) -> float:
    """Entropy of the scores, which it makes sum to 1, as a share of the highest possible: asks for frames like all."""
    shares = scores / scores.sum()
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / np.log(len(scores)))


MEASURES: dict[str, Callable[[Scores], float]] = {
    "margin": margin,
    "least-confidence": least_confidence,
    "entropy": entropy,
}


def uncertainty(result: Result, measure: str = "margin") -> float:
    """How unsure a classifier was of a frame, among the labels that it was allowed.

    Returns:
        0 to 1; 0 where one label alone was allowed, and where the scores are no numbers: they are no doubt but a fault.

    Raises:
        UsageError: ``measure`` is none of ``MEASURES``.
    """
    if measure not in MEASURES:
        raise UsageError(f"A measure of uncertainty must be one of {', '.join(MEASURES)}, but it is {measure!r}.")
    allowed: Any = slice(None) if result.reading.allowed is None else result.reading.allowed
    scores = result.scores[allowed].astype(np.float64)
    if len(scores) < 2 or not np.isfinite(scores).all() or scores.sum() <= 0:
        return 0.0
    return min(1.0, max(0.0, MEASURES[measure](scores)))
