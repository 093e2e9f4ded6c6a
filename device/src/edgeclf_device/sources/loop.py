"""``loop:PATH``, a camera played from files: a video or a folder of images, over and over, at a steady pace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from edgeclf_device.errors import DataError
from edgeclf_device.preprocess import Color, Image
from edgeclf_device.sources.address import fps_option, split_options
from edgeclf_device.sources.capture import LostError, Shot, Ticks, TornError
from edgeclf_device.sources.files import Images, kind_of, open_capture, open_folder, open_image, rate_of
from edgeclf_device.sources.live import Live

FPS = 30.0


class LoopCapture:
    """Plays pictures at ``fps``; one is decoded when its time has come."""

    def __init__(self, pictures: Iterator[tuple[Image, Color]], fps: float, close: Callable[[], None]) -> None:
        self._pictures = pictures
        self._ticks = Ticks(fps)
        self._close = close

    def read(self) -> Shot:
        """Wait for the next tick."""
        tick_ns = self._ticks.wait()
        try:
            image, color = next(self._pictures)
        except StopIteration:
            raise LostError("It can't be read any more.") from None
        except DataError as error:
            raise TornError(str(error)) from error
        return Shot(image=image, color=color, captured_ns=tick_ns, stamp=tick_ns)

    def interrupt(self) -> None:
        """End the wait."""
        self._ticks.interrupt()

    def close(self) -> None:
        """Close the file."""
        self._close()


def open_loop(rest: str) -> Live:
    """``loop:PATH`` or ``loop:PATH?fps=30``: a video at its own pace, images at 30 a second, or as told.

    Raises:
        DataError: nothing is there, it is of no known kind, it is empty, or it is damaged.
        DependencyError: it needs OpenCV, which is not installed.
        UsageError: an option is not understood.
    """
    exists = os.path.exists(rest)  # noqa: PTH110 - Path.exists raises for a name that is too long
    target, options = (rest, {}) if exists else split_options("loop", rest, {"fps": "30"})
    fps = fps_option("loop", options, 0.0) if "fps" in options else None
    kind = kind_of(target)
    path = Path(target)
    if kind == "video":
        open_capture(path)[0].release()
        return Live(f"looping video {path.name}", path.name, partial(_start_video, path, fps))
    images = open_folder(target) if kind == "folder" else open_image(target)
    return Live(f"looping {images.description}", path.name, partial(_start_images, images, fps))


def _start_video(path: Path, fps: float | None) -> LoopCapture:
    capture, _ = open_capture(path)
    return LoopCapture(_video_pictures(path, capture), fps or rate_of(capture) or FPS, capture.release)


def _video_pictures(path: Path, capture: Any) -> Iterator[tuple[Image, Color]]:
    """Its frames, from the second on, and then from the beginning for ever."""
    while True:
        good, image = capture.read()
        if not good and not (capture.open(str(path)) and (first := capture.read())[0]):
            return
        yield (image if good else first[1]), "bgr"


def _start_images(images: Images, fps: float | None) -> LoopCapture:
    return LoopCapture(_image_pictures(images), fps or FPS, images.close)


def _image_pictures(images: Images) -> Iterator[tuple[Image, Color]]:
    while True:
        before = images.status().captured
        for frame in images:
            yield frame.image, frame.color
        if images.status().captured == before:
            return
