"""Adversarial images: each value of a pixel changed a little, so that the network's loss rises most.

The fast gradient sign method (Goodfellow et al. 2014, 1412.6572) and projected gradient descent (Madry et al. 2017,
1706.06083), within ``epsilon`` of each value. The one implementation of what a training is hardened with and of what an
evaluation attacks with, in units of pixels as they are: 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import DependencyError, ModelError

if TYPE_CHECKING:
    import keras

Images = NDArray[np.uint8]
Moved = NDArray[np.float32]
Targets = NDArray[np.float32]

Gradient = Callable[[Moved, Targets], Moved]
"""From images (N, H, W, C) of 0 to 255 and targets (N, classes) to the gradient of the loss at the images' values."""

_LOSS_SCALE = 1024.0
"""Of the loss: float16 would lose small gradients, and only their signs are looked at."""


_WIDEST_SPREAD = 20.0
"""Of an image's logits; wider ones are scaled down to it. A network that is surer than that has a gradient too small to
be held, and would look as if nothing could deceive it (Athalye et al. 2018, 1802.00420)."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What may be done to an image.

    Attributes:
        epsilon: largest change of a value; whole, so that rounding an attacked image to uint8 keeps to it.
        step: change of a value in one step.
        steps: how many.
        random_start: begin anywhere within ``epsilon``, not at the image itself.
    """

    epsilon: int
    step: float
    steps: int = 1
    random_start: bool = False


def fgsm(epsilon: int) -> Attack:
    """The fast gradient sign method: one step from the image to the edge of what is allowed (1412.6572)."""
    return Attack(epsilon=epsilon, step=epsilon)


def pgd(epsilon: int, *, steps: int = 20, step: float = 0.0) -> Attack:
    """Projected gradient descent from a random start (1706.06083); ``step`` 0: a quarter of ``epsilon``."""
    return Attack(epsilon=epsilon, step=step or epsilon / 4, steps=steps, random_start=True)


def attacked(gradient: Gradient, images: Images, targets: Targets, attack: Attack, draw: np.random.Generator) -> Moved:
    """Return adversarial ``images``, float32 (N, H, W, C), within 0 to 255 and ``attack.epsilon`` of each value.

    Args:
        gradient: of the network to deceive; see ``input_gradient``.
        images: uint8 (N, H, W, C), prepared.
        targets: float32 (N, classes), which the network is to be led away from.
        attack: how.
        draw: the random start is drawn from it.
    """
    plain = images.astype(np.float32)
    low, high = np.maximum(plain - attack.epsilon, 0), np.minimum(plain + attack.epsilon, 255)
    moved: Moved = low + (high - low) * draw.random(plain.shape, np.float32) if attack.random_start else plain
    for _ in range(attack.steps):
        moved = np.clip(moved + np.float32(attack.step) * np.sign(gradient(moved, targets)), low, high)
    return moved


def rounded(moved: Moved) -> Images:
    """``moved`` as a camera could give it: the nearest whole values, uint8, which are as near to the plain image."""
    whole: Images = np.rint(moved).astype(np.uint8)
    return whole


def in_float(network: keras.Model) -> keras.Model:
    """``network``, from a uint8 image, as one from a float32 image: the same layers, called once more.

    An attack goes through values between the whole ones, and a uint8 input has no gradient.
    """
    import keras

    image = keras.Input(network.input.shape[1:], dtype="float32")
    return keras.models.clone_model(network, input_tensors=image, clone_function=lambda layer: layer)


def input_gradient(network: keras.Model) -> Gradient:
    """A function that gives the gradient of the summed cross-entropy at the image, with the weights of the moment.

    The layers compute as in inference: dropout is off and no statistics move.

    Args:
        network: from a float32 image of 0 to 255 to logits, one a class or one alone; see ``in_float``.

    Raises:
        DependencyError: gradients of this Keras backend are not known here.
        ModelError: (by the function) no gradient reaches the image.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_gradient(network)
    if backend == "jax":
        return _jax_gradient(network)
    raise DependencyError(
        f"Attacks need Keras on TensorFlow or JAX, but it runs on {backend}; set KERAS_BACKEND=tensorflow."
    )


def _loss(logits: Any, targets: Any) -> Any:
    from keras import ops

    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:  # one logit z stands for the two (0, z)
        logits = ops.concatenate([ops.zeros_like(logits), logits], axis=1)
    spread = ops.max(logits, axis=1, keepdims=True) - ops.min(logits, axis=1, keepdims=True)
    logits = logits / ops.stop_gradient(ops.maximum(spread / _WIDEST_SPREAD, 1.0))
    return _LOSS_SCALE * ops.sum(ops.categorical_crossentropy(targets, logits, from_logits=True))


def _tensorflow_gradient(network: keras.Model) -> Gradient:
    import tensorflow as tf

    shape = network.input.shape[1:]
    signature = [tf.TensorSpec((None, *shape), tf.float32), tf.TensorSpec((None, None), tf.float32)]

    # As for the training, XLA would make convolutions slower on a CPU.
    @tf.function(input_signature=signature, autograph=False, jit_compile=False)  # type: ignore[untyped-decorator]
    def gradient(images: Any, targets: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = _loss(network(images, training=False), targets)
        found = tape.gradient(loss, images)
        if found is None:
            raise ModelError(
                f"Attacks follow the gradient at the image, but none reaches it in the network {network.name!r}; "
                "build it of operations that have one."
            )
        return found

    return lambda images, targets: np.asarray(gradient(images, targets))


def _jax_gradient(network: keras.Model) -> Gradient:
    import jax

    def loss(images: Any, targets: Any, trainable: Any, others: Any) -> Any:
        logits, _ = network.stateless_call(trainable, others, images, training=False)
        return _loss(logits, targets)

    compiled = jax.jit(jax.grad(loss))

    def gradient(images: Moved, targets: Targets) -> Moved:
        # As arguments: what a compiled function finds outside, it keeps for ever.
        state = [[one.value for one in part] for part in (network.trainable_variables, network.non_trainable_variables)]
        return np.asarray(compiled(images, targets, *state))

    return gradient
