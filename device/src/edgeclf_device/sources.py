"""Frame sources: where frames come from. A registry by kind; every source is a context manager and an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from edgeclf_device.errors import DataError
from edgeclf_device.images import SUFFIXES, import_cv2, load
from edgeclf_device.preprocess import Color, Image

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        image: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        color: order of its channels.
        index: place in its source, from 0.
        name: for people: the file's name, in a folder its path below the folder, in a video ``name#index``.
        capture_ms: how long it took to get: reading and decoding.
    """

    image: Image = field(repr=False)
    color: Color
    index: int
    name: str
    capture_ms: float


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that could not be read, and why."""

    name: str
    reason: str


class Source(Protocol):
    """Where frames come from. Iterate over it once, inside ``with``.

    Attributes:
        description: for people, for example ``video street.avi``.
        total: number of frames, where it is known beforehand.
        rejected: images that could not be read so far; the others are still delivered.
    """

    description: str
    total: int | None
    rejected: list[Rejected]

    def __iter__(self) -> Iterator[Frame]: ...

    def __enter__(self) -> Source: ...

    def __exit__(self, *exception: object) -> None: ...


class Images:
    """Image files and ``.npy`` frames, in the order given. One that can't be read is listed in ``rejected``."""

    def __init__(self, description: str, files: list[tuple[str, Path]], *, strict: bool = False) -> None:
        self.description = description
        self.total: int | None = len(files)
        self.rejected: list[Rejected] = []
        self._files = files
        self._strict = strict

    def __iter__(self) -> Iterator[Frame]:
        for index, (name, path) in enumerate(self._files):
            begin = perf_counter()
            try:
                image = load(path)
            except DataError as error:
                if self._strict:
                    raise
                self.rejected.append(Rejected(name=name, reason=str(error)))
                continue
            yield Frame(image=image, color="rgb", index=index, name=name, capture_ms=(perf_counter() - begin) * 1e3)

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Video:
    """A video file, decoded by OpenCV as it is iterated over."""

    def __init__(self, path: Path, capture: Any, first: tuple[Image, float]) -> None:
        self.description = f"video {path.name}"
        count = int(capture.get(_FRAME_COUNT))
        self.total: int | None = count if count > 0 else None
        self.rejected: list[Rejected] = []
        self._name = path.name
        self._capture = capture
        self._first = first

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        read: tuple[Image, float] | None = self._first
        while read is not None:
            image, capture_ms = read
            yield Frame(image=image, color="bgr", index=index, name=f"{self._name}#{index}", capture_ms=capture_ms)
            index, read = index + 1, _read(self._capture)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.release()


_FRAME_COUNT = 7
"""The value of cv2.CAP_PROP_FRAME_COUNT."""


def open_source(spec: str) -> Source:
    """Open a frame source.

    Args:
        spec: a path, whose kind is found by looking at it, or ``KIND:PATH`` with a kind of ``KINDS``.

    Raises:
        DataError: nothing is there, it is of no supported kind, it is empty, or it is damaged.
        DependencyError: it needs OpenCV, which is not installed.
    """
    kind, separator, rest = spec.partition(":")
    if separator and kind in KINDS:
        return KINDS[kind](rest)
    return KINDS[kind_of(spec)](spec)


def open_frames(files: Sequence[Path]) -> Source:
    """A source of these image files and ``.npy`` frames, in this order, named by their paths.

    Raises:
        DataError: there are none.
    """
    if not files:
        raise DataError("A source needs at least one image file, but the list is empty.")
    return Images(f"{len(files)} images", [(file.as_posix(), file) for file in files])


def kind_of(spec: str) -> str:
    """The kind of the source at a path: ``folder``, ``image`` (``.npy`` frames too) or ``video``.

    Raises:
        DataError: nothing is there, or its name ends in no known suffix.
    """
    path = Path(spec)
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"A source must exist, but {spec} does not; {_supported()}.")
    if path.is_dir():
        return "folder"
    if suffix in SUFFIXES or suffix == ".npy":
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    raise DataError(f"{spec} is of no known kind; {_supported()}.")


def _open_image(spec: str) -> Source:
    path = Path(spec)
    return Images(f"image {path.name}", [(path.name, path)], strict=True)


def _open_folder(spec: str) -> Source:
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


def _open_video(spec: str) -> Source:
    path = Path(spec)
    if not path.is_file():
        raise DataError(f"A video must be a file, but {spec} is none.")
    if path.stat().st_size == 0:
        raise DataError(f"{spec} is empty (0 bytes); copy it again.")
    cv2 = import_cv2(f"Decoding {path.name}")
    capture = cv2.VideoCapture(str(path))
    first = _read(capture) if capture.isOpened() else None
    if first is None:
        capture.release()
        raise DataError(
            f"{spec} can't be decoded: it is damaged, has no frames, or its codec is not known; copy it again."
        )
    return Video(path, capture, first)


def _read(capture: Any) -> tuple[Image, float] | None:
    """(BGR frame, milliseconds it took), or None at the end."""
    begin = perf_counter()
    good, image = capture.read()
    return (image, (perf_counter() - begin) * 1e3) if good else None


def _supported() -> str:
    images = ", ".join(sorted(SUFFIXES))
    videos = ", ".join(sorted(VIDEO_SUFFIXES))
    return f"supported are a folder of images, an image ({images}), a frame (.npy) and a video ({videos})"


KINDS: dict[str, Callable[[str], Source]] = {"folder": _open_folder, "image": _open_image, "video": _open_video}
"""Every kind of source and what opens it. A kind added here is open to ``KIND:…`` at once."""
