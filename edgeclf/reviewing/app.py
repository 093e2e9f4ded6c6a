"""The page's answers: its files, the next image, its picture, and what is decided."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgeclf.reviewing.session import Review
from edgeclf_device.errors import DataError, EdgeclfError, SystemStateError, UsageError
from edgeclf_device.web.app import file_answer

MAX_BODY_BYTES = 4096
STATUS: dict[type[EdgeclfError], int] = {UsageError: 409, DataError: 422, SystemStateError: 507}
"""What the status of an answer says: look again, this can't be, the machine can't do it now."""


def make_app(review: Review) -> Starlette:
    """The ASGI application through which a person reviews."""

    def following(after: int) -> dict[str, Any]:
        image = review.next_after(after)  # before the state, which tells what could not be read meanwhile
        return {"image": image, **review.state()}

    def decided(body: dict[str, Any]) -> dict[str, Any]:
        number, label, new = _field(body, "number", int), _field(body, "label", str | None), _field(body, "new", bool)
        review.decide(number, label, new=new)
        return following(number)

    def undone(body: dict[str, Any]) -> dict[str, Any]:
        number = _field(body, "number", int)
        review.undo(number)
        return {"image": review.shown(number), **review.state()}

    async def next_image(request: Request) -> Response:
        after = _number(request.query_params.get("after", "-1"))
        return JSONResponse(await run_in_threadpool(following, after))

    async def picture(request: Request) -> Response:
        jpeg = await run_in_threadpool(review.picture, _number(request.query_params.get("number", "")))
        return Response(jpeg, media_type="image/jpeg")

    def posted(act: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
        async def answer(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(act, await _body(request)))

        return answer

    async def explain(_: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{error}\n", STATUS[type(error)])  # type: ignore[index]

    own = ((f"/{name}".replace("/page.html", "/"), name, kind) for name, kind in FILES.items())
    return Starlette(
        routes=[
            *(Route(path, file_answer("edgeclf.reviewing", name, kind)) for path, name, kind in own),
            Route("/icon.svg", file_answer("edgeclf_device.web", "icon.svg", "image/svg+xml")),
            Route("/next", next_image),
            Route("/picture", picture),
            Route("/decide", posted(decided), methods=["POST"]),
            Route("/undo", posted(undone), methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys(STATUS, explain),
    )


FILES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was posted. A form of another site can't say that it is JSON without being asked first."""
    if request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        raise DataError("What is posted must be application/json.")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise DataError(f"What is posted may have {MAX_BODY_BYTES} bytes.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataError("What is posted must be a JSON object.")
    return value


def _field(body: dict[str, Any], key: str, kind: Any) -> Any:
    value = body.get(key, False if kind is bool else None)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(f"{key} is missing, or of the wrong type.")
    return value


def _number(text: str) -> int:
    if not text.removeprefix("-").isdecimal() or len(text) > 9:
        raise DataError("The number of an image must be an integer.")
    return int(text)
