"""A served page, and the thread that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeclf_device.errors import SystemStateError
from edgeclf_device.health import Health
from edgeclf_device.sources import Note, SourceStatus
from edgeclf_device.streaming import Event
from edgeclf_device.web.hub import Hub

if TYPE_CHECKING:
    import uvicorn

GRACE_S, LAST_GRACE_S = 0.4, 0.5
"""How long viewers may take to hear of the end, and how long the server may take without them."""

ReadHealth = Callable[[], Health]


class Page:
    """A served page. A context manager; made by ``serve``.

    Attributes:
        url: where it is, without the token.
        link: the same with the token, for the person who may have it.
    """

    def __init__(
        self, hub: Hub, server: uvicorn.Server, listener: socket.socket, *, url: str, link: str, health: ReadHealth
    ) -> None:
        self.url = url
        self.link = link
        self._hub = hub
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, health), name="edgeclf-page", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._loop is None:
            raise SystemStateError("The page's server did not start; too few file descriptors may be left (ulimit -n).")

    def publish(self, event: Event, status: SourceStatus | None = None, notes: Sequence[Note] = ()) -> None:
        """Show an event. From one thread; takes microseconds, and waits for no viewer.

        Args:
            event: replaces the one before it, seen or not. Its frame's pixels must not change afterwards.
            status: of the source; None leaves what was last known.
            notes: for the event log.
        """
        self._hub.publish(event, status, notes)

    def report(self, status: SourceStatus | None = None, notes: Sequence[Note] = ()) -> None:
        """Show how the source is while no frame comes. From any thread."""
        self._hub.report(status, notes)

    def close(self) -> None:
        """Send the viewers away and end the thread, within a second. Closing twice does no harm."""
        self._hub.close()
        self._server.should_exit = True
        self._thread.join(GRACE_S)
        if self._thread.is_alive() and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._cut_off)
            self._thread.join(LAST_GRACE_S)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, listener: socket.socket, health: ReadHealth) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._hub.attach(self._loop)
            watching = self._loop.create_task(self._hub.watch_health(health))
            self._ready.set()
            await self._server.serve(sockets=[listener])
            watching.cancel()

        try:
            asyncio.run(main())
        finally:
            self._ready.set()

    def _cut_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
