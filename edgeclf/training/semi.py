"""Learning from images without labels: a weak view is given a label, and a strong view of the same image learns it.

FixMatch (Sohn et al. 2020, 2001.07685): the network labels an image that was varied as usual; where it is surer than a
threshold, that label is the target of the same image, varied strongly. With a teacher its scores are the targets of the
strong views instead, sure or not: their doubt is in them.

Keras operations and NumPy only, so that any Keras backend trains the same model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edgeclf.training.augment import Augmenter
from edgeclf.training.config import AugmentConfig, TrainConfig
from edgeclf.training.images import TrainingImages, Unlabelled
from edgeclf.training.loop import Batch, Batches, Rows, one_per_class

if TYPE_CHECKING:
    import keras

_DRAW = 2001
"""Keeps the choice of the unlabelled images apart from other draws with the same seed."""


class UnlabelledViews:
    """Adds unlabelled images to the steps of one phase.

    ``batches`` prepares them with the labelled ones, a function of (seed, epoch, step) alone; ``before_step`` gives
    them targets and weights, with the network as the step finds it.

    Args:
        images: the labelled ones.
        unlabelled: those that are added.
        config: whose ``augment`` makes the weak views.
        model: from the input of the trained part to the logits, compiled before the first step.
        lower: what the frozen blocks make of pixels (N, H, W, C).
    """

    def __init__(
        self,
        images: TrainingImages,
        unlabelled: Unlabelled,
        config: TrainConfig,
        *,
        model: keras.Model,
        lower: Callable[[NDArray[np.uint8]], NDArray[Any]],
    ) -> None:
        self._images, self._unlabelled, self._config = images, unlabelled, config
        self._model, self._lower = model, lower
        weak = dataclasses.replace(config.augment, mixup=0.0, cutmix=0.0)
        self._weak, self._strong = (
            Augmenter(one, shape=images.shape, classes=images.target_width, seed=config.seed)
            for one in (weak, _strong(weak, config))
        )
        # Label smoothing teaches the network to give even a certain label no more than this.
        smoothing = config.train.label_smoothing
        self._certain = 1 - smoothing + smoothing / images.classes
        self._seen, self._accepted = 0, 0

    def batches(self, labelled: Batches) -> Batches:
        """From the ``labelled`` inputs and targets of a step to those that ``before_step`` takes.

        The inputs are the labelled ones and the strong views, and without a teacher the weak views too; the targets are
        those of the labelled images and, with a teacher, of the strong views.
        """

        def batch(epoch: int, step: int, rows: Rows) -> tuple[NDArray[Any], NDArray[np.float32]]:
            inputs, targets = labelled(epoch, step, rows)
            key = (epoch, step)
            chosen = self._chosen(len(rows), key)
            pixels, soft = self._unlabelled.pixels[chosen], self._soft(chosen)
            strong, wanted = self._strong_views(pixels, soft, key)
            if self._unlabelled.soft is not None:
                return np.concatenate([inputs, self._lower(strong)]), np.concatenate([targets, wanted])
            weak, _ = self._weak(pixels, soft, key=key)
            return np.concatenate([inputs, self._lower(strong), self._lower(weak)]), targets

        return batch

    def before_step(self, batch: Batch) -> Batch:
        """The images of a step with their targets, and weights that make the loss that of the paper.

        Keras divides the sum of the weighted losses by the number of all images: the labelled ones are to have a mean
        of their own, and the unlabelled ones another, over those that were not accepted too.
        """
        inputs, targets, weights = batch
        ratio, taught = self._config.semi.ratio, self._unlabelled.soft is not None
        labelled = len(inputs) // (1 + ratio if taught else 1 + 2 * ratio)
        end = labelled * (1 + ratio)
        accepted = np.ones(end - labelled, np.float32)
        if not taught:
            pseudo, accepted = self._pseudo_labels(inputs[end:])
            inputs, targets = inputs[:end], np.concatenate([targets, pseudo])
        own = np.ones(labelled, np.float32) if weights is None else weights
        self._seen += len(accepted)
        self._accepted += int(accepted.sum())
        both = np.concatenate([own, self._config.semi.weight / ratio * accepted])
        return inputs, targets, ((1 + ratio) * both).astype(np.float32)

    def accepted(self) -> float:
        """Share of the unlabelled images that were learnt from since the last call."""
        share = self._accepted / max(1, self._seen)
        self._seen, self._accepted = 0, 0
        return share

    def _strong_views(
        self, pixels: NDArray[np.uint8], soft: NDArray[np.float32], key: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Strong views and their targets, in as many groups as there are such images to a labelled one.

        RandAugment does the same two operations to a batch; one such batch would move the statistics of a normalization
        as no camera does.
        """
        groups = zip(*(np.array_split(array, self._config.semi.ratio) for array in (pixels, soft)), strict=True)
        views = [self._strong(*group, key=(*key, number)) for number, group in enumerate(groups)]
        strong, wanted = (np.concatenate(arrays) for arrays in zip(*views, strict=True))
        return strong, wanted

    def _chosen(self, labelled: int, key: tuple[int, int]) -> Rows:
        """Which unlabelled images a step shows: others at every step, each once in it where there are enough."""
        rows, count = self._unlabelled.rows, self._config.semi.ratio * labelled
        draw = np.random.default_rng((self._config.seed, _DRAW, *key))
        return np.sort(draw.choice(rows, count, replace=count > len(rows)))

    def _soft(self, chosen: Rows) -> NDArray[np.float32]:
        """Targets (len(chosen), 2 × classes), zero without a teacher."""
        width = (len(chosen), self._images.classes)
        right = np.zeros(width, np.float32) if self._unlabelled.soft is None else self._unlabelled.soft[chosen]
        return np.concatenate([np.zeros(width, np.float32), right], axis=1)

    def _pseudo_labels(self, weak: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Targets of as many images, (M, 2 × classes), and 1 for those that the network is sure of, 0 for others."""
        scores = softmax(one_per_class(np.asarray(self._model.predict_on_batch(weak), np.float32)), axis=1)
        labels = np.eye(self._images.classes, dtype=np.float32)[scores.argmax(axis=1)]
        accepted = scores.max(axis=1) >= self._config.semi.threshold * self._certain
        return np.concatenate([np.zeros_like(labels), labels], axis=1), accepted.astype(np.float32)


def _strong(weak: AugmentConfig, config: TrainConfig) -> AugmentConfig:
    semi = config.semi
    return dataclasses.replace(
        weak, rand_augment=max(weak.rand_augment, semi.rand_augment), erasing=max(weak.erasing, semi.erasing)
    )
