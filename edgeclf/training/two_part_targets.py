"""Loss and accuracy for targets of two parts: on the left what a label says, on the right what a model says.

A target is float32 (N, 2 × classes) and sums to 1: the shares of the two sources are in it. Where one part is zero, the
other source alone speaks. Imports Keras: for the functions that train.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_TINY = 1e-12
"""Stands for 0 where a logarithm or a quotient is taken."""


class TwoPartLoss(keras.losses.Loss):  # type: ignore[misc]  # untyped
    """Cross-entropy with the left part of the target, and divergence from the right one at a temperature.

    The right part is of Hinton, Vinyals and Dean (1503.02531): the target, softened by the temperature already, against
    the student's logits divided by it, times its square, so that the gradient stays as large as that of the left part.
    Their divergence is 0 where they agree, and differs from the cross-entropy by what no weight can change. With
    temperature 1 and a pseudo-label it is the cross-entropy.

    Not the backend's own cross-entropy, whose gradient is right only for targets that sum to 1.

    Args:
        label_smoothing: of the left part alone.
        temperature: of the right part.
    """

    def __init__(self, *, label_smoothing: float, temperature: float) -> None:
        super().__init__(name="two_part_loss")
        self._label_smoothing, self._temperature = label_smoothing, temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """(N,) from targets (N, 2 × classes) and logits (N, classes), or (N, 1) of a sigmoid head."""
        logits = _one_per_class(y_pred)
        hard, soft = ops.split(y_true, 2, axis=-1)
        even = ops.sum(hard, axis=-1, keepdims=True) / hard.shape[-1]
        hard = (1 - self._label_smoothing) * hard + self._label_smoothing * even
        of_labels = ops.sum(hard * ops.log_softmax(logits), axis=-1)
        share = ops.maximum(ops.sum(soft, axis=-1, keepdims=True), _TINY)
        wanted = ops.log(ops.maximum(soft / share, _TINY))
        divergence = ops.sum(soft * (wanted - ops.log_softmax(logits / self._temperature)), axis=-1)
        return self._temperature**2 * divergence - of_labels


class LabelledAccuracy(keras.metrics.Mean):  # type: ignore[misc]  # untyped
    """Share of the labelled images whose label is found; without a label the left part of a target is zero."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Count a batch; ``sample_weight`` is not heeded, as in the accuracy of plain targets."""
        del sample_weight
        hard, _ = ops.split(y_true, 2, axis=-1)
        found = ops.equal(ops.argmax(hard, axis=-1), ops.argmax(_one_per_class(y_pred), axis=-1))
        return super().update_state(found, ops.sum(hard, axis=-1) > 0)


def _one_per_class(logits: Any) -> Any:
    """One logit z stands for the two (0, z)."""
    return ops.concatenate([ops.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits
