"""The preprocessing arithmetic with OpenCV's exact kernels: the fast path, equal to ``_pixels_numpy`` on every byte."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_STRIP_ROWS = 64


def resize(image: Image, height: int, width: int) -> Image:
    """Resize uint8 (h, w, c) to (height, width, c) by the steps of ``_pixels_numpy.resize``."""
    image = _readable(image)
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        # At exactly one half INTER_AREA is the integer mean (a+b+c+d+2)>>2.
        image = _to(_even(image, rows=True, columns=True), 2, 2, cv2.INTER_AREA)
    while image.shape[0] >= 2 * height:
        # At exactly one half along one axis INTER_LINEAR_EXACT is (a+b+1)>>1.
        image = _to(_even(image, rows=True, columns=False), 2, 1, cv2.INTER_LINEAR_EXACT)
    while image.shape[1] >= 2 * width:
        image = _halve_columns(_even(image, rows=False, columns=True))
    if image.shape[:2] == (height, width):
        return image
    return _with_channels(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT))


def grey(image: Image, color: str) -> Image:
    """Luma of uint8 (h, w, 3 or 4) as (h, w, 1); OpenCV uses the same 15-bit weights."""
    code = {
        ("rgb", 3): cv2.COLOR_RGB2GRAY,
        ("bgr", 3): cv2.COLOR_BGR2GRAY,
        ("rgb", 4): cv2.COLOR_RGBA2GRAY,
        ("bgr", 4): cv2.COLOR_BGRA2GRAY,
    }[color, image.shape[2]]
    return _with_channels(cv2.cvtColor(_readable(image), code))


def reverse(image: Image) -> Image:
    """Exchange red and blue of uint8 (h, w, 3)."""
    return _with_channels(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def spread(image: Image) -> Image:
    """Repeat the channel of uint8 (h, w, 1) three times, much faster than ``numpy.repeat``."""
    return _with_channels(cv2.cvtColor(_readable(image), cv2.COLOR_GRAY2RGB))


def _halve_columns(image: Image) -> Image:
    """(a+b+1)>>1 of pixels side by side, as (a+b+a+b+2)>>2 of rows doubled: INTER_AREA's kernel is the faster one.

    In strips, so that the doubled rows stay in the cache.
    """
    height, width, channels = image.shape
    result = np.empty((height, width // 2, channels), np.uint8)
    for top in range(0, height, _STRIP_ROWS):
        strip = image[top : top + _STRIP_ROWS]
        doubled = np.repeat(strip, 2, axis=0)
        cv2.resize(doubled, (width // 2, len(strip)), result[top : top + len(strip)], interpolation=cv2.INTER_AREA)
    return result


def _readable(image: Image) -> Image:
    """The image itself where OpenCV can read its strides (whole pixels side by side, rows in order), else a copy."""
    row, column, channel = image.strides
    packed = channel == 1 and column == image.shape[2] and row >= column * image.shape[1]
    return image if packed else np.ascontiguousarray(image)


def _even(image: Image, *, rows: bool, columns: bool) -> Image:
    height, width = image.shape[:2]
    return image[: height // 2 * 2 if rows else height, : width // 2 * 2 if columns else width]


def _to(image: Image, rows: int, columns: int, interpolation: int) -> Image:
    size = (image.shape[1] // columns, image.shape[0] // rows)
    return _with_channels(cv2.resize(image, size, interpolation=interpolation))


def _with_channels(result: cv2.typing.MatLike) -> Image:
    """OpenCV's result as uint8 (h, w, c): it drops a last axis of one, so put that back."""
    image = np.asarray(result, np.uint8)
    return image[..., np.newaxis] if image.ndim == 2 else image
