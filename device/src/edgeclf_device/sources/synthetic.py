"""``synthetic:``, a camera that is not there: a pattern that moves, paced by the monotonic clock."""

from __future__ import annotations

import re
from functools import lru_cache, partial

import numpy as np

from edgeclf_device.errors import UsageError
from edgeclf_device.preprocess import Image
from edgeclf_device.sources.capture import Shot, Ticks
from edgeclf_device.sources.live import Live

SIZE, FPS = (1280, 720), 30.0
STEP = 4
"""Pixels that the pattern moves to the left from frame to frame."""


class SyntheticCapture:
    """Gives the pattern at every tick.

    Args:
        size: (width, height).
        fps: frames a second.
    """

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        self._size = size
        self._ticks = Ticks(fps)
        self._index = 0

    def read(self) -> Shot:
        """Wait for the next tick."""
        tick_ns = self._ticks.wait()
        self._index += 1
        return Shot(image=pattern(self._size, self._index), color="rgb", captured_ns=tick_ns, stamp=tick_ns)

    def interrupt(self) -> None:
        """End the wait."""
        self._ticks.interrupt()

    def close(self) -> None:
        """Nothing is held."""


def pattern(size: tuple[int, int], index: int) -> Image:
    """uint8 (H, W, 3) RGB of (width, height) ``size``: bars and a gradient, ``index`` steps moved to the left."""
    width, height = size
    start = index * STEP % width
    return _scroll(width, height)[:, start : start + width].copy()


@lru_cache(maxsize=4)
def _scroll(width: int, height: int) -> Image:
    """The pattern twice side by side."""
    column = np.arange(2 * width) % width
    row = np.arange(height)[:, np.newaxis]
    red = np.broadcast_to(column * 255 // max(width - 1, 1), (height, 2 * width))
    green = np.broadcast_to(row * 255 // max(height - 1, 1), (height, 2 * width))
    blue = np.where((column // max(width // 8, 1) + row // max(height // 8, 1)) % 2, 220, 40)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def open_synthetic(rest: str) -> Live:
    """``synthetic:1280x720@30``; both parts may be left out.

    Raises:
        UsageError: it is no size and frame rate.
    """
    match = re.fullmatch(r"(?:([1-9]\d{0,4})x([1-9]\d{0,4}))?(?:@(\d{1,3}(?:\.\d{1,3})?))?", rest)
    if match is None or match[3] in ("0", "00", "000"):
        raise UsageError(f"synthetic: takes WIDTHxHEIGHT@FPS, for example synthetic:1280x720@30, but it is {rest!r}.")
    size = (int(match[1]), int(match[2])) if match[1] else SIZE
    fps = float(match[3] or FPS)
    width, height = size
    return Live(f"synthetic {width}×{height}", "synthetic", partial(SyntheticCapture, size, fps))
