"""The steps of augmentation that Keras runs on a batch, in its operations alone so that any backend can compile them.

A step takes and returns images, uint8 or float32 (B, H, W, C) of 0 to 255, and targets, float32 (B, classes). All draw
from one seed generator, which the caller seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeclf.training.config import AugmentConfig

if TYPE_CHECKING:
    import keras

Step = Callable[[Any, Any], tuple[Any, Any]]

_FLOAT = {"dtype": "float32"}  # whatever the precision of the training
_RAND_AUGMENT_OPERATIONS = 2
_GREY = 127.5


def geometry(config: AugmentConfig, generator: keras.random.SeedGenerator) -> list[Step]:
    """Mirror images, then rotation, scale, crop and shift as one affine transform."""
    import keras

    flips = {"horizontal": config.flip_horizontal, "vertical": config.flip_vertical}
    # One layer each: Keras' horizontal_and_vertical turns both with one draw. On uint8 fewer bytes are moved.
    steps = [_drawing(keras.layers.RandomFlip(mode, dtype="uint8"), generator) for mode, on in flips.items() if on]
    if config.rotation or config.shift or config.zoom or config.crop:
        steps.append(_on_images(lambda images: _warped(images, config, generator)))
    return steps


def tone(config: AugmentConfig, generator: keras.random.SeedGenerator) -> list[Step]:
    """Brightness, contrast, saturation and hue."""
    from keras import layers

    spread, colour = config.contrast, config.saturation / 2
    switched: dict[str, Callable[[], Any]] = {
        # One number would only raise the contrast, a pair changes it both ways.
        "contrast": lambda: layers.RandomContrast((spread, spread), **_FLOAT),
        "brightness": lambda: layers.RandomBrightness(config.brightness, **_FLOAT),
        # 0.5 changes nothing. The range is used only as that of a saturation, which is a share.
        "saturation": lambda: layers.RandomSaturation((0.5 - colour, 0.5 + colour), value_range=(0, 1), **_FLOAT),
        "hue": lambda: layers.RandomHue(config.hue, **_FLOAT),
    }
    return [_drawing(layer(), generator) for key, layer in switched.items() if getattr(config, key)]


def rand_augment(config: AugmentConfig, generator: keras.random.SeedGenerator, *, channels: int) -> list[Step]:
    """RandAugment (1909.13719): two operations per batch, drawn from nine layers of Keras.

    Not Keras' own layer of that name: for every batch it computes eleven operations twice and throws twenty results
    away, and its equalize alone is 256 steps per channel under JAX. It also rotates one way only, by up to a whole
    turn, and keeps the fewer bits the lower the magnitude.
    """
    if not config.rand_augment:
        return []
    operations = _operations(config.rand_augment, channels)
    return [_on_images(lambda images: _randomly_operated(images, operations, generator))]


def erasing(config: AugmentConfig, generator: keras.random.SeedGenerator) -> list[Step]:
    """Random erasing (1708.04896), filled with grey: Keras would draw noise for whole images."""
    from keras import layers

    chance = (config.erasing, config.erasing)  # one number would be the largest of a range of probabilities
    return [_drawing(layers.RandomErasing(chance, fill_value=_GREY, **_FLOAT), generator)] if config.erasing else []


def mixing(config: AugmentConfig, generator: keras.random.SeedGenerator) -> list[Step]:
    """MixUp (1710.09412) and CutMix (1905.04899), those that are on: they mix images and targets of a batch alike."""
    from keras import layers

    steps = [_mixing(layers.MixUp(config.mixup, **_FLOAT), generator)] if config.mixup else []
    parameter = (config.cutmix, config.cutmix)  # one number would be the largest of a range
    return steps + ([_mixing(layers.CutMix(parameter, **_FLOAT), generator)] if config.cutmix else [])


def _drawing(layer: Any, generator: keras.random.SeedGenerator) -> Step:
    """Let ``layer`` vary the images, drawing from ``generator`` instead of its own."""
    from keras import ops

    layer.generator = generator
    return _on_images(lambda images: layer(ops.cast(images, layer.compute_dtype), training=True))


def _mixing(layer: Any, generator: keras.random.SeedGenerator) -> Step:
    from keras import ops

    layer.generator = generator

    def step(images: Any, targets: Any) -> tuple[Any, Any]:
        mixed = layer({"images": ops.cast(images, layer.compute_dtype), "labels": targets}, training=True)
        return mixed["images"], mixed["labels"]

    return step


def _on_images(function: Callable[[Any], Any]) -> Step:
    return lambda images, targets: (function(images), targets)


def _warped(images: Any, config: AugmentConfig, generator: keras.random.SeedGenerator) -> Any:
    """Rotate, scale, crop and shift; bilinear, and what comes into view repeats the nearest edge.

    One transform instead of a layer each: pixels are interpolated once, and XLA, which fuses a chain of transforms,
    would compute every pixel of one anew for each pixel of the next that needs it. A shift is by whole pixels.
    """
    from keras import ops, random

    count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]

    def drawn(low: float, high: float) -> Any:
        return random.uniform((count,), low, high, seed=generator)

    angle = drawn(-config.rotation, config.rotation) * (math.pi / 180)
    side = drawn(1 - config.crop, 1)
    scale = drawn(1 - config.zoom, 1 + config.zoom) * side
    cosine, sine = scale * ops.cos(angle), scale * ops.sin(angle)

    def centre(length: int) -> tuple[float, Any]:
        """Where the middle of the result lies, on one axis, and where it comes from."""
        middle = (length - 1) / 2
        shift = ops.round(drawn(-config.shift, config.shift) * length)
        return middle, middle + drawn(-1, 1) * (1 - side) * middle - shift

    (x, from_x), (y, from_y) = centre(width), centre(height)
    rows = [cosine, -sine, from_x - cosine * x + sine * y, sine, cosine, from_y - sine * x - cosine * y]
    matrix = ops.stack([*rows, ops.zeros_like(angle), ops.zeros_like(angle)], axis=1)
    return ops.image.affine_transform(ops.cast(images, "float32"), matrix, fill_mode="nearest")


def _operations(magnitude: float, channels: int) -> list[Any]:
    """The layers RandAugment draws from, as strong at magnitude 1 as the paper's at its largest.

    Without equalize and solarize: Keras' equalizes a batch as if it were one image, and its threshold, always from 0,
    turns most images into negatives.
    """
    from keras import layers

    warped = {**_FLOAT, "fill_mode": "nearest"}
    tone = 0.9 * magnitude
    bits = 8 - round(4 * magnitude)
    return [
        layers.RandomShear(0.3 * magnitude, 0.3 * magnitude, **warped),
        layers.RandomTranslation(0.3 * magnitude, 0.3 * magnitude, **warped),
        layers.RandomRotation(magnitude / 12, **warped),
        layers.RandomBrightness(0.5 * magnitude, **_FLOAT),
        layers.RandomContrast((tone, tone), **_FLOAT),
        layers.RandomSharpness((0.5 - tone / 2, 0.5 + tone / 2), **_FLOAT),
        layers.RandomPosterization((bits, 8), **_FLOAT),
        layers.AutoContrast(**_FLOAT),
        *([layers.RandomColorDegeneration(tone, **_FLOAT)] if channels == 3 else []),
    ]


def _randomly_operated(images: Any, operations: list[Any], generator: keras.random.SeedGenerator) -> Any:
    from keras import ops, random

    images = ops.cast(images, "float32")
    for _ in range(_RAND_AUGMENT_OPERATIONS):
        chosen = random.randint((), 0, len(operations), seed=generator)
        branches = []
        for operation in operations:
            plan = operation.get_random_transformation(images, training=True, seed=generator)
            branches.append(lambda pixels, run=operation.transform_images, plan=plan: run(pixels, plan))
        images = ops.switch(chosen, branches, images)
    return images
