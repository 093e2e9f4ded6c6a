"""Keep the frames that a classifier is least sure of in a bounded folder, for a person to label: see ``hard_frames``.

Inference never waits for it: a thread of its own encodes and writes, one frame of each moment. What can't be written
(disk full, folder gone) costs kept frames, and is noted. The frames stay where they are: nothing sends them anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from time import monotonic_ns
from types import TracebackType

import numpy as np

from edgeclf_device.atomic import write_bytes
from edgeclf_device.errors import DependencyError, SystemStateError, first_line
from edgeclf_device.hard_frames import Hard, Limits, displaced, look_of
from edgeclf_device.hard_record import Record, kept_frame, record_of
from edgeclf_device.images import png
from edgeclf_device.preprocess import Color, Image
from edgeclf_device.sources import Level, Note
from edgeclf_device.streaming import Event
from edgeclf_device.uncertainty import uncertainty

TOP = 3
"""Labels with their scores in a record."""
SUFFIXES = (".png", ".npy")
MAX_NOTES = 100
FINISH_S, GRACE_S = 10.0, 0.4
"""How long the disk is waited for at the end of a source, and at an end that may not wait."""
_OURS = re.compile(r"\.?[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{8}\.(png|npy|json).*")


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """The least sure frame of a moment so far, which began at ``begin_ns`` with the frame ``begin_index``."""

    event: Event
    unsure: float
    begin_ns: int
    begin_index: int


class KeepHard:
    """Called with every event; keeps the least sure frames. A context manager.

    Where OpenCV is installed a frame becomes a PNG, else a ``.npy`` file in RGB: both without loss, because what a
    network finds hard may be what a JPEG would change. Beside it lies its record, see ``hard_record``.

    Args:
        folder: made where it does not exist; frames kept there earlier count.
        artifact: SHA-256 of the classifier's model, for the records.
        source: the source's description, for the records.
        measure: of uncertainty, one of ``uncertainty.MEASURES``.
        limits: what may be kept.

    Attributes:
        folder: where frames are kept.
        lost: frames that were to be kept and could not be written.

    Raises:
        SystemStateError: the folder can't be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        artifact: str,
        source: str = "",
        measure: str = "margin",
        limits: Limits | None = None,
    ) -> None:
        self.folder = folder
        self.lost = 0
        self._limits = limits or Limits()
        self._about = {"artifact": artifact, "source": source, "measure": measure}
        self._kept = _found(folder)
        self._moment: Candidate | None = None
        self._waiting: Candidate | None = None
        self._closing = False
        self._failing = False
        self._news = threading.Condition()
        self._notes: deque[Note] = deque(maxlen=MAX_NOTES)
        self._thread = threading.Thread(target=self._work, name="keep hard frames", daemon=True)
        self._thread.start()

    @property
    def kept(self) -> int:
        """How many frames the folder holds."""
        return len(self._kept)

    def __call__(self, event: Event) -> None:
        """Look at one event, in a fraction of a millisecond; where each frame is a moment it waits for the writing."""
        moment, frame, limits = self._moment, event.frame, self._limits
        if moment is not None and (
            frame.captured_ns - moment.begin_ns >= limits.apart_ms * 1e6
            or frame.index - moment.begin_index >= limits.apart_frames
        ):
            wait_s = FINISH_S if limits.apart_frames == 1 else 0.0
            moment = None if self._hand_over(moment, wait_s) else moment
        unsure = uncertainty(event.result, self._about["measure"])
        if unsure and unsure >= limits.unsure and (moment is None or unsure > moment.unsure):
            begin = (frame.captured_ns, frame.index) if moment is None else (moment.begin_ns, moment.begin_index)
            moment = Candidate(event=event, unsure=unsure, begin_ns=begin[0], begin_index=begin[1])
        self._moment = moment

    def take_notes(self) -> list[Note]:
        """What there was to say since the last call, the oldest first; from any thread."""
        return [self._notes.popleft() for _ in range(len(self._notes))]

    def close(self, *, finish: bool = True) -> None:
        """Write the last moment's frame, and end; where ``finish`` is false, in about a second."""
        timeout_s = FINISH_S if finish else GRACE_S
        moment, self._moment = self._moment, None
        if moment is not None and not self._hand_over(moment, timeout_s):
            self.lost += 1
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join(timeout_s)

    def __enter__(self) -> KeepHard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=error is None)

    def _hand_over(self, moment: Candidate, wait_s: float) -> bool:
        """Give a moment to the thread; False where that is busy for so long: then the moment goes on."""
        with self._news:
            if not self._news.wait_for(lambda: self._waiting is None, wait_s):
                return False
            self._waiting = moment
            self._news.notify_all()
        return True

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting is not None or self._closing)
                candidate = self._waiting
            if candidate is None:
                return
            try:
                self._keep(candidate)
            except Exception as error:  # noqa: BLE001 - whatever an encoder or a disk may do must not end the thread
                self._fail(error)
            with self._news:
                self._waiting = None
                self._news.notify_all()

    def _keep(self, candidate: Candidate) -> None:
        """Keep a frame where it is among the least sure, in place of those that make way for it."""
        self._kept = [one for one in self._kept if (self.folder / one.name).exists()]  # a person may take some away
        frame = candidate.event.frame
        new = Hard(name="", unsure=candidate.unsure, size_bytes=0, look=look_of(frame.image))
        if displaced(self._kept, new, self._limits) is None:
            return
        suffix, data = _encoded(frame.image, frame.color)
        captured = datetime.now(timezone.utc) - timedelta(microseconds=(monotonic_ns() - frame.captured_ns) / 1e3)
        name = f"{captured:%Y%m%dT%H%M%S}.{captured.microsecond // 1000:03}Z-{hashlib.sha256(data).hexdigest()[:8]}"
        record = self._record(candidate, captured, new)
        new = replace(new, name=name + suffix, size_bytes=len(data) + len(record))
        gone = displaced(self._kept, new, self._limits)
        if gone is None:
            return
        if shutil.disk_usage(self.folder).free - new.size_bytes < self._limits.free_bytes:
            raise SystemStateError(f"less than {self._limits.free_bytes >> 20} MiB would be left free")
        self._write(new.name, data, record)
        self._kept.append(new)
        for one in gone:
            self._remove(one.name)
            self._kept.remove(one)
        if self._failing:
            self._failing = False
            self._note("info", f"Hard frames are kept in {self.folder} again; {self.lost} were not.")

    def _record(self, candidate: Candidate, captured: datetime, new: Hard) -> bytes:
        result, frame = candidate.event.result, candidate.event.frame
        record = Record(
            time=captured.isoformat(timespec="milliseconds"),
            name=frame.name,
            index=frame.index,
            label=result.label,
            score=result.score,
            top=tuple(result.top(TOP)),
            unsure=candidate.unsure,
            look=new.look.tobytes().hex(),
            **self._about,
        )
        return (json.dumps(record.to_json(), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")

    def _write(self, name: str, data: bytes, record: bytes) -> None:
        path = self.folder / name
        write_bytes(record_of(path), record)  # first: an image without one counts as the surest
        try:
            write_bytes(path, data)
        except BaseException:
            record_of(path).unlink(missing_ok=True)
            raise

    def _remove(self, name: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        record_of(path).unlink(missing_ok=True)

    def _fail(self, error: Exception) -> None:
        self.lost += 1
        if not self._failing:
            self._failing = True
            cause = error.__cause__ or error
            reason = (getattr(cause, "strerror", None) or first_line(cause)).rstrip(".")
            text = f"A hard frame can't be kept in {self.folder}: {reason}. Classifying goes on; free space."
            self._note("error", text)

    def _note(self, level: Level, text: str) -> None:
        self._notes.append(Note(at_ns=monotonic_ns(), level=level, text=text))


def _found(folder: Path) -> list[Hard]:
    """What an earlier run kept there; what it left half-written, when the power went, is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        kept = []
        for path in sorted(folder.iterdir()):
            if _OURS.fullmatch(path.name) is None:
                continue
            if path.name.startswith(".") or (path.suffix == ".json" and not _has_image(path)):
                path.unlink(missing_ok=True)
            elif path.suffix in SUFFIXES:
                kept.append(kept_frame(path))
    except OSError as error:
        raise SystemStateError(
            f"Hard frames can't be kept in {folder}: {error.strerror or error}; choose another place."
        ) from error
    return kept


def _has_image(record: Path) -> bool:
    return any(record.with_suffix(suffix).exists() for suffix in SUFFIXES)


def _encoded(image: Image, color: Color) -> tuple[str, bytes]:
    """(suffix, file) of a frame."""
    try:
        return ".png", png(image, color)
    except DependencyError:
        pass
    channels = image.shape[2] if image.ndim == 3 else 1
    red_first = image if color == "rgb" or channels < 3 else image[:, :, [2, 1, 0, *range(3, channels)]]
    file = io.BytesIO()
    np.save(file, red_first, allow_pickle=False)
    return ".npy", file.getvalue()
