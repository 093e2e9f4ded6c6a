"""What every source gives: frames, its status, and notes on what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgeclf_device.preprocess import Color, Image

State = Literal["starting", "live", "stalled", "ended"]
Level = Literal["info", "warning", "error"]
NoteKind = Literal["", "opened", "stall", "lost", "recovery", "resolution", "torn", "repeated", "stuck"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        image: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). A live source's is read-only: copy it to draw on it.
        color: order of its channels.
        index: place in its source, from 0; a live source leaves out the numbers of frames that nobody took.
        name: for people: the file's name, in a folder its path below the folder, in a video ``name#index``.
        capture_ms: how long it took to get once it was there: reading and decoding.
        captured_ns: when it was captured by ``time.monotonic_ns()``, as near to the sensor as the source can tell; of a
            file, when its reading began.
        moment_ns: when it shows what it shows, by one clock for all frames of the source: of a live source
            ``captured_ns``, of a video its time from the beginning; None for a picture, which follows upon no other.
    """

    image: Image = field(repr=False)
    color: Color
    index: int
    name: str
    capture_ms: float
    captured_ns: int
    moment_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SourceStatus:
    """How a source is doing.

    Attributes:
        state: ``starting`` before the first frame; ``live``; ``stalled`` while a camera gives nothing new and is being
            opened again; ``ended``.
        detail: for people: why it is stalled; empty while all is well.
        captured: frames that came, each picture once.
        dropped: of them, replaced by a newer one (or grown stale) before anyone took them.
        repeated: deliveries of a picture that had come before; never handed out.
        torn: pictures that arrived damaged; never handed out.
        faults: how often it ceased to be live.
        recoveries: how often it was live again.
        size: (width, height) of the last frame.
        fps: frames a second that come; 0 where that is not known, for files, and while nothing comes.
    """

    state: State
    detail: str = ""
    captured: int = 0
    dropped: int = 0
    repeated: int = 0
    torn: int = 0
    faults: int = 0
    recoveries: int = 0
    size: tuple[int, int] | None = None
    fps: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that happened to a source, in a sentence for people.

    Attributes:
        at_ns: when, by ``time.monotonic_ns()``.
        level: ``warning`` for what mends itself, ``error`` for what needs a hand.
        text: the sentence.
        kind: what it is, for programs.
    """

    at_ns: int
    level: Level
    text: str
    kind: NoteKind = ""


class Source(Protocol):
    """Where frames come from. Iterate over it once, inside ``with``.

    Attributes:
        description: for people, for example ``video street.avi``; never a password.
        total: number of frames, where it is known beforehand.
        rejected: images that could not be read so far; the others are still delivered.
    """

    description: str
    total: int | None
    rejected: list[Rejected]

    def __iter__(self) -> Iterator[Frame]: ...

    def status(self) -> SourceStatus:
        """How it is doing; from any thread."""

    def take_notes(self) -> list[Note]:
        """What happened since the last call, the oldest first; from any thread."""

    def close(self) -> None:
        """End it. Of a live source from any thread: an iteration that waits for a frame ends."""

    def __enter__(self) -> Source: ...

    def __exit__(self, *exception: object) -> None: ...


def size_of(image: Image) -> tuple[int, int]:
    """(width, height) of an image."""
    return int(image.shape[1]), int(image.shape[0])
