"""From frames to events: an iterator over a source, and the same in a thread with a callback.

Each event belongs to one frame: with a video classifier, to the last of a window, and most frames have none. The
decision at it follows a rule of ``decisions``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice
from time import monotonic_ns
from types import TracebackType
from typing import Protocol

from edgeclf_device.classifier import Classifier, Result
from edgeclf_device.decisions import START, Decision, Rule, step
from edgeclf_device.preprocess import Color, Image
from edgeclf_device.sources import Frame, Source
from edgeclf_device.window import Stream

PLAIN = Rule()
"""Each frame decides for itself."""

LOOK_S = 0.1
"""How often a follower that is to stop looks whether its camera is stalled."""


class Classify(Protocol):
    """What classifies: a ``Classifier``, or any function of its form."""

    def __call__(self, frame: Image, *, color: Color) -> Result:
        """Classify one frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One frame and what came of it.

    Attributes:
        frame: as the source gave it.
        result: what the classifier says of this frame alone, or of the window that ends with it.
        decision: what is to be believed at it.
        age_ms: from the frame's capture to its decision: what a reader of the decision is behind the world.
        total_ms: what was worked at it: getting it, ``prepare``, ``infer`` and ``decide``.
    """

    frame: Frame
    result: Result
    decision: Decision
    age_ms: float
    total_ms: float


def stream(
    classify: Classify, source: Source, *, rule: Rule | None = None, max_frames: int | None = None
) -> Generator[Event, None, None]:
    """Classify the frames of a source as they come, one event each. No frame is held but the one in its event.

    Args:
        classify: what classifies; its labels must stay the same. A video classifier is given windows by ``Stream``.
        source: entered by its owner, and iterated over by nobody else.
        rule: how frames become decisions; None lets each frame decide for itself.
        max_frames: stop after so many; None takes all.

    Raises:
        as ``source`` and ``classify``, at the frame that it happens at.
    """
    state, rule = START, rule or PLAIN
    frames = islice(iter(source), max_frames)
    window = Stream(classify) if isinstance(classify, Classifier) and classify.clip is not None else None
    while (frame := next(frames, None)) is not None:
        result = classify(frame.image, color=frame.color) if window is None else window(frame)
        if result is None:
            continue
        state, decision = step(rule, state, result, frame.captured_ns)
        yield Event(
            frame=frame,
            result=result,
            decision=decision,
            age_ms=(monotonic_ns() - frame.captured_ns) / 1e6,
            total_ms=frame.capture_ms + sum(result.spent_ns) / 1e6,
        )
        del frame  # not kept while the next one is waited for


class Follower:
    """``stream`` in a thread of its own: ``callback`` gets every event. A context manager, which stops at its end.

    The callback runs in that thread, so the next frame waits for it. What it raises ends the thread, as what the source
    or the classifier raises, and comes out of ``join``.

    Args:
        classify, source, rule, max_frames: as for ``stream``.
        callback: called with each event.
    """

    def __init__(
        self,
        classify: Classify,
        source: Source,
        callback: Callable[[Event], object],
        *,
        rule: Rule | None = None,
        max_frames: int | None = None,
    ) -> None:
        self._events = stream(classify, source, rule=rule, max_frames=max_frames)
        self._source = source
        self._callback = callback
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="follow frames", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Have it end after the frame that is in work, or, where a stalled camera gives none, by closing the source.

        It does not wait, so the callback may call it too.
        """
        self._stopping.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the source has ended, ``stop`` was heard, or the time is over; whether the thread has ended.

        Raises:
            as the source, the classifier or the callback did, once.
        """
        self._wait(timeout_s)
        self._raise()
        return not self._thread.is_alive()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, wait, and raise what the thread ended with, unless the block itself failed."""
        self.stop()
        self._wait(None)
        if error is None:
            self._raise()

    def _wait(self, timeout_s: float | None) -> None:
        end_ns = None if timeout_s is None else monotonic_ns() + round(timeout_s * 1e9)
        while self._thread.is_alive() and (end_ns is None or monotonic_ns() < end_ns):
            left_s = LOOK_S if end_ns is None else min(LOOK_S, (end_ns - monotonic_ns()) / 1e9)
            self._thread.join(max(left_s, 0))
            if self._stopping.is_set() and self._source.status().state == "stalled":
                self._source.close()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _follow(self) -> None:
        try:
            for event in self._events:
                self._callback(event)
                del event
                if self._stopping.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again by join
            self._error = error
        finally:
            self._events.close()
