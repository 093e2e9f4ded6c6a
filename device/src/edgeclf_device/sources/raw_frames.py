"""Raw frames on stdin: for a program that owns the camera and has this one classify as its child process."""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic_ns

import numpy as np

from edgeclf_device.errors import DataError, UsageError
from edgeclf_device.preprocess import MAX_SIDE, Color
from edgeclf_device.sources.frame import Frame, Note, Rejected, SourceStatus, State

FORMATS: dict[str, tuple[Color, int]] = {"rgb": ("rgb", 3), "bgr": ("bgr", 3), "grey": ("rgb", 1)}
"""Pixel formats: the order of the channels and their number, one byte each."""

_SPEC = re.compile(rf"([1-9]\d{{0,4}})x([1-9]\d{{0,4}}):({'|'.join(FORMATS)})")


class RawFrames:
    """Frames of one size from a pipe, with nothing between them: rows from the top, pixels from the left.

    A frame is read when it is asked for, so that a program that writes faster than they are classified waits.
    """

    def __init__(self, descriptor: int, *, width: int, height: int, pixels: str) -> None:
        self.description = f"{width}×{height} {pixels} frames on stdin"
        self.total: int | None = None
        self.rejected: list[Rejected] = []
        self._descriptor = descriptor
        self._size = (width, height)
        self._color, self._channels = FORMATS[pixels]
        self._state: State = "starting"
        self._captured = 0
        self._closed, self._closer = socket.socketpair()

    def __iter__(self) -> Iterator[Frame]:
        width, height = self._size
        while True:
            image = np.empty((height, width, self._channels), np.uint8)
            captured_ns = self._fill(image.data.cast("B"))
            if captured_ns is None:
                self._state = "ended"
                return
            index, self._captured, self._state = self._captured, self._captured + 1, "live"
            yield Frame(
                image=image,
                color=self._color,
                index=index,
                name=f"stdin#{index}",
                capture_ms=(monotonic_ns() - captured_ns) / 1e6,
                captured_ns=captured_ns,
                moment_ns=captured_ns,
            )

    def status(self) -> SourceStatus:
        """How far it is."""
        return SourceStatus(state=self._state, captured=self._captured, size=self._size)

    def take_notes(self) -> list[Note]:
        """Nothing: a pipe has no faults that mend themselves."""
        return []

    def close(self) -> None:
        """End it, from any thread: an iteration that waits for a frame ends."""
        with suppress(OSError):  # it has ended already
            self._closer.send(b"\0")

    def __enter__(self) -> RawFrames:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closer.close()
        self._closed.close()

    def _fill(self, frame: memoryview) -> int | None:
        """Read one frame; the time of its first bytes, or None at the end.

        Raises:
            DataError: the pipe ends within the frame.
        """
        done, first_ns = 0, 0
        while done < len(frame):
            readable, _, _ = select.select([self._descriptor, self._closed.fileno()], [], [])
            if self._closed.fileno() in readable:
                return None
            count = os.readv(self._descriptor, [frame[done:]])
            if count == 0 and done:
                raise DataError(
                    f"A frame of {self.description} has {len(frame)} bytes, but stdin ended after {done} of frame "
                    f"{self._captured}; check the size and the pixel format of --source."
                )
            if count == 0:
                return None
            first_ns = first_ns or monotonic_ns()
            done += count
        return first_ns


def open_stdin(rest: str) -> RawFrames:
    """The source ``stdin:WIDTHxHEIGHT:FORMAT``, for example ``stdin:640x480:bgr``.

    Raises:
        UsageError: it is of another form, too large, or stdin is a terminal.
    """
    match = _SPEC.fullmatch(rest)
    if match is None or max(int(match[1]), int(match[2])) > MAX_SIDE:
        raise UsageError(
            f"stdin: takes WIDTHxHEIGHT:FORMAT with sides up to {MAX_SIDE} and a format of {', '.join(FORMATS)}, "
            f"for example stdin:640x480:bgr, but it was given {rest!r}."
        )
    if os.isatty(0):
        raise UsageError("stdin: takes raw frames from a pipe, but stdin is a terminal; start it from a program.")
    return RawFrames(0, width=int(match[1]), height=int(match[2]), pixels=match[3])
