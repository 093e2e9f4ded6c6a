"""Clips: which frames of a video are the window that a video classifier sees (docs/reference/clips.md).

The rule is by time, not by frame numbers, so that one motion is the same input whatever rate it was filmed at.
Training, evaluation and the device sample by this one implementation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edgeclf_device.errors import UsageError
from edgeclf_device.preprocess import PrepareSpec

MAX_GAP_TICKS = 3
"""Frames that lie further apart are of no one motion."""

EARLY_TICKS = 0.25
"""How much before its tick a frame may come: a camera's own clock is never quite that of the ticks."""

MAX_WINDOW = 256


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How frames of a video become the one input of a video classifier.

    Attributes:
        frame: what ``prepare`` makes of each frame.
        window: frames that a decision sees.
        stride: ticks from one decision on a stream to the next.
        fps: ticks a second, at each of which one frame is taken.
    """

    frame: PrepareSpec
    window: int
    stride: int
    fps: float

    def __post_init__(self) -> None:
        def require(name: str, constraint: str, *, holds: bool) -> None:
            if not holds:
                raise UsageError(f"clip.{name} must be {constraint}, but it is {getattr(self, name)!r}.")

        require("window", f"from 2 to {MAX_WINDOW}", holds=2 <= self.window <= MAX_WINDOW)
        require("stride", "at least 1", holds=self.stride >= 1)
        require("fps", "above 0 and at most 1000", holds=0 < self.fps <= 1000)

    @property
    def height(self) -> int:
        """Of a prepared frame, in pixels."""
        return self.frame.height

    @property
    def width(self) -> int:
        """Of a prepared frame, in pixels."""
        return self.frame.width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a window: (window, height, width, 3 or 1)."""
        return self.window, *self.frame.shape

    @property
    def seconds(self) -> float:
        """From the first frame of a window to its last."""
        return (self.window - 1) / self.fps


Spec = PrepareSpec | ClipSpec
"""What makes the one input of a classifier, of images or of video; ``shape`` is without the batch."""


def frame_of(spec: Spec) -> PrepareSpec:
    """What ``prepare`` makes of one image or frame."""
    return spec.frame if isinstance(spec, ClipSpec) else spec


class Sampler:
    """At how many ticks each frame of a stream stands.

    Tick 0 is at the first frame, the others follow every 1 / fps seconds, and at each stands the first frame that comes
    no more than ``EARLY_TICKS`` before it. So a slow stream's frames stand at several ticks, and most of a fast one's
    at none. A frame that comes earlier than the one before, or more than ``MAX_GAP_TICKS`` after it, begins anew.

    Attributes:
        anew: whether the last frame did, as the first one does.
    """

    def __init__(self, fps: float) -> None:
        self.anew = False
        self._period_ns = 1e9 / fps
        self._begin_ns = 0
        self._last_ns: int | None = None
        self._ticks = 0

    def __call__(self, moment_ns: int) -> int:
        """The number of ticks at which the frame of this moment stands, from 0."""
        last, self._last_ns = self._last_ns, moment_ns
        self.anew = last is None or not 0 <= moment_ns - last <= MAX_GAP_TICKS * self._period_ns
        if self.anew:
            self._begin_ns, self._ticks = moment_ns, 0
        reached = math.floor((moment_ns - self._begin_ns) / self._period_ns + EARLY_TICKS) + 1
        before, self._ticks = self._ticks, max(self._ticks, reached)
        return self._ticks - before


def frame_ns(index: int, rate: float) -> int:
    """When frame ``index`` of a video of ``rate`` frames a second is shown, from its beginning."""
    return round(index * 1e9 / rate)


def sampled(moments_ns: Iterable[int], fps: float) -> list[int]:
    """Which frame stands at each tick, by its place in ``moments_ns``, as far as they reach without beginning anew."""
    sampler, places = Sampler(fps), list[int]()
    for place, moment_ns in enumerate(moments_ns):
        ticks = sampler(moment_ns)
        if sampler.anew and place:
            break
        places += [place] * ticks
    return places
