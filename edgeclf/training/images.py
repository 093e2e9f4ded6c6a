"""The images of one training, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """Which images train and which validate.

    Attributes:
        pixels: uint8 (N, H, W, C), of all images, normally mapped from disk.
        labels: int64 (N,), class indices.
        weights: float32 (N,), of each image in the loss.
        train, val: int64, indices into the N.
        classes: number of labels.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    def one_hot(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 (len(indices), classes)."""
        return np.eye(self.classes, dtype=np.float32)[self.labels[indices]]

    def class_shares(self) -> NDArray[np.float64]:
        """Each class's share of the training images, (classes,)."""
        counts = np.bincount(self.labels[self.train], minlength=self.classes)
        return np.asarray(counts / counts.sum(), np.float64)
