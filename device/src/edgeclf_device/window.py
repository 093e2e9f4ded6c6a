"""The sliding window between a stream of frames and a video classifier, which itself keeps nothing between calls."""

from __future__ import annotations

from collections import deque
from time import perf_counter_ns

import numpy as np

from edgeclf_device.classifier import Classifier, Result
from edgeclf_device.clips import Sampler
from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.preprocess import Image, prepare
from edgeclf_device.sources.frame import Frame


class Stream:
    """Holds the prepared frames of one window; called with each frame of one source, in order.

    The first decision comes when the window is full, the next ones every ``stride`` ticks, and none for a whole window
    after the stream began anew: see ``clips.Sampler``. Frames that stand at no tick are not even prepared.

    Args:
        classify: a video classifier. Several streams may share it.

    Raises:
        UsageError: it classifies single images.
    """

    def __init__(self, classify: Classifier) -> None:
        if classify.clip is None:
            raise UsageError(f"{classify.path} classifies single images; call it with each, without a Stream.")
        self._classify, self._clip = classify, classify.clip
        self._sampler = Sampler(self._clip.fps)
        self._frames: deque[Image] = deque(maxlen=self._clip.window)
        self._wait = 0
        self._prepare_ns = 0

    def __call__(self, frame: Frame) -> Result | None:
        """Take one frame; what the classifier says of the window where a decision is due at it, else None.

        Its ``prepare`` time is that of all frames since the decision before.

        Raises:
            DataError: the frame has no moment, for it is a single picture.
            as the classifier.
        """
        if frame.moment_ns is None:
            raise DataError(
                f"This model sees {self._clip.window} frames at {self._clip.fps:g} a second, but {frame.name} is a "
                "picture without a time; give a video or a camera, or play pictures at a rate with loop:FOLDER?fps=N."
            )
        ticks = self._sampler(frame.moment_ns)
        if self._sampler.anew:
            self._frames.clear()
            self._wait = 0
        if not ticks:
            return None
        begin = perf_counter_ns()
        pixels = prepare(frame.image, self._clip.frame, color=frame.color)
        window = self._due(pixels, ticks)
        self._prepare_ns += perf_counter_ns() - begin
        if window is None:
            return None
        spent, self._prepare_ns = self._prepare_ns, 0
        return self._classify.prepared(window, prepare_ns=spent)

    def _due(self, pixels: Image, ticks: int) -> Image | None:
        """Put the frame in at its ticks; the window at the last of them at which a decision is due."""
        window = None
        for _ in range(ticks):
            self._frames.append(pixels)
            if len(self._frames) < self._clip.window:
                continue
            if self._wait == 0:
                window, self._wait = np.stack(self._frames), self._clip.stride
            self._wait -= 1
        return window
