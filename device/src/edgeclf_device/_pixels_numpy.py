"""The preprocessing arithmetic in NumPy: the reference that defines the bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def resize(image: Image, height: int, width: int) -> Image:
    """Resize uint8 (h, w, c) to (height, width, c); the steps are numbered as in docs/reference/preprocessing.md."""
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        image = _halve_both(image)
    while image.shape[0] >= 2 * height:
        image = _halve_rows(image)
    while image.shape[1] >= 2 * width:
        image = _halve_rows(image.swapaxes(0, 1)).swapaxes(0, 1)
    if image.shape[:2] == (height, width):
        return image
    return _linear(image, height, width)


def grey(image: Image, color: str) -> Image:
    """Luma of ITU-R BT.601 in 15-bit fixed point, uint8 (h, w, 3 or 4) to (h, w, 1)."""
    red, blue = (0, 2) if color == "rgb" else (2, 0)
    total = image[..., red].astype(np.uint32) * 9798
    total += image[..., 1].astype(np.uint32) * 19235
    total += image[..., blue].astype(np.uint32) * 3735
    return ((total + (1 << 14)) >> 15).astype(np.uint8)[..., np.newaxis]


def reverse(image: Image) -> Image:
    """Exchange red and blue of uint8 (h, w, 3)."""
    return image[..., ::-1]


def _halve_both(image: Image) -> Image:
    rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    total = image[0:rows:2, 0:columns:2].astype(np.uint16)
    total += image[1:rows:2, 0:columns:2]
    total += image[0:rows:2, 1:columns:2]
    total += image[1:rows:2, 1:columns:2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def _halve_rows(image: Image) -> Image:
    rows = image.shape[0] // 2 * 2
    total = image[0:rows:2].astype(np.uint16)
    total += image[1:rows:2]
    total += 1
    total >>= 1
    return total.astype(np.uint8)


def _linear(image: Image, height: int, width: int) -> Image:
    first_row, next_row, row_weight = _taps(image.shape[0], height)
    first_column, next_column, column_weight = _taps(image.shape[1], width)
    wide = image.astype(np.uint32)
    weight = column_weight[np.newaxis, :, np.newaxis]
    one = np.uint32(256)
    across = wide[:, first_column] * (one - weight) + wide[:, next_column] * weight
    weight = row_weight[:, np.newaxis, np.newaxis]
    down: NDArray[np.uint32] = across[first_row] * (one - weight) + across[next_row] * weight
    down += np.uint32(1 << 15)
    down >>= np.uint32(16)
    return down.astype(np.uint8)


def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint32]]:
    """The two source indices of each target index and the weight of the second, in 256ths.

    In IEEE binary64 and in this order of operations, because a weight that lies half-way between two 256ths is
    rounded by its last bit; OpenCV's INTER_LINEAR_EXACT computes the same.
    """
    scale = 1.0 / (target / source)
    position = scale * (np.arange(target, dtype=np.float64) + 0.5) - 0.5
    first = np.floor(position)
    weight = np.rint((position - first) * 256).astype(np.uint32)
    first_index = first.astype(np.intp)
    return np.clip(first_index, 0, source - 1), np.clip(first_index + 1, 0, source - 1), weight


def spread(image: Image) -> Image:
    """Repeat the channel of uint8 (h, w, 1) three times."""
    return np.repeat(image, 3, axis=2)
