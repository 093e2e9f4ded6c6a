"""The thread that opens a camera and reads from it until that fails, or until it is told to leave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic_ns

from edgeclf_device.sources.capture import Capture, Shot, TornError

GRACE_S = 0.25
"""How long a reader that is to leave is waited for before it counts as stuck."""


class Reader(threading.Thread):
    """Reads from one opening of a camera; its owner looks at it and tells it to leave.

    Attributes:
        error: why it ended; None where it was told to.
        ended: whether it has; ``wake`` is set then.
        leaving: whether it was told to; what it still brings is not wanted.
        pictures: new ones it brought. Its owner counts them, and notes the times:
        began_ns, heard_ns, returned_ns: when it started, last brought a new picture, and last came back from a read.
    """

    def __init__(
        self,
        open_capture: Callable[[], Capture],
        arrived: Callable[[Reader, Shot], None],
        torn: Callable[[Reader, TornError], None],
        wake: threading.Event,
    ) -> None:
        super().__init__(name="read camera", daemon=True)
        self.error: Exception | None = None
        self.ended = self.leaving = False
        self.pictures = 0
        self.began_ns = self.heard_ns = self.returned_ns = monotonic_ns()
        self._open_capture = open_capture
        self._arrived = arrived
        self._torn = torn
        self._wake = wake
        self._capture: Capture | None = None

    def run(self) -> None:
        """Open, read, close."""
        try:
            self._capture = capture = self._open_capture()
            try:
                self._read_on(capture)
            finally:
                capture.close()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the watcher decides
            self.error = error
        finally:
            self.ended = True
            self._wake.set()

    def _read_on(self, capture: Capture) -> None:
        while not self.leaving:
            try:
                self._arrived(self, capture.read())
            except TornError as error:  # noqa: PERF203 - reading takes milliseconds
                self._torn(self, error)

    def leave(self) -> None:
        """Have it end, and wait for that, but not long."""
        self.leaving = True
        if self._capture is not None:
            self._capture.interrupt()
        self.join(GRACE_S)
