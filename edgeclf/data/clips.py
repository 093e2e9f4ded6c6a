"""Clips: the window of a video file that a training, a calibration or an evaluation sees, prepared.

A clip is one example. Its frames are sampled as on a stream (``edgeclf_device.clips``), and the window in the middle is
taken. What is shorter than a window is no example, for on a stream it gives no decision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclf_device.clips import MAX_GAP_TICKS, ClipSpec, Spec, frame_ns, sampled
from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES
from edgeclf_device.preprocess import prepare
from edgeclf_device.sources.files import FRAME_COUNT, VIDEO_SUFFIXES, open_capture, rate_of

Pixels = NDArray[np.uint8]

MIN_SHARE = 0.9
"""Of the frames that a file names, below which it was cut off: some kinds of files name them by a guess."""


def read_clip(path: Path, spec: ClipSpec) -> tuple[Pixels, tuple[int, int]]:
    """The window in the middle of a video file, uint8 (window, H, W, C), and the (height, width) of its frames.

    Raises:
        DataError: the file is empty, no video, cut off, of an unknown codec, of one frame, of too few frames a second,
            or shorter than a window; the message says which.
        DependencyError: OpenCV is not installed.
    """
    count, rate = _frames_of(path)
    if count == 1:
        raise DataError(f"{path} is a picture, for it has one frame; give clips, or train a network for single images.")
    if rate * MAX_GAP_TICKS < spec.fps:
        raise DataError(
            f"{path} has {rate:g} frames a second, but a window of {spec.fps:g} a second needs at least "
            f"{spec.fps / MAX_GAP_TICKS:g}; film at more, or lower clip.fps."
        )
    places = sampled((frame_ns(index, rate) for index in range(count)), spec.fps)
    if len(places) < spec.window:
        raise DataError(
            f"{path} is shorter than a window: it has {len(places)} frames at {spec.fps:g} a second, but a window has "
            f"{spec.window}; give longer clips, or lower clip.window."
        )
    start = (len(places) - spec.window) // 2
    return _read(path, spec, places[start : start + spec.window])


def suffixes_of(spec: Spec) -> frozenset[str]:
    """Those of the files that a model takes: of images, or of videos."""
    return VIDEO_SUFFIXES if isinstance(spec, ClipSpec) else SUFFIXES


def one_frame(pixels: Pixels) -> Pixels:
    """The images themselves, (N, H, W, C), and of clips (N, T, H, W, C) the frame in the middle of each."""
    return pixels[:, pixels.shape[1] // 2] if pixels.ndim == 5 else pixels


def _frames_of(path: Path) -> tuple[int, float]:
    """(frames that can be read, frames a second)."""
    capture, _ = open_capture(path)
    named, rate, count = int(capture.get(FRAME_COUNT)), rate_of(capture), 1
    while capture.grab():
        count += 1
    capture.release()
    if count < MIN_SHARE * named:
        raise DataError(f"{path} is cut off or damaged after {count} of its {named} frames; copy it again.")
    if rate is None:
        raise DataError(f"{path} does not say how many frames a second it has; write it anew with its rate.")
    return count, rate


def _read(path: Path, spec: ClipSpec, places: list[int]) -> tuple[Pixels, tuple[int, int]]:
    capture, (image, _) = open_capture(path)
    index, window = 0, np.empty(spec.shape, np.uint8)
    for tick, place in enumerate(places):
        while index < place:
            capture.grab()
            index += 1
            if index == place:
                _, image = capture.retrieve()
        window[tick] = prepare(image, spec.frame, color="bgr")
    capture.release()
    return window, (image.shape[0], image.shape[1])
