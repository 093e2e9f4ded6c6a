"""``picamera2:``, the Raspberry Pi's cameras. The package comes with Raspberry Pi OS, not from pip."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from importlib import import_module
from typing import Any

from edgeclf_device.errors import DependencyError, first_line
from edgeclf_device.sources.address import fps_option, number_option, size_option, split_options
from edgeclf_device.sources.capture import LostError, Shot
from edgeclf_device.sources.live import Live

SIZE = (1280, 720)
FIRST_WAIT_S, WAIT_S, WAIT_PERIODS = 5.0, 1.0, 5
"""How long the first picture is waited for, and each further one, or that many periods where those are longer."""


class Picamera2Capture:
    """A started ``picamera2.Picamera2`` that gives ``fps`` frames a second."""

    def __init__(self, camera: Any, fps: float) -> None:
        self._camera = camera
        self._steady_wait_s = max(WAIT_S, WAIT_PERIODS / fps)
        self._wait_s = max(FIRST_WAIT_S, self._steady_wait_s)

    def read(self) -> Shot:
        """The next completed request: its pixels, and the sensor's time of the start of its exposure."""
        try:
            request = self._camera.capture_request(wait=self._wait_s)
        except (RuntimeError, TimeoutError) as error:
            raise LostError(f"libcamera gives no frame ({first_line(error)}).") from error
        self._wait_s = self._steady_wait_s
        try:
            image = request.make_array("main")
            stamp_ns = request.get_metadata().get("SensorTimestamp")
        finally:
            request.release()
        captured_ns = time.monotonic_ns() if stamp_ns is None else from_boottime_ns(stamp_ns)
        return Shot(image=image, color="bgr", captured_ns=captured_ns, stamp=stamp_ns)

    def interrupt(self) -> None:
        """Nothing: libcamera is for one thread at a time; a read gives up by itself."""

    def close(self) -> None:
        """Stop the camera and give it back."""
        with contextlib.suppress(RuntimeError):
            self._camera.stop()
        self._camera.close()


def from_boottime_ns(stamp_ns: int) -> int:
    """A time of CLOCK_BOOTTIME, which libcamera gives, by ``time.monotonic_ns()``; never in the future."""
    now_ns = time.monotonic_ns()
    age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - stamp_ns
    return now_ns - max(age_ns, 0)


def open_picamera2(rest: str) -> Live:
    """``picamera2:0?size=1280x720&fps=30``; the number may be left out.

    Raises:
        UsageError: an option is not understood. What is wrong with the camera is raised on entering.
    """
    target, options = split_options("picamera2", rest, {"size": "1280x720", "fps": "30"})
    number = number_option("picamera2", target)
    size = size_option("picamera2", options, SIZE) or SIZE
    fps = fps_option("picamera2", options, 30.0)
    return Live(f"Raspberry Pi camera {number}", f"picamera{number}", partial(start_picamera2, number, size, fps))


def start_picamera2(number: int, size: tuple[int, int], fps: float) -> Picamera2Capture:
    """Start a camera: (width, height) ``size``, BGR.

    Raises:
        DependencyError: the package or the camera is not here, or the camera is in use.
    """
    try:
        module = import_module("picamera2")
    except ImportError as error:
        raise DependencyError(
            f"picamera2: needs the package picamera2, which does not import here ({first_line(error)}); it comes with "
            "Raspberry Pi OS: sudo apt install python3-picamera2, and python3 -m venv --system-site-packages."
        ) from error
    try:
        camera = module.Picamera2(number)
    except (RuntimeError, IndexError) as error:
        raise _closed(number, error) from error
    try:
        # picamera2 names formats by the order in a word: its RGB888 is BGR in memory.
        main = {"size": size, "format": "RGB888"}
        camera.configure(camera.create_video_configuration(main=main, controls={"FrameRate": fps}))
        camera.start()
    except Exception as error:
        camera.close()
        if isinstance(error, RuntimeError):
            raise _closed(number, error) from error
        raise
    return Picamera2Capture(camera, fps)


def _closed(number: int, error: Exception) -> DependencyError:
    return DependencyError(
        f"Raspberry Pi camera {number} can't be opened: libcamera says {first_line(error)!r}; check its cable and that "
        "no other program has it (rpicam-hello --list-cameras lists those there are)."
    )
