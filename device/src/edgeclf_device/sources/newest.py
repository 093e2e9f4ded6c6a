"""The logic of live sources without its threads: the newest picture, repeats, the pace, and how long to wait."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

import numpy as np

from edgeclf_device.preprocess import Image
from edgeclf_device.sources.capture import Shot

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a live source loses patience, and how it tries again.

    Attributes:
        stall_ns: nothing new for this long, or for ``stall_periods`` of the camera where that is longer, is a stall; a
            frame this old is stale.
        stall_periods: see ``stall_ns``.
        open_ns: an opening, its first picture included, may take this long.
        first_retry_ns: wait before the first try to open again; each further one waits twice as long.
        last_retry_ns: at most this long. A camera that was live for longer begins anew with ``first_retry_ns``.
        stuck: reads that never return may be left behind; with this many, no further try is made until one returns.
    """

    stall_ns: int = SECOND_NS
    stall_periods: int = 5
    open_ns: int = 10 * SECOND_NS
    first_retry_ns: int = SECOND_NS // 10
    last_retry_ns: int = 2 * SECOND_NS
    stuck: int = 4

    def stale_after_ns(self, period_ns: int) -> int:
        """How long a camera of this period (0: not known yet) may give nothing new, and how old a frame may be."""
        return max(self.stall_ns, self.stall_periods * period_ns)

    def next_retry_ns(self, before_ns: int, lived_ns: int) -> int:
        """How long to wait after the wait ``before_ns`` (0: none) and a camera that was live for ``lived_ns``."""
        if before_ns == 0 or lived_ns >= self.last_retry_ns:
            return self.first_retry_ns
        return min(2 * before_ns, self.last_retry_ns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrival:
    """A picture, its number, and when it was ready to be taken."""

    shot: Shot
    index: int
    arrived_ns: int


class Newest:
    """Holds the newest picture until it is taken. ``dropped`` counts those that nobody took."""

    def __init__(self) -> None:
        self.dropped = 0
        self._held: Arrival | None = None

    def put(self, arrival: Arrival) -> None:
        """Replace what is held."""
        self.dropped += self._held is not None
        self._held = arrival

    def take(self, now_ns: int, *, period_ns: int, stale_ns: int) -> tuple[Arrival | None, int | None]:
        """(the newest picture, None), or (None, how long to wait before asking again; None: until the next comes)."""
        held = self._held
        if held is not None and now_ns - held.shot.captured_ns > stale_ns:
            self._held, held = None, None
            self.dropped += 1
        if held is None:
            return None, None
        if wait_ns := patience_ns(held, now_ns, period_ns):
            return None, wait_ns
        self._held = None
        return held, None


def patience_ns(held: Arrival, now_ns: int, period_ns: int) -> int:
    """How long to wait for the successor of a picture rather than to take it; 0 says take it.

    Just before the next picture arrives, the newest one is a period and its way from the sensor old. Waiting that way's
    length, and a sixth of a period for what it does not show (at most a quarter together), keeps what is taken
    younger than one period and costs a slow consumer next to nothing. One that is half a period late is not waited for.
    """
    way_ns = held.arrived_ns - held.shot.captured_ns
    due_ns = held.arrived_ns + period_ns
    early_ns = min(way_ns + period_ns // 6, period_ns // 4)
    return max(due_ns + period_ns // 2 - now_ns, 0) if now_ns >= due_ns - early_ns else 0


class Pace:
    """The camera's period: the median of its last intervals, so that a hiccup does not count."""

    def __init__(self) -> None:
        self.period_ns = 0
        self._last_ns: int | None = None
        self._intervals_ns: deque[int] = deque(maxlen=31)

    def beat(self, captured_ns: int) -> None:
        """A picture came."""
        if self._last_ns is not None and captured_ns > self._last_ns:
            self._intervals_ns.append(captured_ns - self._last_ns)
            self.period_ns = int(statistics.median(self._intervals_ns))
        self._last_ns = captured_ns

    def interrupt(self) -> None:
        """What lies between the last picture and the next is no interval."""
        self._last_ns = None


class Repeats:
    """Knows a picture that is delivered again.

    Its pixels are the same (by a sample, so that this costs microseconds), and so is the camera's stamp, or else every
    pixel: a still scene of a camera that stamps its pictures, or has a noisy sensor, is not a repeat.
    """

    def __init__(self) -> None:
        self._before: tuple[Shot, int] | None = None

    def is_repeat(self, shot: Shot) -> bool:
        """Whether this is the picture of the last call again."""
        digest = hash((shot.image.shape, shot.image[::31, ::17].tobytes()))
        if self._before is not None and digest == self._before[1] and _same(shot, self._before[0]):
            return True
        self._before = shot, digest
        return False


def _same(one: Shot, other: Shot) -> bool:
    if one.stamp is not None and other.stamp is not None:
        return one.stamp == other.stamp
    return _equal(one.image, other.image)


def _equal(one: Image, other: Image) -> bool:
    return bool(np.array_equal(one, other))
