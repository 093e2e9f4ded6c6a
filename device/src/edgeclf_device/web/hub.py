"""Between the inference and its viewers: a slot that holds the newest event, and what happened so far.

The inference thread writes, the server's loop reads. Nothing is locked and nothing queues: a reader that comes late
finds the newest event and never hears of those between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from time import monotonic_ns
from typing import Any, Protocol

from edgeclf_device.event_log import event_json
from edgeclf_device.health import Health
from edgeclf_device.sources import Note, SourceStatus
from edgeclf_device.streaming import Event
from edgeclf_device.web.facts import Facts
from edgeclf_device.web.metrics import Meter, exposition

STALLED_NS = 2_000_000_000
SLOW_PERIODS = 3
"""Without a new event for 2 s, or for 3 periods of a slow model, the page says that it is stalled."""

FPS_WINDOW_NS = 5_000_000_000
FEW = 4
"""Events by which the pace of a slow model is judged."""

HEALTH_EVERY_S = 2.0
TOP = 5
NOTES, CHANGES = 100, 50
"""How many notes, and how many changes of the decision, the page remembers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """An event, its number from 1 and when it was published."""

    number: int
    event: Event
    at_ns: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the page's event log; ``level`` is a note's, or ``decision``."""

    number: int
    at_ns: int
    level: str
    text: str


class Keeping(Protocol):
    """What keeps hard frames."""

    @property
    def kept(self) -> int:
        """How many it holds."""

    @property
    def lost(self) -> int:
        """How many it could not keep."""


class Hub:
    """The newest event, the log and the counters of one page."""

    def __init__(self, facts: Facts, keeping: Keeping | None = None) -> None:
        self.facts = facts
        self.keeping = keeping
        self.newest: Shown | None = None
        self.status: SourceStatus | None = None
        self.health: Health | None = None
        self.closed = False
        self.viewers = 0
        self.viewers_dropped = 0
        self.meter = Meter()
        self._times_ns: deque[int] = deque(maxlen=256)
        self._notes: deque[Entry] = deque(maxlen=NOTES)
        self._changes: deque[Entry] = deque(maxlen=CHANGES)
        self._numbers = count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awaited = False
        self._newer = asyncio.Event()

    def publish(self, event: Event, status: SourceStatus | None, notes: Sequence[Note]) -> None:
        """Put the newest event in its slot; from the inference thread. Takes microseconds and waits for nobody."""
        now_ns = monotonic_ns()
        self.meter.observe(event)
        self._times_ns.append(now_ns)
        if event.decision.changed:
            text = "no label" if event.decision.label is None else event.decision.label
            self._changes.append(Entry(number=next(self._numbers), at_ns=now_ns, level="decision", text=text))
        self.report(status, notes)
        self.newest = Shown(number=self.meter.frames, event=event, at_ns=now_ns)
        # A reader sets the flag before it looks at the slot: either it sees this event, or the flag is seen here.
        if self._awaited:
            self._awaited = False
            self._wake()

    def report(self, status: SourceStatus | None, notes: Sequence[Note]) -> None:
        """What the source says, with or without a frame; from any thread."""
        if status is not None:
            self.status = status
        for note in notes:
            entry = Entry(number=next(self._numbers), at_ns=note.at_ns, level=note.level, text=note.text)
            self._notes.append(entry)

    def count_cut_off(self) -> None:
        """A viewer was cut off because it took nothing."""
        self.viewers_dropped += 1

    def close(self) -> None:
        """Send every viewer away; from any thread."""
        self.closed = True
        self._wake()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve readers of this loop."""
        self._loop = loop

    async def newer_than(self, number: int, timeout_s: float) -> Shown | None:
        """The newest event as soon as its number is higher; None after ``timeout_s``, or once the hub is closed."""
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._await_newer(number), timeout_s)
        return None

    async def watch_health(self, read: Callable[[], Health]) -> None:
        """Keep ``health`` new, for ever. A reading that fails is noted, and was the last."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.health = await loop.run_in_executor(None, read)
            except Exception as error:  # noqa: BLE001 - of whatever the board's files and tools may do
                text = f"The board's health can't be read: {error}."
                self.health = None
                self.report(None, [Note(at_ns=monotonic_ns(), level="warning", text=text)])
                return
            await asyncio.sleep(HEALTH_EVERY_S)

    def fps(self, now_ns: int) -> float:
        """Events published in a second, over the last five seconds or, of a slow model, the last few events."""
        times_ns = list(self._times_ns.copy())
        recent_ns = [at_ns for at_ns in times_ns if now_ns - at_ns < FPS_WINDOW_NS]
        period_ns = _period_ns(recent_ns if len(recent_ns) > FEW else times_ns[-FEW:])
        return 1e9 / period_ns if period_ns else 0.0

    def freshness(self, now_ns: int) -> tuple[str, str]:
        """(``starting``, ``live``, ``stalled`` or ``ended``; why, in a sentence for people, empty while live)."""
        state = None if self.status is None else self.status.state
        detail = "" if self.status is None else self.status.detail
        if self.closed or state == "ended":
            return "ended", detail or "The source has ended."
        if state == "stalled":
            return "stalled", detail or "The source gives no new frame."
        if self.newest is None:
            return "starting", detail or "No frame was classified yet."
        silent_ns = now_ns - self.newest.at_ns
        if silent_ns > max(STALLED_NS, SLOW_PERIODS * _period_ns(list(self._times_ns.copy())[-FEW:])):
            return "stalled", detail or f"No frame was classified for {silent_ns / 1e9:.0f} s."
        return "live", ""

    def frame_age_ms(self, now_ns: int) -> float | None:
        """How long ago the newest classified frame was captured."""
        return None if self.newest is None else (now_ns - self.newest.event.frame.captured_ns) / 1e6

    def event_message(self, shown: Shown, after: int) -> tuple[dict[str, Any], int]:
        """(What ``/events`` says of an event, number of the last log entry it holds); entries after ``after``."""
        message, last = self.state_message(after)
        return {"number": shown.number, **event_json(shown.event, TOP), **message}, last

    def state_message(self, after: int) -> tuple[dict[str, Any], int]:
        """(What ``/events`` says without an event, number of the last log entry it holds)."""
        now_ns = monotonic_ns()
        state, reason = self.freshness(now_ns)
        entries = sorted(
            (entry for entry in (*self._notes.copy(), *self._changes.copy()) if entry.number > after),
            key=lambda entry: entry.number,
        )
        message = {
            "state": state,
            "reason": reason,
            "frame_age_ms": self.frame_age_ms(now_ns),
            "fps": self.fps(now_ns) if state == "live" else 0.0,
            "viewers": self.viewers,
            "status": None if self.status is None else asdict(self.status),
            "health": None if self.health is None else self.health.to_json(),
            "log": [_entry_json(entry, now_ns) for entry in entries],
        }
        return message, max((entry.number for entry in entries), default=after)

    def metrics(self) -> str:
        """Everything for Prometheus."""
        now_ns = monotonic_ns()
        state, _ = self.freshness(now_ns)
        return exposition(
            self.facts,
            self.meter,
            state=state,
            fps=self.fps(now_ns) if state == "live" else 0.0,
            age_ms=self.frame_age_ms(now_ns),
            status=self.status,
            health=self.health,
            viewers=self.viewers,
            viewers_dropped=self.viewers_dropped,
            kept=None if self.keeping is None else (self.keeping.kept, self.keeping.lost),
        )

    async def _await_newer(self, number: int) -> Shown | None:
        while not self.closed:
            self._awaited = True
            newer = self._newer
            if self.newest is not None and self.newest.number > number:
                return self.newest
            await newer.wait()
        return None

    def _wake(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._wake_readers)

    def _wake_readers(self) -> None:
        newer, self._newer = self._newer, asyncio.Event()
        newer.set()


def _period_ns(times_ns: Sequence[int]) -> float:
    """The mean time from one to the next; 0 where there are fewer than two."""
    return (times_ns[-1] - times_ns[0]) / (len(times_ns) - 1) if len(times_ns) > 1 else 0.0


def _entry_json(entry: Entry, now_ns: int) -> dict[str, Any]:
    """A log entry; its time is an age, because boards have no clock that a viewer should trust."""
    ago_ms = max(0.0, (now_ns - entry.at_ns) / 1e6)
    return {"number": entry.number, "ago_ms": ago_ms, "level": entry.level, "text": entry.text}
