"""A camera with a script of faults."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic_ns
from types import MappingProxyType
from typing import Literal

import numpy as np

from edgeclf_device.errors import DependencyError
from edgeclf_device.preprocess import Image
from edgeclf_device.sources.capture import LostError, Shot, Ticks, TornError
from edgeclf_device.sources.synthetic import pattern

Size = tuple[int, int]
FaultKind = Literal["stall", "block", "unplug", "repeat", "torn", "resize", "slow"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a ``FaultyCamera`` is to do.

    Attributes:
        kind: ``stall``: no pictures for ``seconds``; ``block``: a read that does not return for so long, whoever asks
            it to; ``unplug``: the read fails, and the camera can't be opened for so long; ``repeat``: the same picture
            for so long; ``torn``: ``pictures`` damaged ones; ``resize``: of another size from now on; ``slow``:
            ``pictures`` that take ``seconds`` longer each.
        seconds: see ``kind``.
        pictures: see ``kind``.
        size: (width, height) to change to.
    """

    kind: FaultKind
    seconds: float = 0.0
    pictures: int = 1
    size: Size = (320, 240)


NO_FAULTS: Mapping[int, Fault] = MappingProxyType({})


class FaultyCamera:
    """A camera with faults: ``Live("camera", "camera", FaultyCamera().open)`` reads from it.

    Args:
        size: (width, height) of its pictures.
        fps: pictures a second.
        script: faults by the number of the picture, from 0, in whose place they begin.
    """

    def __init__(self, *, size: Size = (320, 240), fps: float = 30.0, script: Mapping[int, Fault] = NO_FAULTS) -> None:
        self.size = size
        self.fps = fps
        self.openings = 0
        self.pictures = 0
        self._script = dict(script)
        self._injected: deque[Fault] = deque()
        self._released = threading.Event()
        self._silent_until_ns = self._gone_until_ns = self._repeat_until_ns = 0
        self._torn = self._slow = 0
        self._slow_s = 0.0

    def inject(self, fault: Fault) -> None:
        """Let a fault begin with the next read."""
        self._injected.append(fault)

    def release(self) -> None:
        """End every ``block``, from now on."""
        self._released.set()

    def open(self) -> FaultyCapture:
        """Open it.

        Raises:
            DependencyError: it is unplugged.
        """
        if monotonic_ns() < self._gone_until_ns:
            raise DependencyError("The faulty camera must be plugged in, but it is not.")
        self.openings += 1
        return FaultyCapture(self)

    def next_shot(self, ticks: Ticks, interrupted: threading.Event) -> Shot:
        """The next picture, or the next fault."""
        tick_ns = ticks.wait()
        if fault := self._next_fault():
            self._begin(fault)
        if monotonic_ns() < self._gone_until_ns:
            raise LostError("It was unplugged.")
        if (silent_ns := self._silent_until_ns - monotonic_ns()) > 0 and interrupted.wait(silent_ns / 1e9):
            raise LostError("It was closed.")
        if self._torn > 0:
            self._torn -= 1
            raise TornError("it was cut off")
        if self._slow > 0:
            self._slow -= 1
            time.sleep(self._slow_s)
        tick_ns = max(tick_ns, self._silent_until_ns)
        if monotonic_ns() >= self._repeat_until_ns:
            self.pictures += 1
        return Shot(image=self._picture(), color="rgb", captured_ns=tick_ns)

    def _next_fault(self) -> Fault | None:
        return self._injected.popleft() if self._injected else self._script.pop(self.pictures, None)

    def _begin(self, fault: Fault) -> None:
        until_ns = monotonic_ns() + round(fault.seconds * 1e9)
        if fault.kind == "stall":
            self._silent_until_ns = until_ns
        elif fault.kind == "block":
            self._released.wait(fault.seconds)
            raise LostError("The read came back at last.")
        elif fault.kind == "unplug":
            self._gone_until_ns = until_ns
            raise LostError("It was unplugged.")
        elif fault.kind == "repeat":
            self._repeat_until_ns = until_ns
        elif fault.kind == "torn":
            self._torn = fault.pictures
        elif fault.kind == "resize":
            self.size = fault.size
        else:
            self._slow, self._slow_s = fault.pictures, fault.seconds

    def _picture(self) -> Image:
        """The pattern with the noise of a sensor, which depends on the number of the picture alone."""
        image = pattern(self.size, self.pictures)
        noise = np.random.default_rng(self.pictures).integers(0, 8, image.shape[:2], np.uint8)
        image[:, :, 2] ^= noise
        return image


class FaultyCapture:
    """An opened ``FaultyCamera``."""

    def __init__(self, camera: FaultyCamera) -> None:
        self._camera = camera
        self._ticks = Ticks(camera.fps)
        self._interrupted = threading.Event()

    def read(self) -> Shot:
        """The next picture, or the next fault."""
        return self._camera.next_shot(self._ticks, self._interrupted)

    def interrupt(self) -> None:
        """End every wait but a ``block``."""
        self._ticks.interrupt()
        self._interrupted.set()

    def close(self) -> None:
        """Nothing is held."""
