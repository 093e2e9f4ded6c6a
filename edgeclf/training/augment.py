"""Views of a training image, drawn with NumPy and OpenCV on uint8 pixels after ``prepare``; never exported.

View 0 is the image itself. In the others the allowed mirror images take turns, so that over the views of an image
each comes equally often, and shift, brightness and contrast are drawn at random. Every view is a function of (seed,
image, view) alone: not of the order, of the number of threads, or of how many views there are.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgeclf.training.config import AugmentConfig

Image = NDArray[np.uint8]


def view(image: Image, config: AugmentConfig, *, seed: int, index: int, number: int) -> Image:
    """Return view ``number`` of the training image at ``index``: uint8 (H, W, C), like ``image``."""
    if number == 0:
        return image
    draw = np.random.default_rng((seed, index, number))
    return _toned(_shifted(_mirrored(image, config, number), config.shift, draw), config, draw)


def views(
    images: NDArray[np.uint8],
    config: AugmentConfig,
    *,
    seed: int,
    indices: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Return one view each of several images, uint8 (N, H, W, C), on every core.

    ``indices`` choose from ``images``, uint8 (M, H, W, C), and ``numbers`` is the number of the view wanted of each.
    """
    result = np.empty((len(indices), *images.shape[1:]), np.uint8)

    def fill(row: int) -> None:
        index = int(indices[row])
        result[row] = view(images[index], config, seed=seed, index=index, number=int(numbers[row]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(len(indices))):
            pass
    return result


def _mirrored(image: Image, config: AugmentConfig, number: int) -> Image:
    turns = [(False, False)]
    if config.flip_horizontal:
        turns += [(True, vertical) for _, vertical in turns]
    if config.flip_vertical:
        turns += [(horizontal, True) for horizontal, _ in turns]
    horizontal, vertical = turns[number % len(turns)]
    return image[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def _shifted(image: Image, largest: float, draw: np.random.Generator) -> Image:
    """Shift by whole pixels; what comes into view repeats the edge."""
    height, width = image.shape[:2]
    down, right = (round(float(draw.uniform(-largest, largest)) * side) for side in (height, width))
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    shifted: Image = image[rows[:, None], columns]
    return shifted


def _toned(image: Image, config: AugmentConfig, draw: np.random.Generator) -> Image:
    """Change contrast about the image's mean, and brightness; by a table of the 256 values."""
    gain = 1 + draw.uniform(-config.contrast, config.contrast)
    offset = 255 * draw.uniform(-config.brightness, config.brightness)
    mean = float(image.mean())
    table = np.clip(np.rint((np.arange(256) - mean) * gain + mean + offset), 0, 255).astype(np.uint8)
    toned: Image = np.ascontiguousarray(table[image])
    return toned
