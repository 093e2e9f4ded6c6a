"""An IP camera on 127.0.0.1: MJPEG over HTTP, with faults."""

from __future__ import annotations

import base64
import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic_ns
from typing import Any, Literal

from edgeclf_device.images import import_cv2
from edgeclf_device.preprocess import Image
from edgeclf_device.sources.capture import LostError, Ticks
from edgeclf_device.sources.synthetic import pattern

Size = tuple[int, int]
StreamFaultKind = Literal["stall", "disconnect", "repeat", "torn", "resize", "length", "headers"]


@dataclass(frozen=True, kw_only=True)
class StreamFault:
    """What an ``MjpegServer`` is to do.

    Attributes:
        kind: ``stall``: silence for ``seconds``; ``disconnect``; ``repeat``: the same picture for so long; ``torn``:
            half a picture; ``resize``: pictures of another size from now on; ``length``: a wrong Content-Length;
            ``headers``: headers of a part that do not end.
        seconds: see ``kind``.
        size: (width, height) to change to.
    """

    kind: StreamFaultKind
    seconds: float = 0.0
    size: Size = (320, 240)


class MjpegServer:
    """An IP camera on 127.0.0.1: ``with MjpegServer() as server: open_source(server.url)``. Needs OpenCV.

    Args:
        size: (width, height) of its pictures.
        fps: pictures a second.
        picture: gives picture number n of a size, uint8 (H, W, 3) RGB; the synthetic pattern if not given.
        credentials: ``name:password`` that it asks for.
        tls: speaks https with this context.
    """

    def __init__(
        self,
        *,
        size: Size = (640, 480),
        fps: float = 30.0,
        picture: Callable[[Size, int], Image] = pattern,
        credentials: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.size = size
        self.fps = fps
        self.connections = 0
        self._cv2 = import_cv2("Serving MJPEG")
        self._picture = picture
        self._authorization = credentials and f"Basic {base64.b64encode(credentials.encode()).decode()}"
        self._faults: deque[StreamFault] = deque()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where the stream is."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/stream"

    def inject(self, fault: StreamFault) -> None:
        """Let a fault begin with the next picture, of whichever connection sends it."""
        self._faults.append(fault)

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Send the stream until the other side goes away."""
        if self._authorization and request.headers.get("Authorization") != self._authorization:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
            return
        self.connections += 1
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        with contextlib.suppress(OSError, LostError):
            self._stream(request)

    def _stream(self, request: BaseHTTPRequestHandler) -> None:
        ticks = Ticks(self.fps)
        index = 0
        repeat_until_ns = 0
        while not self._closing.is_set():
            ticks.wait()
            index += monotonic_ns() >= repeat_until_ns
            fault = self._faults.popleft() if self._faults else None
            if fault is not None and fault.kind == "repeat":
                repeat_until_ns = monotonic_ns() + round(fault.seconds * 1e9)
            jpeg = self._encode(index, fault)
            if fault is None or not self._misbehave(request, fault, jpeg):
                request.wfile.write(_part(jpeg, len(jpeg)))

    def _encode(self, index: int, fault: StreamFault | None) -> bytes:
        if fault is not None and fault.kind == "resize":
            self.size = fault.size
        good, data = self._cv2.imencode(".jpg", self._picture(self.size, index)[:, :, ::-1])
        if not good:
            raise LostError("The picture can't be encoded.")
        return bytes(data.tobytes())

    def _misbehave(self, request: BaseHTTPRequestHandler, fault: StreamFault, jpeg: bytes) -> bool:
        """Do it; whether it stands in the place of a picture."""
        if fault.kind == "torn":
            request.wfile.write(_part(jpeg[: len(jpeg) // 2], len(jpeg) // 2))
        elif fault.kind == "length":
            request.wfile.write(_part(jpeg, len(jpeg) // 3))
        elif fault.kind == "stall":
            self._closing.wait(fault.seconds)
        elif fault.kind == "disconnect":
            raise LostError("The server was told to disconnect.")
        elif fault.kind == "headers":
            while not self._closing.is_set():
                request.wfile.write(b"X-Endless: " + b"a" * 1000 + b"\r\n")
        return fault.kind not in ("resize", "repeat")


def _part(jpeg: bytes, length: int) -> bytes:
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (length, jpeg)


def _handler(server: MjpegServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
