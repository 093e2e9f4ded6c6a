"""What a camera may do to an image: motion blur, little light, sensor noise, a wrong white balance, JPEG.

With NumPy and OpenCV on uint8 images, several at a time; in the order in which a camera does it. Light is taken as
linear behind the sRGB curve (IEC 61966-2-1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgeclf.training.config import AugmentConfig

Image = NDArray[np.uint8]
Draw = np.random.Generator

_LIGHT_STEPS = 1 << 14  # fine enough for every one of the 256 values to come back as itself


def add_camera_faults(images: Image, config: AugmentConfig, *, entropy: Sequence[int]) -> Image:
    """Return ``images``, uint8 (N, H, W, C), each with the faults that its draw gives it, on every core.

    Image i is a function of (``config``, ``entropy``, i, its pixels) alone.
    """
    faults = [(getattr(config, key), fault) for key, fault in FAULTS.items() if getattr(config, key)]
    if not faults:
        return images

    def faulty(image: Image, draw: Draw) -> Image:
        for probability, fault in faults:
            if draw.random() < probability:
                image = fault(image, draw)
        return image

    return changed(images, faulty, entropy=entropy)


def changed(images: Image, change: Callable[[Image, Draw], Image], *, entropy: Sequence[int]) -> Image:
    """Return what ``change`` makes of each of ``images``, uint8 (N, H, W, C), on every core.

    It draws from (``entropy``, i) alone for image i.
    """

    def one(row: int) -> Image:
        return change(images[row], np.random.default_rng((*entropy, row)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(one, range(len(images)))))


def motion_blur(image: Image, draw: Draw) -> Image:
    """Smear along a line of any direction, up to a sixteenth of the smaller side (and 3 pixels) long."""
    length = draw.uniform(2, max(3, min(image.shape[:2]) / 16))
    return smeared(image, length=length, angle=draw.uniform(0, math.pi))


def smeared(image: Image, *, length: float, angle: float) -> Image:
    """Smear along a line of ``length`` pixels at ``angle``, in radians."""
    import cv2

    reach = math.ceil(length / 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    line = np.clip((length + 1) / 2 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    blurred = cv2.filter2D(image, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8).reshape(image.shape)


def low_light(image: Image, draw: Draw) -> Image:
    """Take away 1 to 3 stops of light, with the noise of a high gain."""
    return sensed(image, draw, exposure=2 ** -draw.uniform(1, 3), shot=math.exp(draw.uniform(*np.log((3e-3, 1.2e-2)))))


def noise(image: Image, draw: Draw) -> Image:
    """Add the noise of a sensor, from that of daylight to that of a high gain."""
    return sensed(image, draw, exposure=1, shot=math.exp(draw.uniform(*np.log((1e-4, 1.2e-2)))))


def white_balance(image: Image, draw: Draw) -> Image:
    """Shift colours towards warm or cold, by up to 0.4 stops each of red and blue, and a little towards green or not.

    Gains on linear light, as a camera's own. ``image`` is uint8 (H, W, 3), RGB.
    """
    return tinted(image, warm=draw.uniform(-0.4, 0.4), green=draw.uniform(-0.1, 0.1))


def tinted(image: Image, *, warm: float, green: float) -> Image:
    """Brighten red by ``warm`` stops and darken blue by as many, and brighten green by ``green``."""
    tables = [_encoded(_LIGHT * np.float32(2**stops)) for stops in (warm, green, -warm)]
    return np.stack([table[image[..., channel]] for channel, table in enumerate(tables)], axis=-1)


def jpeg(image: Image, draw: Draw) -> Image:
    """Compress as JPEG of a quality of 10 to 80 and decode again."""
    return compressed(image, quality=int(draw.integers(10, 81)))


def compressed(image: Image, *, quality: int) -> Image:
    """Compress as JPEG of ``quality`` and decode again."""
    import cv2

    bgr = image[..., ::-1]  # of one channel: itself
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), np.uint8)
    return decoded.reshape(image.shape)[..., ::-1]


FAULTS: dict[str, Callable[[Image, Draw], Image]] = {
    "motion_blur": motion_blur,
    "low_light": low_light,
    "noise": noise,
    "white_balance": white_balance,
    "jpeg": jpeg,
}
"""By their keys of ``AugmentConfig``, in their order."""


def sensed(image: Image, draw: Draw, *, exposure: float, shot: float) -> Image:
    """Let a sensor see ``exposure`` times the light: variance ``shot`` times the light, and that of reading it.

    The read noise that goes with a shot noise, in ranges of real cameras, is that of Brooks et al. 2019 (1811.11127).
    """
    read = math.exp(draw.normal(2.18 * math.log(shot) + 1.2, 0.26))
    light = (_LIGHT * np.float32(exposure))[image]
    spread = np.sqrt(np.float32(shot) * light + np.float32(read))
    return _encoded(light + spread * draw.standard_normal(image.shape, np.float32))


def _light_of_values() -> NDArray[np.float32]:
    share = np.arange(256) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _values_of_light() -> Image:
    light = np.arange(_LIGHT_STEPS) / (_LIGHT_STEPS - 1)
    share = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    values: Image = np.rint(255 * share).astype(np.uint8)
    return values


_LIGHT, _VALUES = _light_of_values(), _values_of_light()


def _encoded(light: NDArray[np.float32]) -> Image:
    """From linear light, 0 to 1 and clipped to it, to values."""
    encoded: Image = _VALUES[np.rint(np.clip(light, 0, 1) * (_LIGHT_STEPS - 1)).astype(np.uint16)]
    return encoded
