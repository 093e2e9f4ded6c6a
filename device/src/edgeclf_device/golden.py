"""Synthetic inputs that every device can make for itself, so that ``verify`` needs no image file."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import ModelError

GENERATOR = "fields-1"


def golden_input(generator: str, seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The golden input of ``seed``: uint8 of ``shape`` (..., height, width, channels).

    Smooth fields of random colour with a little noise, closer to a photo than noise alone. Integer arithmetic only:
    an 8×8 grid of values is drawn from SHA-256 in counter mode, spread bilinearly in 256ths over the image, and the
    low four bits are exchanged for drawn ones.

    Raises:
        ModelError: an unknown generator.
    """
    if generator != GENERATOR:
        raise ModelError(f"This edgeclf-device knows the golden input {GENERATOR!r}, not {generator!r}; upgrade it.")
    *lead, height, width, channels = shape
    frames = int(np.prod(lead, dtype=np.int64))
    cells = 8
    drawn = _draw(seed, frames * ((cells + 1) ** 2 * channels + height * width * channels))
    grid = drawn[: frames * (cells + 1) ** 2 * channels].reshape(frames, cells + 1, cells + 1, channels)
    noise = drawn[grid.size :].reshape(frames, height, width, channels)
    row = np.arange(height) * cells * 256 // height
    column = np.arange(width) * cells * 256 // width
    down = _between(grid.astype(np.uint32), row, axis=1)
    across = _between(down, column, axis=2) >> 16
    return ((across & 0xF0) | (noise & 0x0F)).astype(np.uint8).reshape(shape)


def _between(values: NDArray[np.uint32], position: NDArray[np.int64], axis: int) -> NDArray[np.uint32]:
    first = position >> 8
    shape = [1] * values.ndim
    shape[axis] = len(position)
    weight = (position & 255).astype(np.uint32).reshape(shape)
    low, high = np.take(values, first, axis=axis), np.take(values, first + 1, axis=axis)
    return low * (256 - weight) + high * weight


def _draw(seed: int, count: int) -> NDArray[np.uint8]:
    blocks = (hashlib.sha256(f"{GENERATOR}:{seed}:{block}".encode()).digest() for block in range(-(-count // 32)))
    return np.frombuffer(b"".join(blocks), np.uint8)[:count]
