"""The page's answers: its files, pictures, events, metrics and health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from importlib import resources
from time import monotonic_ns
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgeclf_device.web import metrics
from edgeclf_device.web.hub import Hub, Shown
from edgeclf_device.web.picture import encode

PER_S = 15
"""Pictures made in a second, and events sent to one viewer in a second, at most."""

MAX_VIEWERS = 32
SILENCE_S = 1.0
"""A viewer hears something at least this often, so that it can tell a quiet source from a lost connection."""

PICTURE_TIMEOUT_S = 5.0
RETRY_MS = 2000
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A JPEG of the event with this number, and the loop's time when it was made."""

    jpeg: bytes
    number: int
    index: int
    made_s: float


class Pictures:
    """Makes pictures when they are asked for: at most ``PER_S`` in a second, each once for all viewers."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._last: Picture | None = None
        self._making = asyncio.Lock()

    async def newer_than(self, number: int) -> Picture | None:
        """The newest picture as soon as its number is higher; None if none comes within ``PICTURE_TIMEOUT_S``."""
        if await self._hub.newer_than(number, PICTURE_TIMEOUT_S) is None:
            return None
        loop = asyncio.get_running_loop()
        async with self._making:
            last = self._last
            if last is not None:
                wait_s = last.made_s + 1 / PER_S - loop.time()
                if last.number > number and (wait_s > 0 or last.number == self._newest().number):
                    return last
                await asyncio.sleep(max(0.0, wait_s))
            self._last = await loop.run_in_executor(None, _make, self._newest(), loop.time())
            return self._last

    def _newest(self) -> Shown:
        newest = self._hub.newest
        assert newest is not None  # noqa: S101 - newer_than has seen one
        return newest


class Watching(StreamingResponse):
    """Events for one viewer, who is counted."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(_stream(hub), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI's
        self._hub.viewers += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.viewers -= 1


def make_app(hub: Hub) -> Starlette:
    """The ASGI application that shows what ``hub`` holds."""
    pictures = Pictures(hub)

    async def picture(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit()):
            return PlainTextResponse("after must be the number of a picture.\n", 400)
        made = await pictures.newer_than(int(after))
        if made is None:
            return Response(status_code=204)
        return Response(
            made.jpeg, media_type="image/jpeg", headers={"X-Number": str(made.number), "X-Index": str(made.index)}
        )

    async def events(request: Request) -> Response:
        if hub.viewers >= MAX_VIEWERS:
            text = f"{MAX_VIEWERS} viewers watch already, and more are not served; close another page.\n"
            return PlainTextResponse(text, 503, {"Retry-After": "10"})
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return Watching(hub)

    async def exposition(_: Request) -> Response:
        return Response(hub.metrics(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def healthz(_: Request) -> Response:
        now_ns = monotonic_ns()
        state, reason = hub.freshness(now_ns)
        shown = {
            "healthy": state == "live",
            "state": state,
            "reason": reason,
            "frames": hub.meter.frames,
            "frame_age_ms": hub.frame_age_ms(now_ns),
        }
        return JSONResponse(shown, 200 if state == "live" else 503)

    return Starlette(
        routes=[
            *(Route(path, file_answer(__package__, *file)) for path, file in FILES.items()),
            Route("/frame.jpg", picture),
            Route("/events", events),
            Route("/metrics", exposition),
            Route("/healthz", healthz),
        ]
    )


async def _stream(hub: Hub) -> AsyncIterator[bytes]:
    """What one viewer hears. Each ``yield`` waits until what was said before has left."""
    yield f"retry: {RETRY_MS}\n".encode() + _said(asdict(hub.facts), name="facts")
    number = logged = 0
    while not hub.closed:
        # An empty comment first: when it is through, what follows is made of the newest event, not of one that has
        # waited for a slow viewer.
        yield b":\n\n"
        shown = await hub.newer_than(number, SILENCE_S)
        if shown is None:
            message, logged = hub.state_message(logged)
            yield _said(message, name="state")
        else:
            number = shown.number
            message, logged = hub.event_message(shown, logged)
            yield _said(message, identity=number)
            await asyncio.sleep(1 / PER_S)
    yield _said({}, name="end")


def _said(message: dict[str, Any], *, name: str | None = None, identity: int | None = None) -> bytes:
    """One server-sent event; without a name it is what ``EventSource.onmessage`` gets."""
    head = (f"event: {name}\n" if name else "") + (f"id: {identity}\n" if identity else "")
    return f"{head}data: {json.dumps(message, ensure_ascii=False)}\n\n".encode("utf-8", "backslashreplace")


def file_answer(package: str, name: str, media_type: str) -> Any:
    """An endpoint that answers with a file of a package."""
    content = (resources.files(package) / name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _make(shown: Shown, now_s: float) -> Picture:
    frame = shown.event.frame
    return Picture(jpeg=encode(frame.image, frame.color), number=shown.number, index=frame.index, made_s=now_s)
