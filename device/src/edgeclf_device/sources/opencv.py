"""Cameras that OpenCV reads: V4L2 devices, Jetson CSI cameras through GStreamer, and RTSP streams."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any, Literal

from edgeclf_device.errors import DependencyError, UsageError
from edgeclf_device.images import import_cv2
from edgeclf_device.sources.address import fps_option, live_stream, number_option, shown, size_option, split_options
from edgeclf_device.sources.capture import LostError, Shot, TornError
from edgeclf_device.sources.devices import why_closed
from edgeclf_device.sources.live import Live

Stamps = Literal["sensor", "stream", "none"]
POSITION_MS, WIDTH, HEIGHT, FPS, FOURCC = 0, 3, 4, 5, 6
"""Values of cv2.CAP_PROP_POS_MSEC and its neighbours."""
MAX_SENSOR_AGE_NS = 2_000_000_000
OPEN_TIMEOUT_MS, READ_TIMEOUT_MS = 5000, 2000
FORMATS = ("MJPG", "YUYV", "NV12", "H264")


class OpenCVCapture:
    """A cv2.VideoCapture as a capture.

    Args:
        capture: opened.
        why_lost: says why it gives no more, in a sentence.
        stamps: what its CAP_PROP_POS_MSEC is: ``sensor``, the time of capture by the monotonic clock (V4L2's buffers);
            ``stream``, a time that only tells frames apart (RTSP); ``none``, nothing to rely on.
    """

    def __init__(self, capture: Any, why_lost: Callable[[], str], *, stamps: Stamps) -> None:
        self._capture = capture
        self._why_lost = why_lost
        self._stamps = stamps
        self._opened_ns = monotonic_ns()

    def read(self) -> Shot:
        """Grab the next frame, note the time, decode it."""
        if not self._capture.grab():
            raise LostError(self._why_lost())
        grabbed_ns = monotonic_ns()
        position_ms = 0.0 if self._stamps == "none" else float(self._capture.get(POSITION_MS))
        good, image = self._capture.retrieve()
        if not good or image is None or image.size == 0:
            raise TornError("OpenCV can't decode it")
        captured_ns = sensor_time_ns(position_ms, grabbed_ns) if self._stamps == "sensor" else None
        stamp = (self._opened_ns, position_ms) if position_ms > 0 else None
        return Shot(image=image, color="bgr", captured_ns=captured_ns or grabbed_ns, stamp=captured_ns or stamp)

    def interrupt(self) -> None:
        """Nothing: releasing a capture while another thread reads from it crashes."""

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def sensor_time_ns(position_ms: float, now_ns: int) -> int | None:
    """V4L2's time of a buffer, where it is one of the monotonic clock: not in the future, at most 2 s ago."""
    if not 0 < position_ms < 1e15:  # nor NaN
        return None
    stamp_ns = round(position_ms * 1e6)
    return stamp_ns if 0 <= now_ns - stamp_ns <= MAX_SENSOR_AGE_NS else None


def open_v4l2(rest: str) -> Live:
    """``v4l2:/dev/video0?size=1280x720&fps=30&format=MJPG``; ``v4l2:0`` is the same device.

    Raises:
        UsageError: an option is not understood. What is wrong with the camera is raised on entering.
    """
    allowed = {"size": "1280x720", "fps": "30", "format": FORMATS[0]}
    target, options = split_options("v4l2", rest, allowed)
    size_option("v4l2", options, None)
    fps_option("v4l2", options, 30.0)
    if options.get("format", FORMATS[0]) not in FORMATS:
        raise UsageError(f"v4l2: format must be one of {', '.join(FORMATS)}, but it is {options['format']!r}.")
    device = Path(f"/dev/video{target or 0}" if target.isdigit() or not target else target)
    return Live(f"camera {device}", device.name, partial(_start_v4l2, device, options))


def _start_v4l2(device: Path, options: Mapping[str, str]) -> OpenCVCapture:
    # A camera that hangs would keep its thread, and itself busy, for OpenCV's 10 seconds; read at its first capture.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    cv2 = import_cv2(f"Reading from {device}")
    if not (device.exists() and os.access(device, os.R_OK | os.W_OK)):
        raise why_closed(device)
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise why_closed(device)
    if "format" in options:
        capture.set(FOURCC, cv2.VideoWriter.fourcc(*options["format"]))
    if size := size_option("v4l2", options, None):
        capture.set(WIDTH, size[0])
        capture.set(HEIGHT, size[1])
    if "fps" in options:
        capture.set(FPS, float(options["fps"]))
    return OpenCVCapture(capture, partial(_why_v4l2_lost, device), stamps="sensor")


def _why_v4l2_lost(device: Path) -> str:
    return "It gives no frames any more." if device.exists() else f"It was unplugged: {device} is gone."


def open_csi(rest: str) -> Live:
    """``csi:0?size=1280x720&fps=30&flip=2``: a Jetson's camera through nvarguscamerasrc.

    Raises:
        UsageError: an option is not understood. What is wrong with the camera is raised on entering.
    """
    target, options = split_options("csi", rest, {"size": "1280x720", "fps": "30", "flip": "2"})
    number = number_option("csi", target)
    width, height = size_option("csi", options, (1280, 720)) or (1280, 720)
    flip = options.get("flip", "0")
    if flip not in tuple("01234567"):
        raise UsageError(f"csi: flip must be nvvidconv's flip-method, 0 to 7 (2 is upside down), but it is {flip!r}.")
    pipeline = csi_pipeline(number, width, height, fps_option("csi", options, 30.0), int(flip))
    return Live(f"CSI camera {number}", f"csi{number}", partial(_start_csi, number, pipeline))


def csi_pipeline(number: int, width: int, height: int, fps: float, flip: int) -> str:
    """The GStreamer pipeline: it keeps one frame, the newest, and hands it out as BGR."""
    rate = f"{round(fps * 1000)}/1000" if fps % 1 else f"{round(fps)}/1"
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate} ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def _start_csi(number: int, pipeline: str) -> OpenCVCapture:
    cv2 = import_cv2(f"Reading from CSI camera {number}")
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise DependencyError(
            f"csi: needs an OpenCV with GStreamer, which {cv2.__version__} from pip is not; use JetPack's: "
            "python3 -m venv --system-site-packages, without the extra `camera`."
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        capture.release()
        raise DependencyError(
            f"CSI camera {number} can't be opened: it is missing or in use; check its cable, "
            "then: sudo systemctl restart nvargus-daemon."
        )
    return OpenCVCapture(capture, lambda: "The pipeline gives no frames any more.", stamps="none")


def open_rtsp(scheme: str, rest: str) -> Live:
    """``rtsp://name:password@host:554/path``, also ``rtsps``, decoded by OpenCV's FFmpeg.

    Raises:
        UsageError: it names no host. What is wrong with the stream is raised on entering.
    """
    return live_stream(f"{scheme}:{rest}", _start_rtsp)


def _start_rtsp(url: str) -> OpenCVCapture:
    cv2 = import_cv2(f"Reading {shown(url)}")
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        capture.release()
        raise DependencyError(
            f"{shown(url)} can't be opened within {OPEN_TIMEOUT_MS // 1000} s; check address, name and password, and "
            "that the camera is on (ffprobe shows what it says)."
        )
    return OpenCVCapture(capture, lambda: "The stream ended, or sent nothing.", stamps="stream")
