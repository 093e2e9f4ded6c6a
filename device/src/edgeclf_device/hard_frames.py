"""Which frames are worth a person's label: the least sure ones, of each moment one, and of what looks alike one.

Pure functions; ``keeping`` writes what they choose. A moment is closed by time, so that a scene which changes all the
while does not fill the folder either; what looks alike is found by a thumbnail, however much later it comes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.errors import UsageError
from edgeclf_device.preprocess import Image

Look = NDArray[np.uint8]
"""uint8 (256,): a frame as 16×16 means of grey."""

CELLS, SAMPLES = 16, 4
"""Cells along a side of a look, and pixels looked at along a side of each: a camera's noise is averaged, at the cost
of 4,096 pixels, whatever the frame's size."""
ALIKE = 12
"""Grey levels by which no cell of two frames that look alike differs, once both are equally bright."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be kept.

    Attributes:
        frames: how many at most.
        size_bytes: of all their files together at most.
        free_bytes: of the disk that are left free.
        unsure: least uncertainty of a frame that is kept, 0 to 1.
        apart_ms, apart_frames: two frames nearer than both are of one moment; with 1 frame each is a moment of its own.
    """

    frames: int = 200
    size_bytes: int = 256 << 20
    free_bytes: int = 128 << 20
    unsure: float = 0.1
    apart_ms: float = 2000.0
    apart_frames: int = 60

    def __post_init__(self) -> None:
        if min(self.frames, self.size_bytes, self.apart_frames) < 1 or min(self.free_bytes, self.apart_ms) < 0:
            raise UsageError(f"At least one frame and one byte must be allowed and no limit below 0, but got {self}.")
        if not 0 <= self.unsure <= 1:
            raise UsageError(f"The least uncertainty must be from 0 to 1, but it is {self.unsure:g}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Hard:
    """A frame that is kept, or may be.

    Attributes:
        name: of its file.
        unsure: its uncertainty, 0 to 1.
        size_bytes: of its files.
        look: what it looks like.
    """

    name: str
    unsure: float
    size_bytes: int
    look: Look = field(repr=False)


def look_of(image: Image) -> Look:
    """What an image looks like: uint8 (256,) of uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); alpha too counts."""
    side = CELLS * SAMPLES
    rows, columns = ((np.arange(side) * 2 + 1) * length // (2 * side) for length in image.shape[:2])
    samples = image[rows[:, None], columns].reshape(CELLS, SAMPLES, CELLS, -1)
    return np.asarray(np.rint(samples.mean(axis=(1, 3))), np.uint8).reshape(-1)


def alike(look: Look, others: Sequence[Look]) -> NDArray[np.bool_]:
    """Which of ``others`` look like ``look``, bool (N,)."""
    if not others:
        return np.zeros(0, bool)
    differences = np.stack(others).astype(np.int16) - look
    offset = np.median(differences, axis=1, keepdims=True)  # a camera's exposure; what moved is not in most cells
    return np.asarray(np.abs(differences - offset).max(axis=1) < ALIKE, bool)


def displaced(kept: Sequence[Hard], new: Hard, limits: Limits) -> list[Hard] | None:
    """Which of ``kept`` make way for ``new``: what looks like it, then the surest until the limits hold.

    Returns:
        None where ``new`` is not kept: one that looks like it or, where there is no room, all that would have to go
        are as unsure.
    """
    same = alike(new.look, [one.look for one in kept])
    gone = [one for one, is_same in zip(kept, same, strict=True) if is_same]
    rest = sorted((one for one, is_same in zip(kept, same, strict=True) if not is_same), key=lambda one: one.unsure)
    free_frames = limits.frames - len(rest) - 1
    free_bytes = limits.size_bytes - sum(one.size_bytes for one in rest) - new.size_bytes
    for one in rest:
        if free_frames >= 0 and free_bytes >= 0:
            break
        gone.append(one)
        free_frames, free_bytes = free_frames + 1, free_bytes + one.size_bytes
    if free_bytes < 0 or any(one.unsure >= new.unsure for one in gone):
        return None
    return gone
