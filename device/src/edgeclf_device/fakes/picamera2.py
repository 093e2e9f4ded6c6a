"""The package picamera2, as far as a source uses it, without libcamera and without a camera."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgeclf_device.preprocess import Image
from edgeclf_device.sources.capture import Ticks
from edgeclf_device.sources.synthetic import pattern


class FakePicamera2:
    """Stands in for the module picamera2: ``sys.modules["picamera2"] = FakePicamera2()`` before a source is opened.

    Args:
        cameras: how many there are; a number beyond is a ``RuntimeError``, as without a camera.
        way_ms: how long a frame takes from the sensor to the request.
    """

    def __init__(self, *, cameras: int = 1, way_ms: float = 0.0) -> None:
        self.cameras = cameras
        self.way_ms = way_ms
        self.opened: list[FakePicamera2Camera] = []
        self.silent = False

    def Picamera2(self, number: int = 0) -> FakePicamera2Camera:  # noqa: N802 - the name of the class it stands for
        """Open a camera, which one program at a time can."""
        if number >= self.cameras:
            raise RuntimeError("Camera(s) not found (Do you have a /dev/dma_heap?)")
        if any(camera.number == number and not camera.closed for camera in self.opened):
            raise RuntimeError("Camera __init__ sequence did not complete.")
        self.opened.append(FakePicamera2Camera(self, number))
        return self.opened[-1]


class FakePicamera2Camera:
    """What ``picamera2.Picamera2(number)`` gives: as much of it as a source needs."""

    def __init__(self, module: FakePicamera2, number: int) -> None:
        self.number = number
        self.closed = self.started = False
        self.configuration: dict[str, Any] = {}
        self._module = module
        self._index = 0

    def create_video_configuration(self, *, main: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
        """A configuration of these."""
        return {"main": main, "controls": controls}

    def configure(self, configuration: dict[str, Any]) -> None:
        """Use it."""
        self.configuration = configuration

    def start(self) -> None:
        """Begin to give frames."""
        self.started = True
        self._ticks = Ticks(self.configuration["controls"]["FrameRate"])

    def capture_request(self, *, wait: float) -> FakeRequest:
        """Wait for the next frame, but not longer than ``wait`` seconds."""
        if self._module.silent or not self.started:
            time.sleep(wait)
            raise TimeoutError
        self._ticks.wait()
        self._index += 1
        return FakeRequest(pattern(self.configuration["main"]["size"], self._index), self._module.way_ms)

    def stop(self) -> None:
        """Give no more frames."""
        self.started = False

    def close(self) -> None:
        """Give the camera back."""
        self.closed = True


class FakeRequest:
    """A completed request: its pixels are BGR, its time is CLOCK_BOOTTIME."""

    def __init__(self, image: Image, way_ms: float) -> None:
        self._image = np.ascontiguousarray(image[:, :, ::-1])
        self._sensor_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - round(way_ms * 1e6)
        self.released = False

    def make_array(self, name: str) -> Image:
        """A copy of the pixels of the stream ``name``."""
        assert name == "main"  # noqa: S101 - the fake has no other
        return self._image.copy()

    def get_metadata(self) -> dict[str, Any]:
        """What libcamera says of the frame."""
        return {"SensorTimestamp": self._sensor_ns}

    def release(self) -> None:
        """Give the buffer back."""
        self.released = True
