"""Sources that end: image files, folders of them, ``.npy`` frames and videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns
from typing import Any

from edgeclf_device.clips import frame_ns
from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES, import_cv2, load
from edgeclf_device.preprocess import Color, Image
from edgeclf_device.sources._containers import why_not
from edgeclf_device.sources.frame import Frame, Note, Rejected, SourceStatus, State, size_of

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
FRAME_COUNT, _FPS = 7, 5
"""The values of cv2.CAP_PROP_FRAME_COUNT and cv2.CAP_PROP_FPS."""
MAX_RATE = 1000.0
"""Frames a second; a video that names more names nonsense."""


class _Finite:
    """What image files and videos share: a status that counts, and no notes."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description = description
        self.total = total
        self.rejected: list[Rejected] = []
        self._state: State = "starting"
        self._captured = 0
        self._size: tuple[int, int] | None = None

    def status(self) -> SourceStatus:
        """How far it is. Damaged images are in ``rejected``."""
        return SourceStatus(state=self._state, captured=self._captured, size=self._size)

    def take_notes(self) -> list[Note]:
        """Nothing: what can't be read is in ``rejected``."""
        return []

    def _frame(self, image: Image, color: Color, index: int, name: str, begin_ns: int) -> Frame:
        self._state, self._size = "live", size_of(image)
        self._captured += 1
        capture_ms = (monotonic_ns() - begin_ns) / 1e6
        return Frame(image=image, color=color, index=index, name=name, capture_ms=capture_ms, captured_ns=begin_ns)


class Images(_Finite):
    """Image files and ``.npy`` frames, in the order given. One that can't be read is listed in ``rejected``."""

    def __init__(self, description: str, files: list[tuple[str, Path]], *, strict: bool = False) -> None:
        super().__init__(description, len(files))
        self._files = files
        self._strict = strict

    def __iter__(self) -> Iterator[Frame]:
        for index, (name, path) in enumerate(self._files):
            begin_ns = monotonic_ns()
            try:
                image = load(path)
            except DataError as error:
                if self._strict:
                    raise
                self.rejected.append(Rejected(name=name, reason=str(error)))
                continue
            yield self._frame(image, "rgb", index, name, begin_ns)
        self._state = "ended"

    def close(self) -> None:
        """Nothing is held open between two images."""
        self._state = "ended"

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Video(_Finite):
    """A video file, decoded by OpenCV as it is iterated over."""

    def __init__(self, path: Path, capture: Any, first: tuple[Image, int]) -> None:
        count = int(capture.get(FRAME_COUNT))
        super().__init__(f"video {path.name}", count if count > 0 else None)
        self._name = path.name
        self._capture = capture
        self._first = first
        self._rate = rate_of(capture)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        read: tuple[Image, int] | None = self._first
        while read is not None:
            image, begin_ns = read
            frame = self._frame(image, "bgr", index, f"{self._name}#{index}", begin_ns)
            yield frame if self._rate is None else replace(frame, moment_ns=frame_ns(index, self._rate))
            index, read = index + 1, _read(self._capture)
        self._state = "ended"

    def close(self) -> None:
        """Close the file."""
        self._state = "ended"
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def kind_of(spec: str) -> str:
    """The kind of the source at a path: ``folder``, ``image`` (``.npy`` frames too) or ``video``.

    Raises:
        DataError: nothing is there, or its name ends in no known suffix.
    """
    path = Path(spec)
    suffix = path.suffix.lower()
    if not os.path.exists(spec):  # noqa: PTH110 - Path.exists raises for a name that is too long
        raise DataError(f"A source must exist, but {spec} does not; {supported_files()}.")
    if path.is_dir():
        return "folder"
    if suffix in SUFFIXES or suffix == ".npy":
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    raise DataError(f"{spec} is of no known kind; {supported_files()}.")


def supported_files() -> str:
    """What paths may lead to, for messages."""
    images = ", ".join(sorted(SUFFIXES))
    videos = ", ".join(sorted(VIDEO_SUFFIXES))
    return f"supported are a folder of images, an image ({images}), a frame (.npy) and a video ({videos})"


def open_frames(files: Sequence[Path]) -> Images:
    """A source of these image files and ``.npy`` frames, in this order, named by their paths.

    Raises:
        DataError: there are none.
    """
    if not files:
        raise DataError("A source needs at least one image file, but the list is empty.")
    return Images(f"{len(files)} images", [(file.as_posix(), file) for file in files])


def open_image(spec: str) -> Images:
    """One image or ``.npy`` frame; that it can't be read is an error when it is iterated over."""
    path = Path(spec)
    return Images(f"image {path.name}", [(path.name, path)], strict=True)


def open_folder(spec: str) -> Images:
    """All images of a folder and of those below it, by name.

    Raises:
        DataError: it is no folder, or holds no images.
        DependencyError: it needs OpenCV, which is not installed.
    """
    folder = Path(spec)
    if not folder.is_dir():
        raise DataError(f"A source of images must be a folder, but {spec} is none.")
    found = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES | {".npy"} and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise DataError(
            f"{spec} holds no images ({', '.join(sorted(SUFFIXES))} or .npy), in no folder below it either."
        )
    if any(path.suffix.lower() != ".npy" for _, path in found):
        import_cv2(f"Decoding the images of {spec}")  # now, not in the middle of the folder
    return Images(f"folder {folder.name}", found)


def open_video(spec: str) -> Video:
    """A video file.

    Raises:
        DataError: it is none, empty, damaged, or of an unknown codec.
        DependencyError: OpenCV is not installed.
    """
    path = Path(spec)
    capture, first = open_capture(path)
    return Video(path, capture, first)


def open_capture(path: Path) -> tuple[Any, tuple[Image, int]]:
    """(cv2.VideoCapture of a video file, its first frame and when its reading began); errors of ``open_video``."""
    if not path.is_file():
        raise DataError(f"A video must be a file, but {path} is none.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy it again.")
    cv2 = import_cv2(f"Decoding {path.name}")
    capture = cv2.VideoCapture(str(path))
    first = _read(capture) if capture.isOpened() else None
    if first is None:
        opened = capture.isOpened()
        capture.release()
        none = "has no frame that can be decoded; copy it again, or remove it."
        raise DataError(f"{path} {none if opened else why_not(path)}")
    return capture, first


def rate_of(capture: Any) -> float | None:
    """Frames a second of an opened video; None where it does not say."""
    rate = float(capture.get(_FPS))
    return rate if 0 < rate <= MAX_RATE else None


def _read(capture: Any) -> tuple[Image, int] | None:
    """(BGR frame, when its reading began), or None at the end."""
    begin_ns = monotonic_ns()
    good, image = capture.read()
    return (image, begin_ns) if good else None
