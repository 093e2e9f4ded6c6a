"""What is said of each frame as JSON, and the file that takes it: a full disk costs lines, never the inference."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from time import monotonic_ns
from typing import Any

from edgeclf_device.errors import SystemStateError
from edgeclf_device.sources import Level, Note
from edgeclf_device.streaming import Event

RETRY_NS = 1_000_000_000
"""A file that could not be written is tried again after this time: asking a full disk for every frame costs more."""


def event_json(event: Event, top: int) -> dict[str, Any]:
    """One event as ``--json-lines`` writes it and the live page gets it.

    Args:
        event: of one frame.
        top: how many labels with their scores to list, the highest first.

    Returns:
        Strings, booleans, numbers and null alone: a score that is no finite number is null.
    """
    frame, result, decision = event.frame, event.result, event.decision
    return {
        "index": frame.index,
        "name": frame.name,
        "label": result.label,
        "score": _finite(result.score),
        "accepted": result.accepted,
        "top": [{"label": label, "score": _finite(score)} for label, score in result.top(top)],
        "decision": {
            "label": decision.label,
            "score": _finite(decision.score),
            "changed": decision.changed,
            "held_ms": max(0.0, (frame.captured_ns - decision.since_ns) / 1e6),
        },
        "age_ms": event.age_ms,
        "timing_ms": {"capture": frame.capture_ms, **result.timing_ms, "total": event.total_ms},
    }


class EventLog:
    """A file of JSON lines. A context manager.

    A line that can't be written (disk full, quota, a medium that fails) is lost and counted; the log says so once,
    tries again every second, and says when lines are written again. No line is ever half in the file.

    Attributes:
        path: where it is.
        lost: lines that are not in it.

    Raises:
        SystemStateError: the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise SystemStateError(f"{path} can't be written: {error.strerror}; choose another place.") from error
        self.path = path
        self.lost = 0
        self._seekable = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._size = 0
        self._failed_ns: int | None = None
        self._notes: list[Note] = []

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line, or count it as lost. Never raises for the system's sake.

        Raises:
            BrokenPipeError: the file is a pipe whose reader went away.
        """
        now_ns = monotonic_ns()
        if self._failed_ns is not None and now_ns - self._failed_ns < RETRY_NS:
            self.lost += 1
            return
        try:
            self._append((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost += 1
            if self._failed_ns is None:
                text = f"{self.path} can't be written: {os.strerror(error.errno or errno.EIO)}. "
                self._note(now_ns, "error", text + "Events are lost until there is space; free some.")
            self._failed_ns = now_ns
            return
        if self._failed_ns is not None:
            self._note(now_ns, "info", f"{self.path} is written again; {self.lost} events are not in it.")
            self._failed_ns = None

    def take_notes(self) -> list[Note]:
        """What there was to say since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            if self._seekable:  # take back what was written of it
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += written

    def _note(self, at_ns: int, level: Level, text: str) -> None:
        self._notes.append(Note(at_ns=at_ns, level=level, text=text))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
