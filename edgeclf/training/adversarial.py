"""Adversarial training: some images of every batch are changed to what deceives the network most at that moment.

With projected gradient descent (Madry et al. 2017, 1706.06083), or with one step of the fast gradient sign method from
a random start (Wong et al. 2020, 2001.03994), which without that start would teach to resist that one step alone. The
network is trained on whole values, uint8: what a camera could give, and all that its input takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeclf.evaluation.attacks import Attack, attacked, in_float, input_gradient, pgd, rounded
from edgeclf.training.config import AdversarialConfig, TrainConfig
from edgeclf.training.loop import Batch

if TYPE_CHECKING:
    import keras

_FGSM_STEP = 1.25
"""Of epsilon: from a random start, the step of 2001.03994."""
_PGD_REACH = 2.5
"""Of epsilon: how far all steps together reach (1706.06083)."""


def hardening(model: keras.Model, config: TrainConfig) -> Callable[[Batch], Batch]:
    """A function that replaces ``adversarial.share`` of a batch's images by adversarial ones, for ``Course``.

    ``model`` goes from the image to the logits and is compiled by the time that the function is called. Which images,
    and their random start, follow from the seed and the number of the step.
    """
    attack, share = _attack(config.adversarial), config.adversarial.share
    gradient = input_gradient(in_float(model))

    def harden(batch: Batch) -> Batch:
        images, targets, weights = batch
        draw = np.random.default_rng((config.seed, int(model.optimizer.iterations.numpy())))
        # A batch lies in the order of the disk, class after class.
        rows = draw.permutation(len(images))[: max(1, round(share * len(images)))]
        changed = images.copy()
        # Where models teach beside the labels, a target is the sum of its two parts.
        whole = np.add(*np.split(targets, 2, axis=1)) if config.two_part_targets else targets
        changed[rows] = rounded(attacked(gradient, images[rows], whole[rows], attack, draw))
        return changed, targets, weights

    return harden


def _attack(config: AdversarialConfig) -> Attack:
    if config.method == "fgsm":
        step = config.step_size or _FGSM_STEP * config.epsilon
        return Attack(epsilon=config.epsilon, step=step, random_start=True)
    return pgd(config.epsilon, steps=config.steps, step=config.step_size or _PGD_REACH * config.epsilon / config.steps)
