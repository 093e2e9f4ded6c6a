"""The images of one training, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """Images without labels that are learnt from too.

    Attributes:
        pixels: uint8 (M, H, W, C), normally mapped from disk.
        rows: int64, indices into the M.
        soft: float32 (M, classes), what a teacher says of each at its temperature; None where there is no teacher.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    soft: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """Which images train and which validate.

    With a teacher or unlabelled images targets are of two parts, (N, 2 × classes): on the left what a label says, on
    the right what a model says; ``edgeclf.training.two_part_targets`` has their loss.

    Attributes:
        pixels: uint8 (N, H, W, C), of all images, or (N, T, H, W, C), of all clips, normally mapped from disk.
        labels: int64 (N,), class indices.
        weights: float32 (N,), of each image in the loss.
        train, val: int64, indices into the N.
        classes: number of labels.
        unlabelled: images that are learnt from without labels.
        soft: float32 (N, classes), what a teacher says of each image at its temperature.
        share: of a labelled image's loss that is the teacher's.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    classes: int
    unlabelled: Unlabelled | None = None
    soft: NDArray[np.float32] | None = None
    share: float = 0.0

    @property
    def two_parts(self) -> bool:
        """Whether targets are of two parts."""
        return self.soft is not None or self.unlabelled is not None

    @property
    def target_width(self) -> int:
        """Width of the targets."""
        return 2 * self.classes if self.two_parts else self.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image, (T, H, W, C) of a clip."""
        return self.pixels.shape[1:]

    def one_hot(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 (len(indices), classes)."""
        return np.eye(self.classes, dtype=np.float32)[self.labels[indices]]

    def targets(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What is learnt from these images, float32 (len(indices), target_width)."""
        if self.soft is None:
            return self.judging_targets(indices)
        hard = self.one_hot(indices)
        return np.concatenate([(1 - self.share) * hard, self.share * self.soft[indices]], axis=1, dtype=np.float32)

    def judging_targets(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """What judges these images, their labels alone, float32 (len(indices), target_width)."""
        return np.pad(self.one_hot(indices), ((0, 0), (0, self.target_width - self.classes)))

    def class_shares(self) -> NDArray[np.float64]:
        """Each class's share of the training images, (classes,)."""
        counts = np.bincount(self.labels[self.train], minlength=self.classes)
        return np.asarray(counts / counts.sum(), np.float64)
