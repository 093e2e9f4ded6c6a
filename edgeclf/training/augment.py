"""Variations of training images: drawn anew for every batch, after ``prepare``, and never exported.

In this order: geometry, tone and colour, RandAugment, faults of a camera, erasing, MixUp or CutMix. Keras varies whole
batches, OpenCV adds the faults to single images; what is switched off costs nothing. The frames of a clip vary alike:
for Keras they are the channels of one image, and what knows colours, which would see none there, is refused.

The Keras parts are compiled here, apart from the network: Keras' geometric layers declare ``supports_jit = False``, and
one of them inside a model makes JAX run every training step of the model operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeclf.training import augment_steps
from edgeclf.training.augment_steps import Step
from edgeclf.training.camera_faults import add_camera_faults
from edgeclf.training.config import AugmentConfig
from edgeclf_device.errors import UsageError

if TYPE_CHECKING:
    import keras

Images = NDArray[np.uint8]
Targets = NDArray[np.float32]

_COLOUR_KEYS = ("saturation", "hue", "white_balance")
_SINGLE_KEYS = ("rand_augment", "motion_blur", "noise", "jpeg", "low_light")


class Augmenter:
    """Varies batches of images: a function of (config, seed, key, images, targets) alone on each backend.

    Not of earlier calls, nor of the thread that calls. Compiled once (TensorFlow) or once per batch size (JAX).

    Args:
        config: what is varied, and how much.
        shape: of an image, (height, width, channels), or of a clip, (window, height, width, channels).
        classes: width of the targets.
        seed: from 0 to 2^32 - 1.

    Raises:
        UsageError: ``config`` changes colours of grey images, or does to clips what is done to single images alone.
    """

    def __init__(self, config: AugmentConfig, *, shape: tuple[int, ...], classes: int, seed: int) -> None:
        import keras

        require_colours(config, channels=shape[-1])
        if len(shape) == 4:
            require_alike(config)
            shape = (*shape[1:3], shape[0] * shape[3])
        height, width, channels = shape
        self._config, self._seed = config, seed
        generator = keras.random.SeedGenerator(0)

        def stage(*steps: Step) -> _Stage:
            return _Stage(steps, generator, shape=(height, width, channels), classes=classes)

        self._first = stage(
            *augment_steps.geometry(config, generator),
            *augment_steps.tone(config, generator),
            *augment_steps.rand_augment(config, generator, channels=channels),
        )
        erasing = augment_steps.erasing(config, generator)
        self._last = [stage(*erasing, mix) for mix in augment_steps.mixing(config, generator)] or [stage(*erasing)]

    def __call__(self, images: Images, targets: Targets, *, key: tuple[int, ...]) -> tuple[Images, Targets]:
        """Return variations of ``images``, uint8 (B, H, W, C), and their ``targets``, float32 (B, classes).

        Clips are (B, T, H, W, C).

        ``key`` chooses the variation: (epoch, step), say, whole numbers from 0. With MixUp and CutMix both on, it
        gives the batch one of them. Where nothing is switched on the arguments themselves come back.
        """
        if images.ndim == 5:
            varied, targets = self(_as_images(images), targets, key=key)
            return _as_clips(varied, frames=images.shape[1]), targets
        words = np.random.SeedSequence((self._seed, *key)).generate_state(5) >> 1  # 31 bits fit every backend's seeds
        images, targets = self._first(images, targets, words[:2])
        images = add_camera_faults(images, self._config, entropy=(self._seed, *key))
        return self._last[int(words[4]) % len(self._last)](images, targets, words[2:4])


def _as_images(clips: Images) -> Images:
    """(B, T, H, W, C) as images of T·C channels, (B, H, W, T·C)."""
    count, _, height, width, _ = clips.shape
    return clips.transpose(0, 2, 3, 1, 4).reshape(count, height, width, -1)


def _as_clips(images: Images, *, frames: int) -> Images:
    """Undo ``_as_images``."""
    count, height, width, _ = images.shape
    return np.ascontiguousarray(images.reshape(count, height, width, frames, -1).transpose(0, 3, 1, 2, 4))


def filmstrips(clips: Images) -> Images:
    """The frames of each clip (N, T, H, W, C) side by side: (N, H, T·W, C)."""
    count, frames, height, width, channels = clips.shape
    return clips.transpose(0, 2, 1, 3, 4).reshape(count, height, frames * width, channels)


def preview_grid(
    images: Images, labels: NDArray[np.int64], config: AugmentConfig, *, seed: int, columns: int
) -> Images:
    """Show what ``config`` makes of ``images``, uint8 (N, H, W, C) or (N, T, H, W, C), of classes ``labels`` (N,).

    One row per image, its first of ``columns`` tiles plain, the others variations. Where images are mixed, a bar under
    each tile shows the shares of the classes in its target.

    Returns:
        uint8 (height, width, 3).

    Raises:
        UsageError: see ``Augmenter``.
    """
    known, positions = np.unique(labels, return_inverse=True)
    targets = np.eye(len(known), dtype=np.float32)[positions]
    augmenter = Augmenter(config, shape=images.shape[1:], classes=len(known), seed=seed)
    views = [(images, targets), *(augmenter(images, targets, key=(0, column)) for column in range(1, columns))]
    tiles = np.stack([filmstrips(pixels) if pixels.ndim == 5 else pixels for pixels, _ in views], axis=1)
    tiles = np.broadcast_to(tiles, (*tiles.shape[:-1], 3))
    if config.mixup or config.cutmix:
        bars = _share_bars(np.stack([target for _, target in views], axis=1), width=tiles.shape[3])
        tiles = np.concatenate([tiles, np.repeat(bars, max(2, tiles.shape[2] // 20), axis=2)], axis=2)
    gap = max(1, tiles.shape[3] // 40)
    tiles = np.pad(tiles, [(0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)], constant_values=255)
    rows, columns, height, width, _ = tiles.shape
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)


def _share_bars(targets: NDArray[np.float32], *, width: int) -> Images:
    """From targets (rows, columns, classes) to bars (rows, columns, 1, width, 3), a hue per class."""
    import cv2

    classes = targets.shape[-1]
    hues = np.stack([np.arange(classes) * 180 // classes, np.full(classes, 200), np.full(classes, 220)], axis=-1)
    colours = cv2.cvtColor(hues[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    ends = np.cumsum(targets, axis=-1)[..., :-1, None]
    bars: Images = colours[((np.arange(width) + 0.5) / width > ends).sum(axis=-2)][:, :, None]
    return bars


class _Stage:
    """Steps compiled to one function of (images, targets, seed); no steps are no function."""

    def __init__(
        self, steps: Sequence[Step], generator: keras.random.SeedGenerator, *, shape: tuple[int, int, int], classes: int
    ) -> None:
        import keras

        def run(images: Any, targets: Any, state: Any) -> tuple[Any, Any]:
            with keras.StatelessScope(state_mapping=[(generator.state, state)]):
                for step in steps:
                    images, targets = step(images, targets)
                if keras.backend.standardize_dtype(images.dtype) != "uint8":
                    images = keras.ops.cast(keras.ops.clip(keras.ops.round(images), 0, 255), "uint8")
                return images, targets

        self._seed_dtype = generator.state.dtype
        self._run = _compiled(run, shape, classes, self._seed_dtype) if steps else None

    def __call__(self, images: Images, targets: Targets, state: NDArray[Any]) -> tuple[Images, Targets]:
        if self._run is None:
            return images, targets
        varied, mixed = self._run(images, targets, state.astype(self._seed_dtype))
        return np.asarray(varied), np.asarray(mixed)


def _compiled(
    function: Callable[..., Any], shape: tuple[int, int, int], classes: int, seed_dtype: str
) -> Callable[..., Any]:
    """Compile for the backend in use; one without a compiler runs ``function`` as it is."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [
            tf.TensorSpec((None, *shape), tf.uint8),
            tf.TensorSpec((None, classes), tf.float32),
            tf.TensorSpec((2,), seed_dtype),
        ]
        # XLA has no kernel for TensorFlow's projective transform, and its convolutions are slow on a CPU.
        return tf.function(function, input_signature=signature, autograph=False, jit_compile=False)  # type: ignore[no-any-return]
    if keras.backend.backend() == "jax":
        import jax

        def exact(*arguments: Any) -> Any:
            # A GPU's default of 10 bits for a product would move the pixels that a matrix places.
            with jax.default_matmul_precision("float32"):
                return function(*arguments)

        return jax.jit(exact)  # type: ignore[no-any-return]
    return function


def require_alike(config: AugmentConfig) -> None:
    """Check that nothing is done to clips that would vary their frames apart.

    Raises:
        UsageError: ``config`` does.
    """
    for key in (*_COLOUR_KEYS, *_SINGLE_KEYS):
        if value := getattr(config, key):
            raise UsageError(
                f"augment.{key} varies single images, and the frames of a clip must vary alike, but it is {value}; "
                f"set augment.{key}=0 for a network that sees clips."
            )


def require_colours(config: AugmentConfig, *, channels: int) -> None:
    """Check that only images with colours have their colours changed.

    Raises:
        UsageError: ``config`` changes colours of images of one channel.
    """
    for key in _COLOUR_KEYS:
        if channels != 3 and (value := getattr(config, key)):
            raise UsageError(
                f"augment.{key} needs images of 3 channels, but they have {channels} and it is {value}; "
                f"set augment.{key}=0 or channels=rgb."
            )
