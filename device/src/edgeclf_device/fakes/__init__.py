"""Cameras that are not there, for tests of programs that use one: with the faults that real ones have.

``FaultyCamera`` stands behind a live source, ``FakePicamera2`` in the place of the package picamera2, ``MjpegServer``
at the other end of an ``http:`` source. None of them needs a camera; the server needs OpenCV.
"""

from __future__ import annotations

from edgeclf_device.fakes.faulty import Fault, FaultyCamera
from edgeclf_device.fakes.mjpeg import MjpegServer, StreamFault
from edgeclf_device.fakes.picamera2 import FakePicamera2

__all__ = ["FakePicamera2", "Fault", "FaultyCamera", "MjpegServer", "StreamFault"]
