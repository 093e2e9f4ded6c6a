"""A page opened: its address checked and bound, its server set up."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from edgeclf_device.errors import UsageError
from edgeclf_device.web.address import Address, bind, parse_address
from edgeclf_device.web.app import make_app
from edgeclf_device.web.connection import Connection
from edgeclf_device.web.guard import LOOPBACK_NAMES, READING, Guard, chosen_token
from edgeclf_device.web.hub import Hub
from edgeclf_device.web.page import Page, ReadHealth
from edgeclf_device.web.served import Opened


def open_page(address: str, *, hub: Hub, allow_remote: bool, token: str | None, health: ReadHealth) -> Page:
    """``edgeclf_device.web.serve``, where its packages are installed."""
    opened = open_server(
        address,
        make_app(hub),
        allow_remote=allow_remote,
        token=token,
        reached="whoever reaches it sees the camera",
        cut_off=hub.count_cut_off,
    )
    return Page(hub, opened, health=health)


def _uncounted() -> None:
    """A viewer was cut off."""


def open_server(
    address: str,
    app: ASGIApp,
    *,
    allow_remote: bool,
    token: str | None,
    reached: str,
    methods: tuple[str, ...] = READING,
    cut_off: Callable[[], None] = _uncounted,
) -> Opened:
    """Guard an application and bind its address; ``Served`` then serves it.

    Args:
        address, allow_remote, token: as for ``edgeclf_device.web.serve``.
        app: what is served.
        reached: what other machines could do, for the message that refuses it: ``whoever reaches it sees the camera``.
        methods: of HTTP that ``app`` answers.
        cut_off: called when a viewer is cut off because it takes nothing.

    Raises:
        UsageError, SystemStateError: as ``edgeclf_device.web.serve``.
    """
    where, secret = parse_address(address), chosen_token(token)
    _check_reach(where, reached, allow_remote=allow_remote, token=secret)
    listener = bind(where)
    port = listener.getsockname()[1]
    url = f"http://{_name(where)}:{port}/"
    hosts = (*LOOPBACK_NAMES, where.number) if where.loopback else None
    config = uvicorn.Config(
        Guard(app, token=secret, hosts=hosts, cookie=f"edgeclf-{port}", methods=methods),
        http=cast("type[Connection]", partial(Connection, cut_off=cut_off)),
        loop="asyncio",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        log_level="error",
        access_log=False,  # an address may hold the token
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
    )
    link = url if secret is None else f"{url}?token={secret}"
    return Opened(server=uvicorn.Server(config), listener=listener, url=url, link=link)


def _check_reach(where: Address, reached: str, *, allow_remote: bool, token: str | None) -> None:
    if where.loopback:
        return
    if not allow_remote:
        raise UsageError(
            f"{where.host} can be reached from other machines, and {reached}; add "
            "--allow-remote and a token, or serve at 127.0.0.1 and come by ssh -L 8080:127.0.0.1:8080."
        )
    if token is None:
        raise UsageError(
            f"{where.host} can be reached from other machines, so the page needs a token; give one with --token-file "
            "or EDGECLF_TOKEN; the word auto makes one."
        )


def _name(where: Address) -> str:
    """The host as a browser is told it: of every address, this machine's name."""
    if where.number in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{where.number}]" if where.family == socket.AF_INET6 else where.host
