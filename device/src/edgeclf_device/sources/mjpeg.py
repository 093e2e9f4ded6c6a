"""MJPEG over HTTP (``multipart/x-mixed-replace``), as IP cameras and mjpg-streamer send it, read by urllib alone.

Pictures are found by the structure of JPEG itself (ITU-T T.81, annex B), not by boundaries or stated lengths: many
cameras state them wrongly, and a boundary behind a picture would only come with the next one, a period late.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from time import monotonic_ns
from typing import Any
from urllib.parse import urlsplit

from edgeclf_device.errors import DataError, DependencyError, first_line
from edgeclf_device.images import decode, import_cv2
from edgeclf_device.sources.address import live_stream, shown, without_user
from edgeclf_device.sources.capture import LostError, Shot, TornError
from edgeclf_device.sources.live import Live

TIMEOUT_S = 5.0
"""For connecting, and between two pieces of the stream; the stall limit of the source is shorter."""
MAX_PICTURE_BYTES = 32 << 20
MAX_BETWEEN_BYTES = 64 << 10
"""What may stand between two pictures: a boundary and the headers of a part."""
PIECE_BYTES = 64 << 10

_START, _SCAN, _END = b"\xff\xd8\xff", 0xDA, 0xD9
_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In compressed data 0xff is followed by zero or a restart marker; anything else ends the scan."""


class JpegSplitter:
    """Cuts a stream of bytes into JPEG pictures; holds one picture at most."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0
        self._in_scan = False
        self._between = 0
        self._started_ns = 0

    def feed(self, data: bytes, now_ns: int) -> None:
        """Add what arrived at ``now_ns``."""
        if not self._at:
            self._started_ns = now_ns
        self._held += data

    def take(self) -> tuple[bytes, int] | None:
        """(the next whole picture, when its first byte arrived), or None where more bytes are needed.

        Raises:
            TornError: a picture ended before its end or is too large; the one behind it is next.
            LostError: what comes is no stream of pictures.
        """
        if not self._at and not self._find_start():
            return None
        end = self._find_end()
        if end is None:
            if len(self._held) > MAX_PICTURE_BYTES:
                self._forget(len(self._held))
                raise TornError(f"it is larger than {MAX_PICTURE_BYTES >> 20} MiB")
            return None
        picture = bytes(self._held[:end])
        started_ns = self._started_ns
        self._forget(end)
        return picture, started_ns

    def _find_start(self) -> bool:
        start = self._held.find(_START)
        junk = start if start >= 0 else max(len(self._held) - 2, 0)
        del self._held[:junk]
        self._between = self._between + junk if start < 0 else 0
        if self._between > MAX_BETWEEN_BYTES:
            raise LostError(f"It sent {MAX_BETWEEN_BYTES >> 10} KiB without a JPEG picture.")
        self._at, self._in_scan = (2, False) if start >= 0 else (0, False)
        return start >= 0

    def _find_end(self) -> int | None:
        """Where the picture ends; steps over its segments, and in each scan to the next marker."""
        held = self._held
        while True:
            if self._in_scan:
                match = _IN_SCAN.search(held, self._at)
                if match is None:
                    self._at = max(len(held) - 1, self._at)
                    return None
                self._at, self._in_scan = match.start(), False
            if len(held) < self._at + 4 and not (len(held) >= self._at + 2 and held[self._at + 1] == _END):
                return None
            marker = held[self._at + 1]
            if held[self._at] != 0xFF or marker == 0xD8 or marker < 0xC0:
                self._forget(max(self._at, 2))
                raise TornError("it was cut off")
            if marker == _END:
                return self._at + 2
            if marker == 0xFF:  # a fill byte
                self._at += 1
                continue
            self._at += 2 + int.from_bytes(held[self._at + 2 : self._at + 4], "big")
            self._in_scan = marker == _SCAN

    def _forget(self, count: int) -> None:
        del self._held[:count]
        self._at, self._in_scan = 0, False


class MjpegCapture:
    """The answer of a camera's HTTP server. Pictures that arrived together are all given, the oldest first."""

    def __init__(self, response: Any, name: str) -> None:
        self._response = response
        # Its own handle of the connection: another thread may shut it while this one closes the response.
        self._connection = socket.socket(fileno=os.dup(response.fileno()))
        self._name = Path(name)
        self._splitter = JpegSplitter()

    def read(self) -> Shot:
        """The next picture, with the time at which its first byte arrived."""
        while (found := self._splitter.take()) is None:
            try:
                data = self._response.read1(PIECE_BYTES)
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise LostError(f"The connection broke ({first_line(error)}).") from error
            if not data:
                raise LostError("The server ended the stream.")
            self._splitter.feed(data, monotonic_ns())
        picture, arrived_ns = found
        try:
            image = decode(picture, self._name)
        except DataError as error:
            raise TornError("it can't be decoded") from error
        return Shot(image=image, color="bgr", captured_ns=arrived_ns, stamp=hash(picture))

    def interrupt(self) -> None:
        """Shut the connection, on which a blocked read returns."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._response.close()


def open_mjpeg(scheme: str, rest: str) -> Live:
    """``http://name:password@host:8080/stream`` (also https, its certificate verified); connects on entering.

    Raises:
        UsageError: it names no host. What is wrong with the stream is raised on entering.
    """
    return live_stream(f"{scheme}:{rest}", connect)


def connect(url: str) -> MjpegCapture:
    """Ask for the stream.

    Raises:
        DependencyError: the camera does not answer, refuses, or its certificate can't be verified; OpenCV is missing.
        DataError: what it sends is no MJPEG stream.
    """
    import_cv2(f"Decoding {shown(url)}")
    bare, user, password = without_user(url)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if user is not None:
        passwords.add_password(None, bare, user, password)
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    )
    try:
        response = opener.open(bare, timeout=TIMEOUT_S)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error
    kind = response.headers.get_content_type()
    if response.headers.get_content_maintype() != "multipart":
        response.close()
        raise DataError(
            f"{shown(url)} must send multipart/x-mixed-replace, but it sends {kind}; "
            "name the camera's MJPEG stream itself, not its page or a single picture."
        )
    return MjpegCapture(response, shown(url))


def _unreachable(url: str, error: Exception) -> DependencyError:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (401, 403):
            return DependencyError(
                f"{shown(url)} must be allowed to this user, but the camera refuses ({error.code}); give name and "
                f"password as {urlsplit(shown(url)).scheme}://NAME:PASSWORD@…, or check them."
            )
        return DependencyError(f"{shown(url)} must be a stream, but the camera answers {error.code}; check the path.")
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DependencyError(
            f"{shown(url)} must show a certificate that can be verified, but: {reason.verify_message}; name the "
            "file of its issuer in SSL_CERT_FILE, or use http in a network that you trust."
        )
    text = first_line(reason) if isinstance(reason, BaseException) else str(reason)
    return DependencyError(f"{shown(url)} does not answer ({text}); check address and port, and that the camera is on.")
