"""Frame sources: where frames come from. A registry by kind; every source is a context manager and an iterator."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from edgeclf_device.errors import DataError
from edgeclf_device.sources.files import (
    VIDEO_SUFFIXES,
    Images,
    Video,
    kind_of,
    open_folder,
    open_frames,
    open_image,
    open_video,
    supported_files,
)
from edgeclf_device.sources.frame import Frame, Level, Note, NoteKind, Rejected, Source, SourceStatus, State

__all__ = [
    "KINDS",
    "VIDEO_SUFFIXES",
    "Frame",
    "Images",
    "Level",
    "Note",
    "NoteKind",
    "Rejected",
    "Source",
    "SourceStatus",
    "State",
    "Video",
    "kind_of",
    "open_frames",
    "open_source",
]


def open_source(spec: str) -> Source:
    """Open a frame source. A camera or stream is opened (or connected to) on entering ``with``, not before.

    Args:
        spec: a path, whose kind is found by looking at it; ``KIND:REST`` with a kind of ``KINDS``; or a URL.

    Raises:
        DataError: nothing is there, it is of no supported kind, it is empty, or it is damaged.
        DependencyError: it needs OpenCV, which is not installed.
        UsageError: an option behind ``?`` is not understood.
    """
    if os.path.exists(spec):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return KINDS[kind_of(spec)](spec)
    kind, separator, rest = spec.partition(":")
    if separator and kind in KINDS:
        return KINDS[kind](rest)
    shown = spec.rpartition("@")[2]  # what stands before it may be a password
    raise DataError(
        f"A source must exist, but {shown} does not; {supported_files()}, and KIND:… of {', '.join(KINDS)}."
    )


def _open_later(module: str, name: str, *arguments: str) -> Callable[[str], Source]:
    """An opener of ``edgeclf_device.sources.module`` that is imported when it is used: files need no sockets."""

    def opener(rest: str) -> Source:
        from importlib import import_module

        source: Source = partial(getattr(import_module(f"{__name__}.{module}"), name), *arguments)(rest)
        return source

    return opener


KINDS: dict[str, Callable[[str], Source]] = {
    "folder": open_folder,
    "image": open_image,
    "video": open_video,
    "picamera2": _open_later("picamera2", "open_picamera2"),
    "v4l2": _open_later("opencv", "open_v4l2"),
    "csi": _open_later("opencv", "open_csi"),
    "rtsp": _open_later("opencv", "open_rtsp", "rtsp"),
    "rtsps": _open_later("opencv", "open_rtsp", "rtsps"),
    "http": _open_later("mjpeg", "open_mjpeg", "http"),
    "https": _open_later("mjpeg", "open_mjpeg", "https"),
    "loop": _open_later("loop", "open_loop"),
    "synthetic": _open_later("synthetic", "open_synthetic"),
    "stdin": _open_later("raw_frames", "open_stdin"),
}
"""Every kind of source and what opens it. A kind added here is open to ``KIND:…`` at once."""
