"""What a live source reads from: an opened camera, the pictures it gives, and how it fails."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Protocol

from edgeclf_device.preprocess import Color, Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One picture as a camera delivers it.

    Attributes:
        image: uint8 (H, W), (H, W, 3) or (H, W, 4), written to by nobody any more.
        color: order of its channels.
        captured_ns: when, by ``time.monotonic_ns()``.
        stamp: what tells it from a picture delivered again, for example the sensor's own time; None where the camera
            says nothing, and then its pixels have to tell.
    """

    image: Image = field(repr=False)
    color: Color
    captured_ns: int
    stamp: object = None


class Capture(Protocol):
    """An opened camera. ``read`` and ``close`` are called by one thread, ``interrupt`` by another."""

    def read(self) -> Shot:
        """The next picture; blocks until it is there.

        Raises:
            TornError: a picture arrived damaged; the next may be whole.
            LostError: the camera is gone, or was interrupted; it has to be opened again.
        """

    def interrupt(self) -> None:
        """Make a blocked ``read`` return soon. Where that can't be done, do nothing: its thread is then left behind."""

    def close(self) -> None:
        """Give the camera back."""


class TornError(Exception):
    """A picture arrived damaged."""


class LostError(Exception):
    """The camera stopped: unplugged, disconnected, closed. The message says which, for people."""


class Ticks:
    """Paces what plays the camera by the monotonic clock. Like a camera, it leaves out what nobody waited for."""

    def __init__(self, fps: float) -> None:
        self._period_ns = round(1e9 / fps)
        self._next_ns = monotonic_ns()
        self._interrupted = threading.Event()

    def wait(self) -> int:
        """Wait for the next tick and give its time.

        Raises:
            LostError: interrupted.
        """
        ahead_ns = self._next_ns - monotonic_ns()
        if self._interrupted.wait(max(ahead_ns, 0) / 1e9):
            raise LostError("It was closed.")
        late_ns = max(monotonic_ns() - self._next_ns, 0)
        tick_ns = self._next_ns + late_ns // self._period_ns * self._period_ns
        self._next_ns = tick_ns + self._period_ns
        return tick_ns

    def interrupt(self) -> None:
        """Make ``wait`` raise, now and from now on."""
        self._interrupted.set()
