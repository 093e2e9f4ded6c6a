"""Who may use a page: only methods and hosts that are meant, no other site, and whoever shows the token."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeclf_device.errors import UsageError

READING = ("GET", "HEAD")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")


def chosen_token(token: str | None) -> str | None:
    """The token to ask for: a new one for ``auto``, else the one given.

    Raises:
        UsageError: it is too short to be a secret, or would have to be escaped in an address. It is not repeated.
    """
    if token == "auto":  # noqa: S105 - the word, not a secret
        return secrets.token_urlsafe(24)
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise UsageError(
            "The page's token must be at least 16 letters, digits, '-', '.', '_' or '~', but the one given "
            f"({len(token)} characters) is not; make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'."
        )
    return token


class Guard:
    """ASGI: lets through who may use the page, and puts the headers on every answer.

    What changes something must come from the page itself: another site's request is told by ``Sec-Fetch-Site``, and by
    its ``Origin`` where a browser does not send that.

    The token comes as ``Authorization: Bearer``, or once as ``?token=``, which earns a cookie. The cookie is derived
    from the token, so that it outlives a restart of the program but is not the token.

    Args:
        app: what it guards.
        token: None asks for none.
        hosts: what the Host header may name, its port aside (a web site can give its own name this machine's address);
            None takes any.
        cookie: its name; cookies know no ports, so it should hold the port.
        methods: of HTTP that are served.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        hosts: tuple[str, ...] | None,
        cookie: str,
        methods: tuple[str, ...] = READING,
    ) -> None:
        self._app = app
        self._methods = methods
        self._hosts = hosts
        self._token = token
        self._cookie = cookie
        self._pass = hmac.new((token or "").encode(), b"edgeclf live page", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI's
        request = Request(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if self._token is not None and "token" in request.query_params and message["status"] < 400:
                    value = f"{self._cookie}={self._pass}; Path=/; HttpOnly; SameSite=Strict"
                    headers.append("Set-Cookie", value)
            await send(message)

        refused = self._refusal(request)
        await (self._app if refused is None else refused)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in self._methods:
            text = f"Only {' and '.join(self._methods)} are served here.\n"
            return PlainTextResponse(text, 405, {"Allow": ", ".join(self._methods)})
        if self._hosts is not None and _host(request) not in self._hosts:
            return PlainTextResponse(f"This page is served as {', '.join(self._hosts)} alone.\n", 421)
        if _from_another_site(request):
            return PlainTextResponse("Other sites may not use this page.\n", 403)
        if self._token is not None and not self._shown(request, self._token):
            text = "This page needs its token: open it with ?token=TOKEN, or send Authorization: Bearer TOKEN.\n"
            return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})
        return None

    def _shown(self, request: Request, token: str) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        return (
            (kind.lower() == "bearer" and _same(given.strip(), token))
            or _same(request.query_params.get("token", ""), token)
            or _same(request.cookies.get(self._cookie, ""), self._pass)
        )


def _from_another_site(request: Request) -> bool:
    """Whether another site asks, other than by a link to the page."""
    own = request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
    if request.method in READING:
        return not own and request.headers.get("Sec-Fetch-Mode") != "navigate"
    origin = request.headers.get("Origin")
    return not own or (origin is not None and origin.partition("://")[2] != request.headers.get("Host", ""))


def _host(request: Request) -> str:
    """The Host header without its port, in small letters."""
    return re.sub(r":\d*$", "", request.headers.get("Host", "")).lower().rstrip(".")


def _same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
