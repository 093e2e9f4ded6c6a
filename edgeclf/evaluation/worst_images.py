"""The worst that attacks find within ``epsilon`` of each image, in float and rounded to what a camera could give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.evaluation.attacks import Attack, Images, Moved, attacked, fgsm, in_float, input_gradient, pgd, rounded
from edgeclf.models.graph import producer
from edgeclf_device.progress import Progress, no_progress

if TYPE_CHECKING:
    import keras

PGD_STEPS, PGD_RESTARTS = 20, 2
_BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Worst:
    """What became of N images.

    Attributes:
        images: uint8 (N, H, W, C): where one was found, an image that deceives the network, otherwise the last tried.
        deceived: bool (N,), whether it does.
        deceived_in_float: bool (N,), whether any image does, rounded or not.
    """

    images: Images
    deceived: NDArray[np.bool_]
    deceived_in_float: NDArray[np.bool_]


def worst_images(
    network: keras.Model,
    images: Images,
    true: NDArray[np.int64],
    *,
    classes: int,
    epsilons: Sequence[int],
    seed: int,
    progress: Progress = no_progress,
) -> Iterator[tuple[str, Worst]]:
    """Attack ``images`` and yield (``fgsm`` or ``pgd``, what was found) for each epsilon.

    PGD is of ``PGD_STEPS`` steps of a quarter of epsilon, from ``PGD_RESTARTS`` random starts. An image that the
    network is wrong about as it is needs no attack, and one that a smaller epsilon deceives with no larger one.

    Args:
        network: a Keras classifier from uint8 images to scores.
        images: uint8 (N, H, W, C), prepared.
        true: (N,) class indices.
        classes: how many.
        epsilons: rising; from 1 to 255.
        seed: of the random starts.
        progress: shows the batches.

    Raises:
        DependencyError, ModelError: see ``edgeclf.evaluation.attacks.input_gradient``.
    """
    search = _Search(network, images, true, classes=classes, seed=seed)
    plain = search.plain()
    found = plain
    for epsilon in epsilons:
        yield "fgsm", search.go(plain, fgsm(epsilon), progress)
        for restart in range(PGD_RESTARTS):
            found = search.go(found, pgd(epsilon, steps=PGD_STEPS), progress, restart=restart)
        yield "pgd", found


class _Search:
    """Attacks those images that the network still labels rightly."""

    def __init__(
        self, network: keras.Model, images: Images, true: NDArray[np.int64], *, classes: int, seed: int
    ) -> None:
        from edgeclf.training.backend import compile_options

        self._network = in_float(to_logits(network))
        self._network.compile(**compile_options())
        self._gradient = input_gradient(self._network)
        self._images, self._true, self._seed = images, true, seed
        self._targets = np.eye(classes, dtype=np.float32)[true]

    def plain(self) -> Worst:
        """The images as they are."""
        wrong = [
            self._wrong(self._images[rows].astype(np.float32), rows) for rows in _batches(np.arange(len(self._true)))
        ]
        deceived = np.concatenate(wrong)
        return Worst(images=self._images, deceived=deceived, deceived_in_float=deceived)

    def go(self, found: Worst, attack: Attack, progress: Progress, *, restart: int = 0) -> Worst:
        """``found``, and what ``attack`` finds where it is not yet all that can be found."""
        standing = np.flatnonzero(~(found.deceived & found.deceived_in_float))
        batches = _batches(standing)
        name = f"Attacking {len(standing)} images by up to {attack.epsilon}"
        images, deceived, also_in_float = found.images.copy(), found.deceived.copy(), found.deceived_in_float.copy()
        draw = np.random.default_rng((self._seed, attack.epsilon, restart))
        for rows in progress(batches, name, len(batches)):
            moved = attacked(self._gradient, self._images[rows], self._targets[rows], attack, draw)
            whole = rounded(moved)
            now = self._wrong(whole.astype(np.float32), rows)
            also_in_float[rows] |= now | self._wrong(moved, rows)
            changed = rows[now | ~deceived[rows]]
            images[changed] = whole[now | ~deceived[rows]]
            deceived[rows] |= now
        return Worst(images=images, deceived=deceived, deceived_in_float=also_in_float)

    def _wrong(self, images: Moved, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        logits = np.asarray(self._network.predict_on_batch(images))
        given = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
        return np.asarray(given != self._true[rows])


def _batches(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH)]


def to_logits(network: keras.Model) -> keras.Model:
    """``network``, from its image to what its last softmax is of.

    A score of 1 has no gradient in float32, which would look like strength; so attacks begin before the softmax. Of a
    network that ends otherwise, the logarithms of the scores are taken.
    """
    import keras

    return keras.Model(network.input, _logits(network))


def _logits(network: keras.Model) -> Any:
    import keras

    scores = network.output
    last = producer(scores)
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax):
        return last.input
    if activation is keras.activations.softmax and isinstance(last, keras.layers.Activation):
        return last.input
    if activation is keras.activations.softmax:
        linear = type(last).from_config({**last.get_config(), "name": f"{last.name}_linear", "activation": "linear"})
        logits = linear(last.input)
        linear.set_weights(last.get_weights())
        return logits
    if "logits" in [layer.name for layer in network.layers]:  # of a sigmoid head
        return network.get_layer("logits").output
    return keras.ops.log(keras.ops.maximum(scores, 1e-30))
