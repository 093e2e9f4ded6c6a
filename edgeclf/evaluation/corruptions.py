"""What spoils images in the field, in three severities each: blur, noise, JPEG, little light, white balance, a shift.

After the example of Hendrycks and Dietterich (2019, 1903.12261), with the faults of a camera that a training may add
(``edgeclf.training.camera_faults``): the second severity is about the worst that augmentation goes to. Applied to the
prepared image, so that a severity means the same for every camera and every model of one size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeclf.training.camera_faults import Draw, Image, changed, compressed, sensed, smeared, tinted

SEVERITIES = (1, 2, 3)


def corrupted(images: Image, name: str, severity: int, *, seed: int) -> Image:
    """Return ``images``, uint8 (N, H, W, C), spoilt by the corruption ``name`` of ``CORRUPTIONS``.

    Image i is a function of (``name``, ``severity``, ``seed``, i, its pixels) alone, and equally spoilt, but for the
    strength, in every severity.
    """
    corrupt = CORRUPTIONS[name]
    return changed(images, lambda image, draw: corrupt(image, draw, severity - 1), entropy=(seed,))


def applicable(channels: int) -> tuple[str, ...]:
    """The corruptions that images of so many channels can suffer: grey ones have no white balance."""
    return tuple(name for name in CORRUPTIONS if channels == 3 or name != "white_balance")


def _motion_blur(image: Image, draw: Draw, level: int) -> Image:
    length = max(level + 2, min(image.shape[:2]) / (32, 16, 8)[level])
    return smeared(image, length=length, angle=draw.uniform(0, math.pi))


def _noise(image: Image, draw: Draw, level: int) -> Image:
    return sensed(image, draw, exposure=1, shot=(3e-3, 1.2e-2, 4.8e-2)[level])


def _jpeg(image: Image, _draw: Draw, level: int) -> Image:
    return compressed(image, quality=(40, 20, 10)[level])


def _low_light(image: Image, draw: Draw, level: int) -> Image:
    return sensed(image, draw, exposure=2.0 ** -(level + 1), shot=(3e-3, 6e-3, 1.2e-2)[level])


def _white_balance(image: Image, draw: Draw, level: int) -> Image:
    return tinted(image, warm=draw.choice((-1, 1)) * (0.2, 0.4, 0.8)[level], green=0)


def _shift(image: Image, draw: Draw, level: int) -> Image:
    """Move the crop in any direction; what comes in is the edge repeated."""
    angle = draw.uniform(0, 2 * math.pi)
    shares = np.array([math.sin(angle), math.cos(angle)]) * (0.05, 0.1, 0.2)[level]
    rows, columns = (
        np.clip(np.arange(side) + round(side * share), 0, side - 1)
        for side, share in zip(image.shape[:2], shares, strict=True)
    )
    moved: Image = image[rows][:, columns]
    return moved


CORRUPTIONS: dict[str, Callable[[Image, Draw, int], Image]] = {
    "motion_blur": _motion_blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "low_light": _low_light,
    "white_balance": _white_balance,
    "shift": _shift,
}
"""From an image, a draw and the severity counted from 0."""
