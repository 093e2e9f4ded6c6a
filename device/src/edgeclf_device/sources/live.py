"""Live cameras: a reader thread keeps the newest picture, and a watcher sees to it that pictures keep coming.

The reader opens the camera and reads, because either may block for ever. The watcher waits for what goes wrong: the
reader ended, or nothing new came in time. It then leaves the reader behind, waits a little, and starts another.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from time import monotonic_ns

from edgeclf_device.errors import DependencyError, EdgeclfError, SystemStateError, UsageError, first_line
from edgeclf_device.sources.capture import Capture, LostError, Shot, TornError
from edgeclf_device.sources.frame import Frame, Level, Note, NoteKind, Rejected, SourceStatus, State, size_of
from edgeclf_device.sources.newest import Arrival, Limits, Newest, Pace, Repeats
from edgeclf_device.sources.reader import GRACE_S, Reader

MAX_NOTES = 200
"""Notes kept for ``take_notes``; of more, the oldest are lost."""


class Live:
    """A camera that is opened on entering ``with`` and opened again whenever it fails.

    It hands out only fresh frames: none twice, none older than the stall limit. The iteration waits while the camera
    is stalled and ends with ``close``. Frames that nobody took in time are dropped.
    """

    total: int | None = None

    def __init__(
        self, description: str, name: str, open_capture: Callable[[], Capture], *, limits: Limits | None = None
    ) -> None:
        self.description = description
        self.rejected: list[Rejected] = []
        self._name = name
        self._open_capture = open_capture
        self._limits = limits or Limits()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = False
        self._watcher: threading.Thread | None = None
        self._stuck: list[Reader] = []
        self._refusal: Exception | None = None
        # What follows is read and written under ``_changed``.
        self._state: State = "starting"
        self._detail = ""
        self._since_ns = monotonic_ns()
        self._counts: Counter[str] = Counter()
        self._size: tuple[int, int] | None = None
        self._newest = Newest()
        self._pace = Pace()
        self._repeats = Repeats()
        self._notes: deque[Note] = deque(maxlen=MAX_NOTES)

    def __enter__(self) -> Live:
        """Open the camera and wait for its first frame.

        Raises:
            EdgeclfError: it can't be opened or gives no frame in time; the message says why and what to do.
            UsageError: entered before.
        """
        if self._watcher is not None:
            raise UsageError("A live source is entered once; open another with open_source.")
        self._watcher = threading.Thread(target=self._watch, name=f"watch {self._name}", daemon=True)
        self._watcher.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._state != "starting")
        except BaseException:  # Ctrl-C: nobody will call __exit__
            self.close()
            raise
        if self._refusal is not None:
            self.close()
            raise self._refusal
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, from any thread: an iteration that waits ends, the camera is given back. Twice does no harm."""
        self._closing = True
        self._wake.set()
        with self._changed:
            self._state, self._detail = "ended", ""
            self._changed.notify_all()
        if self._watcher is not None:
            self._watcher.join(2 * GRACE_S)

    def __iter__(self) -> Iterator[Frame]:
        if self._watcher is None:
            raise UsageError(f"{self.description} is opened by `with`: `with open_source(...) as source:`.")
        while (arrival := self._take()) is not None:
            shot = arrival.shot
            yield Frame(
                image=shot.image,
                color=shot.color,
                index=arrival.index,
                name=f"{self._name}#{arrival.index}",
                capture_ms=(arrival.arrived_ns - shot.captured_ns) / 1e6,
                captured_ns=shot.captured_ns,
                moment_ns=shot.captured_ns,
            )

    def status(self) -> SourceStatus:
        """How the camera is doing; from any thread."""
        with self._changed:
            period_ns = self._pace.period_ns
            return SourceStatus(
                state=self._state,
                detail=self._detail,
                captured=self._counts["captured"],
                dropped=self._newest.dropped,
                repeated=self._counts["repeated"],
                torn=self._counts["torn"],
                faults=self._counts["faults"],
                recoveries=self._counts["recoveries"],
                size=self._size,
                fps=1e9 / period_ns if period_ns and self._state == "live" else 0.0,
            )

    def take_notes(self) -> list[Note]:
        """What happened since the last call, the oldest first; of more than ``MAX_NOTES`` the last."""
        with self._changed:
            notes = list(self._notes)
            self._notes.clear()
            return notes

    def _take(self) -> Arrival | None:
        """The next fresh picture; None when the source is closed."""
        with self._changed:
            while self._state != "ended":
                period_ns = self._pace.period_ns
                stale_ns = self._limits.stale_after_ns(period_ns)
                arrival, wait_ns = self._newest.take(monotonic_ns(), period_ns=period_ns, stale_ns=stale_ns)
                if arrival is not None:
                    return arrival
                self._changed.wait(None if wait_ns is None else wait_ns / 1e9)
        return None

    # The reader's side

    def _arrived(self, reader: Reader, shot: Shot) -> None:
        shot.image.setflags(write=False)
        now_ns = monotonic_ns()
        with self._changed:
            if reader.leaving:
                return
            reader.returned_ns = now_ns
            if self._repeats.is_repeat(shot):
                self._repeated()
                return
            reader.heard_ns, reader.pictures = now_ns, reader.pictures + 1
            self._pace.beat(shot.captured_ns)
            self._note_resolution(size_of(shot.image))
            self._newest.put(Arrival(shot=shot, index=self._counts["captured"], arrived_ns=now_ns))
            self._counts["captured"] += 1
            self._counts["repeated in a row"] = self._counts["torn in a row"] = 0
            if self._state in ("starting", "stalled"):
                self._now_live(now_ns)
            self._changed.notify_all()

    def _now_live(self, now_ns: int) -> None:
        if self._state == "stalled":
            self._counts["recoveries"] += 1
            seconds = (now_ns - self._since_ns) / 1e9
            self._note("info", "recovery", f"{self._name}: frames again after {seconds:.1f} s.")
        else:
            self._note("info", "opened", f"{self._name}: opened.")
        self._state, self._detail, self._since_ns = "live", "", now_ns

    def _repeated(self) -> None:
        self._counts["repeated"] += 1
        self._counts["repeated in a row"] += 1
        if self._counts["repeated in a row"] == 1:
            self._note("warning", "repeated", f"{self._name}: the same picture again; it is not handed out.")

    def _torn(self, reader: Reader, error: TornError) -> None:
        with self._changed:
            if reader.leaving:
                return
            reader.returned_ns = monotonic_ns()
            self._counts["torn"] += 1
            self._counts["torn in a row"] += 1
            if self._counts["torn in a row"] == 1:
                self._note("warning", "torn", f"{self._name}: a picture arrived damaged ({error}); it is left out.")

    def _note_resolution(self, size: tuple[int, int]) -> None:
        if self._size is not None and size != self._size:
            (old_width, old_height), (width, height) = self._size, size
            text = f"{self._name}: the frames were {old_width}×{old_height} and are {width}×{height} now."
            self._note("warning", "resolution", text)
        self._size = size

    def _note(self, level: Level, kind: NoteKind, text: str) -> None:
        self._notes.append(Note(at_ns=monotonic_ns(), level=level, kind=kind, text=text))

    # The watcher's side

    def _watch(self) -> None:
        wait_ns = 0
        while not self._closing:
            if self._too_many_stuck():
                self._pause(self._limits.last_retry_ns)
                continue
            reader = Reader(self._open_capture, self._arrived, self._torn, self._wake)
            reader.start()
            kind, text = self._until_trouble(reader)
            if not self._closing:
                lived_ns = reader.heard_ns - reader.began_ns if reader.pictures else 0
                if not self._trouble(kind, text, reader):
                    self._leave(reader)
                    return
                wait_ns = self._limits.next_retry_ns(wait_ns, lived_ns)
            self._leave(reader)
            self._pause(round(wait_ns * random.uniform(0.5, 1)))  # noqa: S311 - spreads tries, hides nothing

    def _until_trouble(self, reader: Reader) -> tuple[NoteKind, str]:
        """Wait until the reader ended, gave nothing new in time, or the source is closed: which, in words."""
        while not self._closing:
            if reader.ended:
                return "lost", _reason(reader.error)
            period_ns = self._pace.period_ns
            settled = reader.pictures and period_ns  # until then the second picture may be as far as the first
            stale_ns = self._limits.stale_after_ns(period_ns)
            limit_ns = stale_ns if settled else self._limits.open_ns
            now_ns = monotonic_ns()
            left_ns = reader.heard_ns + limit_ns - now_ns
            if left_ns <= 0:
                seconds = limit_ns / 1e9
                if now_ns - reader.returned_ns < limit_ns // 2:
                    return "stall", f"Only repeated or damaged pictures came for {seconds:.1f} s."
                return "stall", f"No picture came for {seconds:.1f} s."
            self._wake.wait((left_ns if settled else min(left_ns, stale_ns // 4)) / 1e9)
            self._wake.clear()
        return "", ""

    def _trouble(self, kind: NoteKind, text: str, reader: Reader) -> bool:
        """Report what went wrong. False: it was the first opening, and its caller is told instead."""
        with self._changed:
            if self._state == "starting":
                self._refusal = _refusal(self.description, text, reader.error)
                self._state = "ended"
                self._changed.notify_all()
                return False
            if self._state == "live":
                self._counts["faults"] += 1
                self._since_ns = monotonic_ns()
            if self._state == "live" or text != self._detail:
                self._note("warning", kind, f"{self._name}: {text} Trying again until it is back.")
            if self._state != "ended":
                self._state, self._detail = "stalled", text
            if reader.pictures == 1:
                self._pace = Pace()  # it may have become slower than the limit
            self._pace.interrupt()
            self._changed.notify_all()
            return True

    def _leave(self, reader: Reader) -> None:
        """Let a reader go; one that is stuck in a call is remembered until it returns."""
        reader.leave()
        if not reader.is_alive():
            return
        self._stuck.append(reader)
        with self._changed:
            if self._state == "stalled":
                number = f"{len(self._stuck)} of at most {self._limits.stuck}"
                self._note("warning", "stuck", f"{self._name}: a read does not return; it is left behind ({number}).")

    def _too_many_stuck(self) -> bool:
        self._stuck = [reader for reader in self._stuck if reader.is_alive()]
        if len(self._stuck) < self._limits.stuck:
            return False
        text = (
            f"{len(self._stuck)} reads are stuck inside the camera's driver; no further try is made until one returns. "
            "Unplug the camera, or start the program again."
        )
        with self._changed:
            if self._state == "stalled" and self._detail != text:
                self._detail = text
                self._note("error", "stuck", f"{self._name}: {text}")
        return True

    def _pause(self, wait_ns: int) -> None:
        end_ns = monotonic_ns() + wait_ns
        while not self._closing and (left_ns := end_ns - monotonic_ns()) > 0:
            self._wake.wait(left_ns / 1e9)
            self._wake.clear()


def _reason(error: Exception | None) -> str:
    """Why a reader ended, in a sentence."""
    text = str(error) if isinstance(error, (LostError, EdgeclfError)) else first_line(error or LostError("It ended."))
    return text if text.endswith(".") else f"{text}."


def _refusal(description: str, text: str, error: Exception | None) -> Exception:
    """The error of a first opening that failed."""
    if isinstance(error, EdgeclfError):
        return error
    if error is None or isinstance(error, LostError):
        return DependencyError(
            f"{description} must give frames, but: {text} Check that it is connected and switched on."
        )
    return SystemStateError(f"{description} can't be opened: {text} Is its driver in order?")
