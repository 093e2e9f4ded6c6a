"""An application, and the thread that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeclf_device.errors import SystemStateError

if TYPE_CHECKING:
    import uvicorn

GRACE_S, LAST_GRACE_S = 0.4, 0.5
"""How long viewers may take to hear of the end, and how long the server may take without them."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A server with its bound socket, not started yet; ``url`` and ``link`` as of ``Served``."""

    server: uvicorn.Server
    listener: socket.socket
    url: str
    link: str


class Served:
    """Serves an application from a thread of its own. A context manager.

    Attributes:
        url: where it is, without the token.
        link: the same with the token, for the person who may have it.
    """

    def __init__(self, opened: Opened) -> None:
        self.url = opened.url
        self.link = opened.link
        self._server = opened.server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(opened.listener,), name="edgeclf-page", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._loop is None:
            raise SystemStateError("The page's server did not start; too few file descriptors may be left (ulimit -n).")

    def close(self) -> None:
        """Send the viewers away and end the thread, within a second. Closing twice does no harm."""
        self._server.should_exit = True
        self._thread.join(GRACE_S)
        if self._thread.is_alive() and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._cut_off)
            self._thread.join(LAST_GRACE_S)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def _beside(self) -> None:
        """What else the loop does while it serves."""

    def _run(self, listener: socket.socket) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            beside = self._loop.create_task(self._beside())
            self._ready.set()
            await self._server.serve(sockets=[listener])
            beside.cancel()

        try:
            asyncio.run(main())
        finally:
            self._ready.set()

    def _cut_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
